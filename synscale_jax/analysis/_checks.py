"""What tests and intervals refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy import ndarray


def finite(name: str, values: Any, least: int) -> ndarray:
    """A list of finite numbers as float64, `least` of them or more."""
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or len(array) < least:
        raise ValueError(
            f"{name} of shape {array.shape} are too few or no list: give {least} or more numbers."
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{name} hold {array[~np.isfinite(array)][0]}: leave diverged runs out.")
    return array


def check_level(level: float) -> None:
    """Refuse a confidence level that is no share."""
    if not 0 < level < 1:
        raise ValueError(f"level={level} is no share: use a number in (0, 1), e.g. 0.95.")
