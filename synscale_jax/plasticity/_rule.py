"""What a local rule is: two pure functions, as in optax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

Reduction = Literal["mean", "sum"]


class PlasticityRule(NamedTuple):
    """A local learning rule of one dense layer.

    Weights are laid out as flax's kernels, (inputs, units). Rules know nothing of a loss: what
    they need is what entered the layer and what its units did.

    Attributes:
      init: weights -> state.
      update: ``(weights, presynaptic, postsynaptic, state) -> (weights, state)`` with presynaptic
        (batch, inputs) and postsynaptic (batch, units).
      reads_postsynaptic: whether postsynaptic may not be None.
    """

    init: Callable[[Array], Any]
    update: Callable[[Array, Array, Array | None, Any], tuple[Array, Any]]
    reads_postsynaptic: bool = True


class StepCount(NamedTuple):
    """State of a rule that remembers nothing else."""

    count: Array  # shape=(), dtype=int32: updates done


def count_only(weights: Array) -> StepCount:
    """The state before the first update."""
    del weights
    return StepCount(jnp.zeros([], jnp.int32))


def unit_norm(rule: PlasticityRule) -> PlasticityRule:
    r"""Bring each unit's weight vector to length 1 after every update of a rule.

    .. math::
        w_j \leftarrow w_j' / \lVert w_j' \rVert_2

    Args:
      rule: the rule whose result is normalised.

    Returns:
      A :class:`PlasticityRule` with the state of ``rule``.

    Examples:
      >>> import jax.numpy as jnp
      >>> from synscale_jax.plasticity import hebb, unit_norm
      >>> rule = unit_norm(hebb(1.0))
      >>> weights = jnp.array([[1.0], [0.0]])
      >>> x = jnp.array([[0.0, 1.0]])
      >>> rule.update(weights, x, jnp.ones((1, 1)), rule.init(weights))[0].ravel().tolist()
      [0.7071..., 0.7071...]
    """

    def update(weights: Array, x: Array, z: Array | None, state: Any) -> tuple[Array, Any]:
        weights, state = rule.update(weights, x, z, state)
        length = jnp.linalg.norm(weights, axis=0, keepdims=True)
        return weights / jnp.maximum(length, jnp.finfo(weights.dtype).tiny), state

    return rule._replace(update=update)


def rate_at(learning_rate: optax.ScalarOrSchedule, count: Array) -> Array:
    """A rate or schedule at a step."""
    return jnp.asarray(learning_rate(count) if callable(learning_rate) else learning_rate)


def check_rate(learning_rate: optax.ScalarOrSchedule) -> None:
    """Refuse a rate that learns nothing."""
    if isinstance(learning_rate, int | float | np.number) and not 0 < learning_rate < float("inf"):
        raise ValueError(f"learning_rate={learning_rate} learns nothing: use e.g. 0.01.")


def check_choice(name: str, value: Any, choices: Any) -> None:
    """Refuse a name that is none of a Literal's."""
    if value not in get_args(choices):
        raise ValueError(f"{name}={value!r} is unknown: use one of {', '.join(get_args(choices))}.")


def check_batch(weights: Array, x: Array, z: Array | None) -> None:
    """Refuse activities that do not belong to the weights."""
    inputs, units = weights.shape
    if x.ndim != 2 or x.shape[1] != inputs:
        raise ValueError(
            f"presynaptic has shape {x.shape} and the weights {weights.shape}: give "
            f"(batch, {inputs}), flattened."
        )
    if z is not None and z.shape != (x.shape[0], units):
        raise ValueError(
            f"postsynaptic has shape {z.shape} where weights {weights.shape} and presynaptic "
            f"{x.shape} need {(x.shape[0], units)}."
        )
