"""Competing hidden units (Krotov and Hopfield), and what reads them out."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from synscale_jax.plasticity._rule import (
    PlasticityRule,
    StepCount,
    check_batch,
    check_rate,
    count_only,
    rate_at,
)


def krotov_hopfield(
    learning_rate: optax.ScalarOrSchedule = 0.02,
    *,
    lebesgue_norm: float = 2.0,
    rank: int = 2,
    anti_hebbian: float = 0.4,
    precision: float = 1e-30,
) -> PlasticityRule:
    r"""Competing hidden units: the winner moves toward the input, the unit of rank k away.

    Input currents, the units' responses to them, and the change, for a batch x:

    .. math::
        I = x\,(\mathrm{sign}(W) |W|^{p-1}), \qquad
        g_{bj} = [j \text{ wins}] - \Delta\,[j \text{ comes } k\text{-th}], \qquad
        D = x^\top g - W\,\mathrm{diag}(g^\top I)

    .. math::
        W \leftarrow W + \eta\, D / \max(\max |D|, \epsilon)

    The largest change of a weight is then η. Each unit's weights converge to
    :math:`\sum_i |w_i|^p = 1`. Ranks are found by k masked maxima: two passes over the currents a
    rank, where a sort takes many.

    Args:
      learning_rate: η, a number or a schedule of the updates done.
      lebesgue_norm: p, 2 or more in the paper.
      rank: k, 2 or more; k = 1 would be the winner.
      anti_hebbian: Δ.
      precision: ε, the least divisor.

    Returns:
      A :class:`PlasticityRule` with state :class:`StepCount`. It forms its currents itself and
      leaves ``postsynaptic`` unread: for p ≠ 2 they are not what a layer puts out.

    Raises:
      ValueError: for a rate or precision of 0 or less, p below 1, k below 2 or Δ below 0; when
        traced, for fewer than k units.

    Examples:
      >>> import jax.numpy as jnp
      >>> from synscale_jax.plasticity import krotov_hopfield
      >>> rule = krotov_hopfield(0.1)
      >>> weights, x = jnp.array([[1.0, 0.5], [0.0, 0.5]]), jnp.array([[0.6, 0.8]])
      >>> weights, state = rule.update(weights, x, None, rule.init(weights))
      >>> [[round(value, 3) for value in row] for row in weights.tolist()]
      [[1.0, 0.556], [-0.071, 0.6]]

    References:
      Krotov and Hopfield, `Unsupervised learning by competing hidden units
      <https://doi.org/10.1073/pnas.1820458116>`_, PNAS 116(16), 2019.
    """
    check_rate(learning_rate)
    if lebesgue_norm < 1:
        raise ValueError(f"lebesgue_norm={lebesgue_norm} is no norm: use 1 or more, e.g. 2.")
    if rank < 2:
        raise ValueError(f"rank={rank} is the winner's own: use 2 or more.")
    if anti_hebbian < 0 or precision <= 0:
        raise ValueError(
            f"anti_hebbian={anti_hebbian}, precision={precision}: the first must be 0 or more, the "
            "second above 0."
        )

    def update(weights: Array, x: Array, z: Any, state: StepCount) -> tuple[Array, StepCount]:
        check_batch(weights, x, z)
        if weights.shape[1] < rank:
            raise ValueError(
                f"rank={rank} needs as many units, and there are {weights.shape[1]}: use a smaller "
                "rank."
            )
        wide, x = weights.astype(jnp.float32), x.astype(jnp.float32)
        currents = input_currents(wide, x, lebesgue_norm)
        winner, other = _first_and_ranked(currents, rank)
        change, pull = jax.lax.platform_dependent(
            x, currents, winner, other,
            cpu=partial(_summed_rows, anti_hebbian),
            default=partial(_products, anti_hebbian),
        )  # fmt: skip
        change = change - wide * pull[None, :]
        scale = rate_at(learning_rate, state.count) / jnp.maximum(jnp.abs(change).max(), precision)
        return (wide + scale * change).astype(weights.dtype), StepCount(state.count + 1)

    return PlasticityRule(count_only, update, reads_postsynaptic=False)


def input_currents(weights: Array, presynaptic: Array, lebesgue_norm: float = 2.0) -> Array:
    r"""The currents that units compete by, :math:`x\,(\mathrm{sign}(W) |W|^{p-1})`.

    Args:
      weights: (inputs, units).
      presynaptic: (batch, inputs).
      lebesgue_norm: p.

    Returns:
      (batch, units).

    Examples:
      >>> import jax.numpy as jnp
      >>> from synscale_jax.plasticity import input_currents
      >>> input_currents(jnp.array([[-2.0], [1.0]]), jnp.ones((1, 2)), 3.0).tolist()
      [[-3.0]]
    """
    if lebesgue_norm != 2:
        weights = jnp.sign(weights) * jnp.abs(weights) ** (lebesgue_norm - 1)
    return presynaptic @ weights


def power_activation(drive: Array, power: float = 4.5) -> Array:
    """The response of competing units in their readout, :math:`max(0, drive)^n`.

    Args:
      drive: any shape.
      power: n, 1 or more.

    Returns:
      Same shape and dtype.

    Raises:
      ValueError: for n below 1, whose slope at 0 is infinite.

    Examples:
      >>> import jax.numpy as jnp
      >>> from synscale_jax.plasticity import power_activation
      >>> power_activation(jnp.array([-1.0, 2.0]), 2.0).tolist()
      [0.0, 4.0]
    """
    if power < 1:
        raise ValueError(f"power={power} has an infinite slope at 0: use 1 or more, e.g. 4.5.")
    positive = jax.nn.relu(drive)
    return positive if power == 1 else positive**power


def power_readout(drive: Array, slope: float = 0.01) -> Array:
    r"""The output of the readout, :math:`\tanh(\beta\,\text{drive})`.

    Args:
      drive: what the readout's weights give, any shape.
      slope: β.

    Returns:
      Same shape, in (−1, 1).
    """
    return jnp.tanh(slope * drive)


def power_loss(output: Array, labels: Array, power: float = 6.0) -> Array:
    r"""The loss of the readout, :math:`\sum_c |o_c - t_c|^m`, t = 1 for the label and −1 else.

    Args:
      output: (batch, classes), in (−1, 1).
      labels: (batch,), integers.
      power: m.

    Returns:
      One number an example; the paper sums over the batch.

    Examples:
      >>> import jax.numpy as jnp
      >>> from synscale_jax.plasticity import power_loss
      >>> power_loss(jnp.array([[0.0, -1.0]]), jnp.array([0])).tolist()
      [1.0]
    """
    targets = 2 * jax.nn.one_hot(labels, output.shape[-1], dtype=output.dtype) - 1
    return jnp.sum(jnp.abs(output - targets) ** power, axis=-1)


def _first_and_ranked(currents: Array, rank: int) -> tuple[Array, Array]:
    """The units with the largest and the rank-th largest current of each example."""
    unit = jax.lax.broadcasted_iota(jnp.int32, currents.shape, 1)

    def largest(values: Array) -> Array:  # an arg-max as two plain reductions: these vectorize
        highest = values.max(1, keepdims=True)
        return jnp.where(values == highest, unit, values.shape[1]).min(1)

    winner = other = largest(currents)
    for _ in range(rank - 1):
        currents = jnp.where(unit == other[:, None], -jnp.inf, currents)
        other = largest(currents)
    return winner, other


def _summed_rows(
    strength: float, x: Array, currents: Array, winner: Array, other: Array
) -> tuple[Array, Array]:
    """xᵀ g and the sum of g I, g having two entries an example: additions of rows."""
    (size, inputs), units = x.shape, currents.shape[1]
    change = jnp.zeros((units, inputs)).at[winner].add(x).at[other].add(-strength * x)
    rows = jnp.arange(size)
    pull = jnp.zeros(units).at[winner].add(currents[rows, winner])
    return change.T, pull.at[other].add(-strength * currents[rows, other])


def _products(
    strength: float, x: Array, currents: Array, winner: Array, other: Array
) -> tuple[Array, Array]:
    """The same as a product of matrices, whose order of summation is the same in every run."""
    unit = jnp.arange(currents.shape[1])[None, :]
    won, lost = unit == winner[:, None], unit == other[:, None]
    g = won.astype(x.dtype) - strength * lost.astype(x.dtype)
    return x.T @ g, jnp.sum(g * currents, 0)
