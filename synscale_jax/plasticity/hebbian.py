"""Hebb's rule, Oja's, and Hebb's with a threshold on the change."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from synscale_jax.plasticity._rule import (
    PlasticityRule,
    Reduction,
    StepCount,
    check_batch,
    check_choice,
    check_rate,
    count_only,
    rate_at,
)

Sparsity = Literal["signed", "magnitude"]
Scope = Literal["layer", "unit"]
Baseline = Literal["scaled", "published", "none"]


class ThresholdState(NamedTuple):
    """State of :func:`thresholded_hebb`."""

    count: Array  # shape=(), dtype=int32: updates done
    product_sum: Array  # shape=(inputs, units), float32: Σ over updates of xᵀ z


def hebb(learning_rate: optax.ScalarOrSchedule, *, reduction: Reduction = "mean") -> PlasticityRule:
    r"""Hebb's rule: what fires together wires together.

    .. math::
        W \leftarrow W + \eta\, x^\top z

    Nothing bounds it: on its own, updated on every batch, it diverges. See :func:`unit_norm`.

    Args:
      learning_rate: η, a number or a schedule of the updates done.
      reduction: ``"mean"`` over the batch, or ``"sum"`` as in the published code.

    Returns:
      A :class:`PlasticityRule` with state :class:`StepCount`.

    Raises:
      ValueError: for a rate of 0 or less, or an unknown reduction.

    Examples:
      >>> import jax.numpy as jnp
      >>> from synscale_jax.plasticity import hebb
      >>> rule = hebb(0.1)
      >>> weights = jnp.zeros((2, 1))
      >>> x, z = jnp.array([[1.0, 0.0], [1.0, 2.0]]), jnp.array([[1.0], [1.0]])
      >>> weights, state = rule.update(weights, x, z, rule.init(weights))
      >>> weights.ravel().tolist(), int(state.count)
      ([0.1..., 0.1...], 1)

    References:
      Hebb, The Organization of Behavior, 1949.
    """
    _check(learning_rate, reduction)

    def update(weights: Array, x: Array, z: Any, state: StepCount) -> tuple[Array, StepCount]:
        check_batch(weights, x, z)
        change = rate_at(learning_rate, state.count) * _products(x, z, reduction)
        return _moved(weights, change), StepCount(state.count + 1)

    return PlasticityRule(count_only, update)


def oja(learning_rate: optax.ScalarOrSchedule, *, reduction: Reduction = "mean") -> PlasticityRule:
    r"""Oja's rule: Hebb's with a decay that bounds each unit's weights.

    .. math::
        W \leftarrow W + \eta\,(x^\top z - W\,z^\top z)

    One linear unit finds the first principal component of its input; several share out the
    principal subspace.

    Args:
      learning_rate: η, a number or a schedule of the updates done.
      reduction: ``"mean"`` over the batch, or ``"sum"`` as in the published code.

    Returns:
      A :class:`PlasticityRule` with state :class:`StepCount`.

    Raises:
      ValueError: for a rate of 0 or less, or an unknown reduction.

    Examples:
      >>> import jax.numpy as jnp
      >>> from synscale_jax.plasticity import oja
      >>> rule = oja(0.5)
      >>> weights, x = jnp.array([[1.0], [0.0]]), jnp.array([[1.0, 1.0]])
      >>> weights, state = rule.update(weights, x, x @ weights, rule.init(weights))
      >>> weights.ravel().tolist()
      [1.0, 0.5]

    References:
      Oja, `A simplified neuron model as a principal component analyzer
      <https://doi.org/10.1007/BF00275687>`_, 1982; Neural networks, principal components, and
      subspaces, 1989.
    """
    _check(learning_rate, reduction)

    def update(weights: Array, x: Array, z: Any, state: StepCount) -> tuple[Array, StepCount]:
        check_batch(weights, x, z)
        decay = weights @ _products(z, z, reduction)
        change = rate_at(learning_rate, state.count) * (_products(x, z, reduction) - decay)
        return _moved(weights, change), StepCount(state.count + 1)

    return PlasticityRule(count_only, update)


def thresholded_hebb(
    learning_rate: optax.ScalarOrSchedule,
    *,
    percentile: float = 70.0,
    sparsity: Sparsity = "signed",
    scope: Scope = "layer",
    baseline: Baseline = "scaled",
    reduction: Reduction = "mean",
) -> PlasticityRule:
    r"""Hebb's rule less its running mean, of which only the largest changes are made (HebbNet).

    With :math:`P_t = x^\top z` and :math:`\bar P` the mean of the earlier ones,

    .. math::
        D = \eta\,(P_t - \bar P), \qquad
        W \leftarrow W + D \cdot [D \ge \text{its } p\text{-th percentile}]

    The published code subtracts :math:`\bar P` without η (``baseline="published"``), so that from
    the second update on the old products outweigh the new one and most units die. It takes one
    percentile over a whole layer; the local variant, a percentile for each unit, it declares and
    leaves empty (``scope="unit"`` here).

    The percentile is the k-th smallest entry with k = 1 + round(p/100 · (n − 1)), found exactly by
    bisecting over the bits of the numbers, since sorting is slow on CPUs.

    Args:
      learning_rate: η, a number or a schedule of the updates done.
      percentile: p in [0, 100]; 70 makes the largest 30 % of the changes.
      sparsity: whether ``"signed"`` changes are compared, as published, or their ``"magnitude"``.
      scope: over a whole ``"layer"`` or each ``"unit"`` alone.
      baseline: ``"scaled"`` by η, ``"published"``, or ``"none"``.
      reduction: ``"mean"`` over the batch, or ``"sum"`` as in the published code.

    Returns:
      A :class:`PlasticityRule` with state :class:`ThresholdState`.

    Raises:
      ValueError: for a rate of 0 or less, a percentile outside [0, 100] or an unknown name.

    Examples:
      >>> import jax.numpy as jnp
      >>> from synscale_jax.plasticity import thresholded_hebb
      >>> rule = thresholded_hebb(1.0, percentile=50)
      >>> weights, x = jnp.zeros((3, 1)), jnp.array([[1.0, 3.0, 2.0]])
      >>> rule.update(weights, x, jnp.ones((1, 1)), rule.init(weights))[0].ravel().tolist()
      [0.0, 3.0, 2.0]

    References:
      Gupta, Ambikapathi and Ramasamy, HebbNet: a simplified Hebbian learning framework to do
      biologically plausible learning, ICASSP 2021.
    """
    _check(learning_rate, reduction)
    if not 0 <= percentile <= 100:
        raise ValueError(f"percentile={percentile} is none: use a number from 0 to 100, e.g. 70.")
    for name, value, choices in (
        ("sparsity", sparsity, Sparsity),
        ("scope", scope, Scope),
        ("baseline", baseline, Baseline),
    ):
        check_choice(name, value, choices)

    def init(weights: Array) -> ThresholdState:
        return ThresholdState(jnp.zeros([], jnp.int32), jnp.zeros(weights.shape, jnp.float32))

    def update(
        weights: Array, x: Array, z: Any, state: ThresholdState
    ) -> tuple[Array, ThresholdState]:
        check_batch(weights, x, z)
        rate = rate_at(learning_rate, state.count)
        product = _products(x, z, reduction)
        mean = state.product_sum / jnp.maximum(state.count, 1)
        match baseline:
            case "scaled":
                change = rate * (product - mean)
            case "published":
                change = rate * product - mean
            case _:
                change = rate * product
        compared = jnp.abs(change) if sparsity == "magnitude" else change
        kept = _is_at_least_percentile(compared, percentile, per_unit=scope == "unit")
        state = ThresholdState(state.count + 1, state.product_sum + product)
        return _moved(weights, jnp.where(kept, change, 0)), state

    return PlasticityRule(init, update)


def _check(learning_rate: optax.ScalarOrSchedule, reduction: str) -> None:
    check_rate(learning_rate)
    check_choice("reduction", reduction, Reduction)


def _products(x: Array, z: Array, reduction: str) -> Array:
    """xᵀ z, summed over the batch or averaged."""
    product = x.astype(jnp.float32).T @ z.astype(jnp.float32)
    return product / x.shape[0] if reduction == "mean" else product


def _moved(weights: Array, change: Array) -> Array:
    return (weights.astype(jnp.float32) + change).astype(weights.dtype)


def _is_at_least_percentile(values: Array, percentile: float, *, per_unit: bool) -> Array:
    """Which entries are not below the percentile, of all entries or of each column."""
    axes = (0,) if per_unit else (0, 1)
    number = values.shape[0] if per_unit else values.size
    rank = 1 + round(0.01 * percentile * (number - 1))
    values = values.astype(jnp.float32)
    values = jnp.where(values == 0, 0.0, values)  # -0 and 0 are one value
    bits = jax.lax.bitcast_convert_type(values, jnp.uint32)
    top = jnp.uint32(1 << 31)
    keys = jnp.where(bits >= top, ~bits, bits | top)  # integers in the order of the floats

    def settle(index: Array, found: Array) -> Array:
        candidate = found | (top >> index.astype(jnp.uint32))
        below = jnp.sum(keys < candidate, axes, jnp.int32, keepdims=True)
        return jnp.where(below < rank, candidate, found)

    start = jnp.zeros([1, 1 if not per_unit else values.shape[1]], jnp.uint32)
    return keys >= jax.lax.fori_loop(0, 32, settle, start)
