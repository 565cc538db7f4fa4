"""One scaling step: γ w² ẑ within its limits."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from synscale_jax.scaling._gap import Number, sums_over
from synscale_jax.scaling._layers import Layer


class Limits(NamedTuple):
    """The stabilisers of one scaling step."""

    clip: Number | None
    max_relative_change: Number | None
    restore_norm: bool


def scaling_step(
    weights: Array,
    gap: Array,
    layer: Layer,
    rate: Array,
    limits: Limits,
    heard: Array | None = None,
) -> Array:
    """γ w² ẑ within its limits, of the shape of the weights, exactly 0 where ẑ is."""
    pre, _ = layer.axes.split(weights.ndim)
    gap = jnp.expand_dims(gap, pre)
    if limits.clip is not None:
        step = rate * jnp.clip(jnp.square(weights) * gap, -limits.clip, limits.clip)
    elif limits.max_relative_change is not None:
        bound = limits.max_relative_change
        step = weights * jnp.clip(rate * weights * gap, -bound, bound)
    else:
        step = rate * jnp.square(weights) * gap
    if heard is not None:  # the norm is restored by the heard synapses alone
        step, weights = jnp.where(heard, step, 0), jnp.where(heard, weights, 0)
    return _restore_norm(weights, step, pre) if limits.restore_norm else step


def _restore_norm(weights: Array, step: Array, pre: tuple[int, ...]) -> Array:
    """Change the step so that every neuron's weight vector keeps its norm.

    With r = ‖w‖ / ‖w + δ‖ the step becomes r (w + δ) − w = δ + (r − 1)(w + δ); r − 1 comes from
    log1p and expm1, since the difference of nearly equal norms would lose it.
    """
    squared, growth = sums_over(pre, jnp.square(weights), step * (2 * weights + step))
    growth = jnp.where(squared > 0, growth / jnp.where(squared > 0, squared, 1), 0)
    left = growth > -1  # of a weight vector that is cancelled there is no direction to keep
    step, growth = jnp.where(left, step, 0), jnp.where(left, growth, 0)
    shrink = jnp.expm1(-0.5 * jnp.log1p(growth))
    return step + shrink * (weights + step)


def heard_inputs(layer: Layer, kernel: Array, entered: dict) -> Array:
    """Which inputs were not zero throughout the batch, broadcastable to the kernel."""
    value = entered.get(layer.path)
    pre, _ = layer.axes.split(kernel.ndim)
    if value is None or value.shape[-1] != kernel.shape[pre[-1]]:
        got = "nothing" if value is None else f"an array of shape {value.shape}"
        raise ValueError(
            f"skip_silent_inputs=True needs what entered layer {layer.name!r} (kernel "
            f"{kernel.shape}), got {got}: pass presynaptic= to update, from a collector called "
            "with presynaptic=True."
        )
    heard = jnp.any(value != 0, axis=tuple(range(value.ndim - 1)))
    shape = [1] * kernel.ndim
    shape[pre[-1]] = heard.shape[0]
    return heard.reshape(shape)
