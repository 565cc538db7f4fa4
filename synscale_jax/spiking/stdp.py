"""Pair STDP with traces, all-LTD, and the decay of weights that are not used."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike


class STDP(NamedTuple):
    """Parameters of the pair rule.

    Attributes:
      potentiation: what a presynaptic spike adds to its trace.
      depression: what a postsynaptic spike adds to its trace; negative.
      presynaptic_time: time constant of the presynaptic trace, ms.
      postsynaptic_time: time constant of the postsynaptic trace, ms.
      g_max: weights stay in [0, g_max].
    """

    potentiation: float = 5e-4
    depression: float = -5.25e-4
    presynaptic_time: float = 20.0
    postsynaptic_time: float = 20.0
    g_max: float = 0.05


PUBLISHED = STDP()
"""As published, 1 % of g_max up and 1.05 % down."""


class LearningRates(NamedTuple):
    """What a postsynaptic neuron makes of the two kinds of pairs, each of shape (neurons,).

    Attributes:
      at_input: factor of the change at a presynaptic spike (post before pre).
      at_output: factor of the change at a postsynaptic spike (pre before post).
    """

    at_input: Array
    at_output: Array


RULES = {"stdp": (1.0, 1.0), "all_ltd": (1.0, -1.0), "frozen": (0.0, 0.0)}
"""Rule → (at_input, at_output). STDP rewards inputs that come before the neuron's spike, all-LTD
depresses them like those that come after it, frozen leaves weights alone."""


def kernel(rule: STDP, interval: ArrayLike, name: str = "stdp") -> np.ndarray:
    r"""Change of a weight by one pair of spikes, in closed form.

    With Δt = t_post − t_pre,

    .. math::
        \Delta w = \begin{cases}
          \eta_{out} A_{pre} \, e^{-\Delta t / \tau_{pre}} & \Delta t \ge 0 \\
          \eta_{in} A_{post} \, e^{\Delta t / \tau_{post}} & \Delta t < 0
        \end{cases}

    Spikes of the same step count as pre before post, as they are processed.

    Args:
      rule: the parameters.
      interval: Δt, ms, any shape.
      name: ``"stdp"``, ``"all_ltd"`` or ``"frozen"``.

    Returns:
      The changes, float64, of the shape of ``interval``.

    Raises:
      ValueError: if there is no such rule.

    Examples:
      >>> from synscale_jax.spiking import STDP, stdp
      >>> [f"{change:+.2e}" for change in stdp.kernel(STDP(), [-10.0, 10.0])]
      ['-3.18e-04', '+3.03e-04']
      >>> [f"{change:+.2e}" for change in stdp.kernel(STDP(), [-10.0, 10.0], "all_ltd")]
      ['-3.18e-04', '-3.03e-04']
    """
    at_input, at_output = rates_of(name)
    interval = np.asarray(interval, float)
    causal = at_output * rule.potentiation * np.exp(-np.abs(interval) / rule.presynaptic_time)
    acausal = at_input * rule.depression * np.exp(-np.abs(interval) / rule.postsynaptic_time)
    return np.where(interval >= 0, causal, acausal)


def rates_of(name: str) -> tuple[float, float]:
    """The two factors of a rule.

    Raises:
      ValueError: if there is no such rule.
    """
    if name not in RULES:
        raise ValueError(f"{name!r} is no learning rule: use one of {', '.join(RULES)}.")
    return RULES[name]


def at_input_spike(
    rule: STDP, weights: Array, postsynaptic_trace: Array, rates: LearningRates
) -> Array:
    """Weights of an input right after its spike.

    Args:
      rule: the parameters.
      weights: (..., neurons), from the input to every neuron.
      postsynaptic_trace: (neurons,), of this moment, 0 or below.
      rates: the neurons' factors.

    Returns:
      The new weights, within [0, g_max].
    """
    change = rates.at_input * postsynaptic_trace
    return jnp.clip(weights + change.reshape((1,) * (weights.ndim - 1) + (-1,)), 0, rule.g_max)


def at_output_spike(
    rule: STDP, weights: Array, presynaptic_trace: Array, rates: LearningRates, spiked: Array
) -> Array:
    """All weights right after some neurons' spikes.

    Args:
      rule: the parameters.
      weights: (inputs, neurons).
      presynaptic_trace: (inputs,), of this moment, 0 or above.
      rates: the neurons' factors.
      spiked: bool (neurons,); the weights of the others stay to the bit.

    Returns:
      The new weights, within [0, g_max].
    """
    changed = weights + rates.at_output[None] * presynaptic_trace[:, None]
    return jnp.where(spiked[None], jnp.clip(changed, 0, rule.g_max), weights)


def trace_decay(steps: Array, dt: float, time_constant: float, like: Array) -> Array:
    """exp(−steps · dt / τ), of an integer number of steps, in the dtype of ``like``."""
    return jnp.exp(steps.astype(like.dtype) * jnp.asarray(-dt / time_constant, like.dtype))


def silence_factor(steps: ArrayLike, dt: float, time_constant: float) -> Array:
    r"""What is left of a weight whose input has been silent: use it or lose it.

    .. math::
        w(t) = w(t_s) \, e^{-((t - t_s) / \tau)^2}

    with t_s the input's last spike. Evaluated when the input spikes next, as weights of silent
    inputs act on nobody.

    Args:
      steps: t − t_s in steps, integers, any shape: times in float32 milliseconds would lose whole
        steps after some hours.
      dt: length of a step, ms.
      time_constant: τ, ms.

    Returns:
      The factors, in [0, 1].

    References:
      Antonov and Sukhov, Weight regularization in spiking neural networks, Proc. XXXII workshop
      Neuroinformatics, Krasnoyarsk 2024, eq. 5.

    Examples:
      >>> from synscale_jax.spiking import silence_factor
      >>> factors = silence_factor([10_000, 75_000, 150_000], dt=0.1, time_constant=7500.0)
      >>> [f"{factor:.3f}" for factor in factors]
      ['0.982', '0.368', '0.018']
    """
    silent = jnp.asarray(steps).astype(jnp.result_type(float))
    return jnp.exp(-jnp.square(silent * (dt / time_constant)))


def check_rule(rule: STDP) -> None:
    """Refuse parameters that are no rule.

    Raises:
      ValueError: if a time constant or g_max is not positive.
    """
    for name in ("presynaptic_time", "postsynaptic_time", "g_max"):
        value = getattr(rule, name)
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"STDP needs a positive {name}, got {value}.")
