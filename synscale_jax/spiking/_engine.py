"""The event-driven path: as :func:`network.step`, but arithmetic happens where something does.

A core of a CPU takes about as long to start an XLA kernel as to run it on this network, so that the
number of kernels decides. The neurons' state is one array. An inner loop integrates it to the next
input spike or threshold crossing and touches nothing else; an input spike updates one row of
weights; only an output spike looks at all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from synscale_jax.spiking import _native, neurons, stdp
from synscale_jax.spiking.encoding import InputSpikes
from synscale_jax.spiking.network import Network, NetworkState, send
from synscale_jax.spiking.neurons import LIFState
from synscale_jax.spiking.stdp import LearningRates


class Packed(NamedTuple):
    """State between the phases of a step; T is the floating dtype."""

    now: Array  # (), int32: the step that was integrated last
    pending: Array  # (), bool: its spikes are still to be dealt with
    cells: Array  # (6, 2 n), T: fields of LIFState, then the postsynaptic trace
    rows: Array  # (m, n + 1), T: weights, then the presynaptic trace
    last_input: Array  # (m,), int32
    arrivals: Array  # (longest delay + 1, 2 n), T
    last_spike: Array  # (), int32
    counts: Array  # (2 n,), int32: spikes so far


def pack(state: NetworkState) -> Packed:
    """What the engine works on."""
    post = jnp.concatenate([state.postsynaptic_trace, jnp.zeros_like(state.postsynaptic_trace)])
    return Packed(
        state.step - 1,
        jnp.bool_(False),
        jnp.stack([*state.neurons, post]),
        jnp.concatenate([state.weights, state.presynaptic_trace[:, None]], axis=1),
        state.last_input,
        state.arrivals,
        state.last_spike,
        jnp.zeros(state.threshold.shape, jnp.int32),
    )


def unpack(packed: Packed, state: NetworkState) -> NetworkState:
    """Back to the public state, what arrives in the last step delivered."""
    n = packed.rows.shape[1] - 1
    cells = _deliver(packed.cells, packed)
    return state._replace(
        step=packed.now + 1,
        neurons=LIFState(*cells[:5]),
        weights=packed.rows[:, :n],
        presynaptic_trace=packed.rows[:, n],
        postsynaptic_trace=cells[5, :n],
        last_input=packed.last_input,
        arrivals=packed.arrivals,
        last_spike=packed.last_spike,
    )


def advance(
    network: Network,
    state: NetworkState,
    packed: Packed,
    spikes: InputSpikes,
    begin: Array,
    end: Array,
    rates: LearningRates,
    decay: bool,
    native: bool,
) -> Packed:
    """Run until step ``end`` or to the last of the given spikes, whichever comes first.

    Args:
      network: what it is.
      state: for the threshold and the delays.
      packed: where to begin; ``now`` may stand in the middle of a step.
      spikes: of inputs.
      begin: the step that spikes count from.
      end: the first step not to be taken. To run up to it, give a ``spikes.count`` one higher than
        there are spikes and a step of ``end`` or later for the last.
      rates: of the neurons.
      decay: whether weights lose by silence.
      native: whether the loop in C++ does it.

    Returns:
      The state there.
    """
    if native:
        return Packed(*_native.advance(network, state, packed, spikes, begin, end, rates, decay))

    def upcoming(event: Array) -> Array:
        return begin + spikes.step[event]

    def unfinished(carry: tuple[Packed, Array]) -> Array:
        at, event = carry
        return (event < spikes.count) & ((at.now < end - 1) | at.pending | (upcoming(event) < end))

    def move(carry: tuple[Packed, Array]) -> tuple[Packed, Array]:
        at, event = carry
        at = _integrate(network, state, at, jnp.minimum(upcoming(event), end - 1))
        at, event = _input_spikes(network, at, spikes, event, upcoming, rates, decay)
        # A block may end within a step; the next may have more spikes of inputs for it.
        at = lax.while_loop(
            lambda at: at.pending & (event < spikes.count),
            lambda at: _output_spikes(network, state, at, rates),
            at,
        )
        return at, event

    return lax.while_loop(unfinished, move, (packed, jnp.int32(0)))[0]


def _deliver(cells: Array, at: Packed) -> Array:
    """Add what arrives in step ``at.now``; from the next step on it moves potentials."""
    n, length = at.rows.shape[1] - 1, len(at.arrivals)
    arriving = lax.dynamic_index_in_dim(at.arrivals, at.now % length, keepdims=False)
    arriving = jnp.where(at.now - at.last_spike < length, arriving, 0)
    excitatory = np.arange(2 * n) < n
    return jnp.stack(
        [
            cells[0],
            cells[1] + jnp.where(excitatory, 0, arriving),
            cells[2] + jnp.where(excitatory, arriving, 0),
            *cells[3:],
        ]
    )


def _integrate(network: Network, state: NetworkState, at: Packed, until: Array) -> Packed:
    """Integrate to ``until`` or to the first step with a spike."""
    population = network.population
    fade = np.exp(-network.dt / network.rule.postsynaptic_time)

    def quiet(carry: tuple[Array, Array, Array]) -> Array:
        now, pending, _ = carry
        return ~pending & (now < until)

    def onward(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        now, _, cells = carry
        *cells, post = _deliver(cells, at._replace(now=now))
        cells = neurons.integrate(population, LIFState(*cells), network.dt)
        spiked = neurons.spikes(cells, _threshold(network, state, cells))
        return now + 1, spiked.any(), jnp.stack([*cells, post * fade])

    now, pending, cells = lax.while_loop(quiet, onward, (at.now, at.pending, at.cells))
    return at._replace(now=now, pending=pending, cells=cells)


def _threshold(network: Network, state: NetworkState, cells: LIFState) -> Array:
    return cells.adaptive_threshold if network.threshold == "continuous" else state.threshold


def _input_spikes(
    network: Network,
    at: Packed,
    spikes: InputSpikes,
    event: Array,
    upcoming: Callable[[Array], Array],
    rates: LearningRates,
    decay: bool,
) -> tuple[Packed, Array]:
    """All input spikes of this step, one by one: decay, delivery, trace, depression."""
    n, dt, rule, post = network.neurons, network.dt, network.rule, at.cells[5, : network.neurons]

    def read(rows: Array, last_input: Array, event: Array) -> tuple[Array, Array]:
        who = spikes.input[event]
        return lax.dynamic_index_in_dim(rows, who, keepdims=False), last_input[who]

    def due(carry: tuple[Array, ...]) -> Array:
        return (carry[0] < spikes.count) & (upcoming(carry[0]) == at.now)

    def learn(carry: tuple[Array, ...]) -> tuple[Array, ...]:
        # The row was read a turn ago: were it read here, XLA would copy all weights before writing.
        event, rows, last_input, delivered, row, last = carry
        who, silent = spikes.input[event], at.now - last
        weights = row[:n]
        if decay:
            factor = stdp.silence_factor(silent, dt, network.silence_time)
            weights = weights * factor.astype(row.dtype)
        again = silent == 0  # a second point of the same step is the same spike
        delivered = delivered + jnp.where(again, 0, weights)
        weights = stdp.at_input_spike(rule, weights, post, rates)
        faded = row[n:] * stdp.trace_decay(silent, dt, rule.presynaptic_time, row)
        changed = jnp.concatenate([weights, faded + rule.potentiation])
        rows = lax.dynamic_update_index_in_dim(rows, jnp.where(again, row, changed), who, 0)
        last_input = lax.dynamic_update_index_in_dim(last_input, at.now, who, 0)
        return event + 1, rows, last_input, delivered, *read(rows, last_input, event + 1)

    start = event, at.rows, at.last_input, jnp.zeros_like(post)
    event, rows, last_input, delivered, *_ = lax.while_loop(
        due, learn, (*start, *read(at.rows, at.last_input, event))
    )
    cells = at.cells.at[1, :n].add(delivered)
    return at._replace(cells=cells, rows=rows, last_input=last_input), event


def _output_spikes(
    network: Network, state: NetworkState, at: Packed, rates: LearningRates
) -> Packed:
    """All spikes of a step: traces, potentiation, sending, resets."""
    n, dt, rule = network.neurons, network.dt, network.rule
    *cells, post = at.cells
    cells = LIFState(*cells)
    spiked = neurons.spikes(cells, _threshold(network, state, cells))

    pre = at.rows[:, n] * stdp.trace_decay(
        at.now - at.last_input, dt, rule.presynaptic_time, at.rows
    )

    def learn(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        rows, left = carry
        who = jnp.argmax(left)
        column = lax.dynamic_slice_in_dim(rows, who, 1, axis=1)
        own = LearningRates(*(lax.dynamic_slice_in_dim(rate, who, 1) for rate in rates))
        column = stdp.at_output_spike(rule, column, pre, own, jnp.ones(1, bool))
        return lax.dynamic_update_slice_in_dim(rows, column, who, axis=1), left.at[who].set(False)

    rows, _ = lax.while_loop(lambda carry: carry[1].any(), learn, (at.rows, spiked[:n]))
    on_the_way = state._replace(arrivals=at.arrivals, last_spike=at.last_spike)
    post = post + jnp.concatenate([jnp.where(spiked[:n], rule.depression, 0), jnp.zeros(n)]).astype(
        post.dtype
    )
    return at._replace(
        pending=jnp.bool_(False),
        cells=jnp.stack([*neurons.reset(network.population, cells, spiked, dt), post]),
        rows=rows,
        arrivals=send(network, on_the_way, at.now, spiked),
        last_spike=at.now,
        counts=at.counts + spiked,
    )
