"""The conductance-based leaky integrate-and-fire neuron."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike


class LIF(NamedTuple):
    """Parameters of a neuron: one number for all, or one a neuron in NumPy arrays (neurons,).

    Attributes:
      membrane_time: time constant of the membrane, ms.
      rest: resting potential, mV.
      reset: potential after a spike, mV.
      threshold: potential above which it spikes, before adaptation, mV.
      refractory: how long after a spike it cannot spike again, ms; it goes on integrating.
      threshold_jump: by how much a spike raises the adaptive threshold, mV; 0: no adaptation.
      threshold_time: time constant with which the adaptive threshold falls back, ms.
      excitatory_time: time constant of the excitatory conductance, ms.
      inhibitory_time: time constant of the inhibitory conductance, ms.
      excitatory_reversal: potential that the excitatory conductance pulls to, mV.
      inhibitory_reversal: potential that the inhibitory conductance pulls to, mV.
    """

    membrane_time: ArrayLike = 100.0
    rest: ArrayLike = -60.0
    reset: ArrayLike = -65.0
    threshold: ArrayLike = -52.0
    refractory: ArrayLike = 5.0
    threshold_jump: ArrayLike = 3.0
    threshold_time: ArrayLike = 150.0
    excitatory_time: ArrayLike = 5.0
    inhibitory_time: ArrayLike = 10.0
    excitatory_reversal: ArrayLike = 0.0
    inhibitory_reversal: ArrayLike = -100.0


EXCITATORY = LIF()
"""The excitatory neurons of the published network."""

INHIBITORY = LIF(
    membrane_time=10.0, reset=-45.0, threshold=-40.0, refractory=2.0, threshold_jump=0.0
)
"""Its inhibitory neurons; their reset lies above rest, as published."""


class LIFState(NamedTuple):
    """State of neurons, every field of shape (..., neurons) and of one floating dtype.

    Attributes:
      membrane_potential: v, mV.
      excitatory: conductance g_e, in units of the leak.
      inhibitory: conductance g_i, in units of the leak.
      adaptive_threshold: mV.
      refractory: steps until the neuron may spike again, a whole number.
    """

    membrane_potential: Array
    excitatory: Array
    inhibitory: Array
    adaptive_threshold: Array
    refractory: Array


def initial_state(
    neuron: LIF,
    shape: int | tuple[int, ...],
    *,
    potential: float = -80.0,
    dtype: DTypeLike = jnp.float32,
) -> LIFState:
    """Neurons without conductance, ready to spike.

    Args:
      neuron: their parameters.
      shape: (..., neurons), or the number of neurons.
      potential: v of all, mV; the published network starts at −80.
      dtype: float32 or float64.

    Returns:
      The state.

    Examples:
      >>> from synscale_jax.spiking import neurons
      >>> neurons.initial_state(neurons.EXCITATORY, 2).membrane_potential.tolist()
      [-80.0, -80.0]
    """
    none = jnp.zeros(shape, dtype)
    return LIFState(
        jnp.full_like(none, potential),
        none,
        none,
        jnp.broadcast_to(jnp.asarray(neuron.threshold, dtype), none.shape),
        none,
    )


def integrate(neuron: LIF, state: LIFState, dt: float) -> LIFState:
    r"""One Euler step, before spikes are looked for.

    .. math::
        \tau_m \dot v = g_e (E_e - v) + g_i (E_i - v) + (v_{rest} - v), \qquad
        \dot g = -g / \tau_g, \qquad
        \dot\theta = (\theta_0 - \theta) / \tau_\theta

    Args:
      neuron: the parameters.
      state: before the step.
      dt: length of the step, ms.

    Returns:
      The state after it.
    """
    v, ge, gi, threshold, refractory = state
    pull = _to(v, neuron.rest) - v
    pull += ge * (_to(v, neuron.excitatory_reversal) - v)
    pull += gi * (_to(v, neuron.inhibitory_reversal) - v)
    return LIFState(
        v + _to(v, dt / neuron.membrane_time) * pull,
        ge * _to(v, 1 - dt / neuron.excitatory_time),
        gi * _to(v, 1 - dt / neuron.inhibitory_time),
        threshold + _to(v, dt / neuron.threshold_time) * (_to(v, neuron.threshold) - threshold),
        jnp.maximum(refractory - 1, 0),
    )


def spikes(state: LIFState, threshold: Array) -> Array:
    """Who spikes: above the threshold and not refractory.

    Args:
      state: after :func:`integrate`.
      threshold: the potential to exceed, mV, (..., neurons): ``state.adaptive_threshold`` for
        adaptation at work, or a constant.

    Returns:
      bool (..., neurons).
    """
    return (state.membrane_potential > threshold) & (state.refractory <= 0)


def reset(neuron: LIF, state: LIFState, spiked: Array, dt: float) -> LIFState:
    """What a spike does to the neuron itself: potential, threshold, refractory period.

    A neuron that spikes in step k can spike again in step k + refractory / dt, not before.

    Args:
      neuron: the parameters.
      state: after :func:`integrate` and what arrived in this step.
      spiked: bool (..., neurons).
      dt: length of a step, ms.

    Returns:
      The state at the end of the step.
    """
    v = state.membrane_potential
    return state._replace(
        membrane_potential=jnp.where(spiked, _to(v, neuron.reset), v),
        adaptive_threshold=state.adaptive_threshold
        + jnp.where(spiked, _to(v, neuron.threshold_jump), 0),
        refractory=jnp.where(spiked, _to(v, steps_in(neuron.refractory, dt)), state.refractory),
    )


def step(
    neuron: LIF,
    state: LIFState,
    dt: float,
    excitatory: ArrayLike = 0.0,
    inhibitory: ArrayLike = 0.0,
    threshold: Array | None = None,
) -> tuple[LIFState, Array]:
    """A whole step: integrate, look for spikes, take what arrives, reset.

    What arrives in a step moves the potential from the next step on.

    Args:
      neuron: the parameters.
      state: before the step.
      dt: length of the step, ms.
      excitatory: added to g_e, (..., neurons) or a number.
      inhibitory: added to g_i.
      threshold: mV; left out, the adaptive threshold.

    Returns:
      The state after the step, and who spiked in it, bool (..., neurons).

    Examples:
      >>> from synscale_jax.spiking import neurons
      >>> state = neurons.initial_state(neurons.EXCITATORY, 1, potential=-60.0)
      >>> state, spiked = neurons.step(neurons.EXCITATORY, state, dt=0.1, excitatory=10.0)
      >>> state, spiked = neurons.step(neurons.EXCITATORY, state, dt=0.1)
      >>> state.membrane_potential.tolist(), spiked.tolist()
      ([-59.400001525878906], [False])
    """
    state = integrate(neuron, state, dt)
    spiked = spikes(state, state.adaptive_threshold if threshold is None else threshold)
    state = state._replace(
        excitatory=state.excitatory + _to(state.excitatory, excitatory),
        inhibitory=state.inhibitory + _to(state.inhibitory, inhibitory),
    )
    return reset(neuron, state, spiked, dt), spiked


def concatenate(first: LIF, size: int, second: LIF, second_size: int) -> LIF:
    """Parameters of two populations side by side; what they share stays one number."""
    return LIF(
        *(
            a
            if a == b
            else np.concatenate([np.full(size, a, float), np.full(second_size, b, float)])
            for a, b in zip(first, second, strict=True)
        )
    )


def steps_in(duration: ArrayLike, dt: float) -> np.ndarray:
    """How many steps a duration takes, rounded to the nearest."""
    return np.floor(np.asarray(duration) / dt + 0.5).astype(int)


def check_step(neuron: LIF, dt: float) -> None:
    """Refuse a step that the Euler method cannot take.

    Raises:
      ValueError: if dt is not positive or exceeds the shortest time constant.
    """
    times = (
        neuron.membrane_time,
        neuron.threshold_time,
        neuron.excitatory_time,
        neuron.inhibitory_time,
    )
    shortest = min(float(np.min(np.asarray(time))) for time in times)
    if not 0 < dt <= shortest:
        raise ValueError(
            f"dt={dt} ms is no step for a shortest time constant of {shortest} ms: use a positive "
            "one below it (0.1 as published; 0.5 is the coarsest that keeps the conclusions)."
        )


def _to(like: Array, value: ArrayLike) -> Array:
    """A parameter in the state's dtype, broadcastable to its shape."""
    array = jnp.asarray(value, like.dtype)
    return array.reshape((1,) * (like.ndim - array.ndim) + array.shape) if array.ndim else array
