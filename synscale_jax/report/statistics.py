"""Means and intervals over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


class Estimate(NamedTuple):
    """A mean over seeds, in the unit of the values.

    Attributes:
      mean: the mean.
      deviation: sample standard deviation (n − 1); None for one seed.
      low: lower end of the 95 % interval of the mean by Student's t; None for one seed.
      high: its upper end.
      count: how many seeds.
    """

    mean: float
    deviation: float | None
    low: float | None
    high: float | None
    count: int  # pyright: ignore[reportIncompatibleMethodOverride]


def estimate(values: Sequence[float]) -> Estimate:
    """Mean, spread and 95 % interval of values that stem from independent seeds.

    Args:
      values: one value a seed.

    Returns:
      An :class:`Estimate`.

    Raises:
      ValueError: if there is no value.

    Examples:
      >>> from synscale_jax.report.statistics import estimate
      >>> e = estimate([1.0, 2.0, 3.0])
      >>> e.mean, e.deviation, round(e.low, 2), round(e.high, 2), e.count
      (2.0, 1.0, -0.48, 4.48, 3)
    """
    if len(values) == 0:
        raise ValueError("no values to estimate from: give at least one seed's.")
    array = np.asarray(values, float)
    mean, count = float(array.mean()), len(array)
    if count == 1:
        return Estimate(mean, None, None, None, 1)
    deviation = float(array.std(ddof=1))
    half = float(stats.t.ppf(0.975, count - 1)) * deviation / count**0.5
    return Estimate(mean, deviation, mean - half, mean + half, count)


def spread(values: Sequence[float] | Estimate | None, digits: int = 2) -> str:
    """Mean ± standard deviation over seeds, as tables print it.

    Args:
      values: one value a seed, or what :func:`estimate` made of them.
      digits: decimal places of both.

    Returns:
      The mean alone for one seed, and nothing for none.

    Examples:
      >>> from synscale_jax.report.statistics import spread
      >>> spread([1.0, 2.0, 3.0]), spread([1.5], digits=1), spread([])
      ('2.00 ± 1.00', '1.5', '')
    """
    if not isinstance(values, Estimate):
        if values is None or len(values) == 0:
            return ""
        values = estimate(values)
    deviation = "" if values.deviation is None else f" ± {values.deviation:.{digits}f}"
    return f"{values.mean:.{digits}f}{deviation}"
