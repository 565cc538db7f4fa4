"""Dropout in a model that may have none."""

from __future__ import annotations

from flax import linen as nn
from jax import Array


def check_dropout(rates: tuple[float, float] | None) -> None:
    """Refuse rates that are none."""
    if rates is not None and not (len(rates) == 2 and all(0 <= rate < 1 for rate in rates)):
        raise ValueError(
            f"dropout={rates} are no rates: give those of inputs and hidden units, each in [0, 1), "
            "e.g. (0.2, 0.5)."
        )


def drop(x: Array, rate: float, train: bool) -> Array:
    """Drop units at a rate in training; without a rate there is no module and no random number."""
    return nn.Dropout(rate, deterministic=not train)(x) if rate else x
