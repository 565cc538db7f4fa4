"""The network in time: simulation, and the local estimate of what noise says."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float


@partial(jax.jit, static_argnames=("steps", "record_every"))
def simulate(
    key: Array,
    A: Float[Array, "n n"],
    initial: Float[Array, "*runs n"],
    drive: Float[Array, "*runs n"],
    *,
    steps: int,
    time_step: float,
    noise: float = 0.0,
    record_every: int = 1,
) -> Float[Array, "times *runs n"]:
    r"""Simulate dx = (A x + b) dt + σ dB by Euler's method, many runs at once.

    .. math::
        x \leftarrow x + \Delta t\,(A x + b) + \sqrt{\Delta t}\,\sigma\,\xi

    The noise depends on the key and the shape alone: networks simulated with the same key are
    driven by the same noise. A batch of runs reads A from memory once a step, where a single run
    is bound by that reading.

    Args:
      key: a random key.
      A: connectivity, any float dtype, in which all is computed.
      initial: x at time 0, one row a run (or a single one of shape (n,)).
      drive: b, of the shape of ``initial``.
      steps: how many, a multiple of ``record_every``.
      time_step: Δt, in the unit of time of A.
      noise: σ, per square root of the unit of time.
      record_every: keep each so-many-th state.

    Returns:
      The states after steps ``record_every``, 2 ``record_every``, …; time comes first.

    Raises:
      ValueError: if the number of steps is no multiple of ``record_every``, or shapes differ.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from synscale_jax.pruning import simulate
      >>> x = simulate(jax.random.key(0), -jnp.eye(2), jnp.ones(2), jnp.zeros(2),
      ...              steps=1000, time_step=1e-3, record_every=500)
      >>> [f"{value:.4f}" for value in x[:, 0]]  # exp(-0.5) and exp(-1), but for Euler's error
      ['0.6064', '0.3677']
    """
    if steps % record_every:
        raise ValueError(f"steps={steps} is no multiple of record_every={record_every}.")
    if initial.shape != drive.shape or initial.shape[-1] != len(A):
        raise ValueError(
            f"initial {initial.shape} and drive {drive.shape} must have the same shape, with the "
            f"{len(A)} neurons of A last."
        )
    initial, drive = initial.astype(A.dtype), drive.astype(A.dtype)
    change, push = time_step * A.T, time_step * drive
    strength = jnp.asarray(noise * jnp.sqrt(time_step), A.dtype)

    def step(x: Array, index: Array) -> tuple[Array, None]:
        kick = jax.random.normal(jax.random.fold_in(key, index), x.shape, x.dtype)
        return x + x @ change + push + strength * kick, None

    def stretch(x: Array, first: Array) -> tuple[Array, Array]:
        x, _ = jax.lax.scan(step, x, first + jnp.arange(record_every))
        return x, x

    return jax.lax.scan(stretch, initial, jnp.arange(0, steps, record_every))[1]


class NoiseTraces(NamedTuple):
    """What neurons and synapses remember of the noise; see :func:`update_traces`.

    Attributes:
      mean: running mean of each neuron's activity, shape (n,).
      covariance: running mean of each pair's product of deviations, shape (n, n).
      count: samples seen, shape (), int32.
    """

    mean: Array
    covariance: Array
    count: Array  # pyright: ignore[reportIncompatibleMethodOverride]


def initial_traces(n: int) -> NoiseTraces:
    """Traces that have seen nothing.

    Args:
      n: number of neurons.

    Returns:
      Zero :class:`NoiseTraces` in the default float dtype.

    Examples:
      >>> from synscale_jax.pruning import initial_traces
      >>> initial_traces(3).covariance.shape
      (3, 3)
    """
    return NoiseTraces(jnp.zeros(n), jnp.zeros((n, n)), jnp.zeros([], jnp.int32))


def update_traces(
    traces: NoiseTraces, x: Float[Array, " n"], rate: float | None = None
) -> NoiseTraces:
    r"""One sample's change of the traces, from what is at hand at each neuron and synapse.

    .. math::
        c_{ij} &\leftarrow c_{ij} + \eta \bigl[(1-\eta)(x_i - m_i)(x_j - m_j) - c_{ij}\bigr] \\
        m_i &\leftarrow m_i + \eta (x_i - m_i)

    The product of both neurons' deviations is a Hebbian term. It lowers the importance of an
    excitatory synapse and raises that of an inhibitory one
    (:func:`difference_variance`). Nothing of the past is kept but m and c. With η = 1/k at the
    k-th sample both are the plain mean and covariance of all samples.

    Args:
      traces: the traces so far.
      x: the activities.
      rate: η in (0, 1), constant, to forget old samples; 1/k if left out.

    Returns:
      The traces after it.

    Examples:
      >>> import jax.numpy as jnp
      >>> from synscale_jax.pruning import initial_traces, update_traces
      >>> traces = initial_traces(2)
      >>> for x in ([1.0, 2.0], [3.0, 6.0]):
      ...     traces = update_traces(traces, jnp.array(x))
      >>> print(traces.covariance)
      [[1. 2.]
       [2. 4.]]
    """
    count = traces.count + 1
    eta = 1 / count.astype(x.dtype) if rate is None else jnp.asarray(rate, x.dtype)
    deviation = x - traces.mean
    product = (1 - eta) * deviation[:, None] * deviation[None, :]
    covariance = traces.covariance + eta * (product - traces.covariance)
    return NoiseTraces(traces.mean + eta * deviation, covariance, count)


@partial(jax.jit, static_argnames=("samples", "sample_every", "rate"))
def probe_with_noise(
    key: Array,
    A: Float[Array, "n n"],
    *,
    samples: int,
    time_step: float = 0.05,
    sample_every: int = 10,
    noise: float = 1.0,
    rate: float | None = None,
    state: Float[Array, " n"] | None = None,
    traces: NoiseTraces | None = None,
) -> tuple[Float[Array, " n"], NoiseTraces]:
    """Drive a network by noise and let its synapses gather their statistic meanwhile.

    The state is simulated as in :func:`simulate`; each ``sample_every``-th one goes through
    :func:`update_traces`. Hand state and traces back in to go on, with a new key. Start from a
    state that has settled (``samples=`` a few of the slowest time constants' worth, traces thrown
    away), or the first samples are too quiet.

    Args:
      key: a random key.
      A: a stable connectivity, float.
      samples: how many to take; a few hundred that are half a unit of time apart suffice.
      time_step: Δt, small against 1 / abs(eigenvalue): Euler's method overestimates a mode's
        variance by about Δt abs(eigenvalue) / 2 of it.
      sample_every: steps between samples.
      noise: σ, per square root of the unit of time.
      rate: as in :func:`update_traces`.
      state: where to go on from; the silent network if left out.
      traces: what was gathered before.

    Returns:
      The last state and the :class:`NoiseTraces`; their ``covariance`` goes into
      :func:`keep_probability`.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from synscale_jax.pruning import probe_with_noise
      >>> A = jnp.array([[-1.0, 0.5], [0.5, -1.0]])
      >>> _, traces = probe_with_noise(jax.random.key(0), A, samples=4000)
      >>> print(traces.covariance.round(1))  # exact: 2/3 and 1/3
      [[0.7 0.3]
       [0.3 0.7]]
    """
    n = A.shape[-1]
    start = jnp.zeros(n, A.dtype) if state is None else state
    gathered = initial_traces(n) if traces is None else traces
    gathered = NoiseTraces(
        gathered.mean.astype(A.dtype), gathered.covariance.astype(A.dtype), gathered.count
    )

    def sample(carry: tuple[Array, NoiseTraces], index: Array) -> tuple[tuple, None]:
        x, seen = carry
        x = simulate(
            jax.random.fold_in(key, index), A, x, jnp.zeros_like(x), steps=sample_every,
            time_step=time_step, noise=noise, record_every=sample_every,
        )[-1]  # fmt: skip
        return (x, update_traces(seen, x, rate)), None

    return jax.lax.scan(sample, (start, gathered), jnp.arange(samples))[0]
