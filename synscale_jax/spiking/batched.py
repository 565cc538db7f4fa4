"""Evaluation with a batch axis: images side by side, each by a network of its own at rest."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from synscale_jax.spiking import encoding, neurons
from synscale_jax.spiking.network import Network, NetworkState, check_state
from synscale_jax.spiking.neurons import LIFState

TOGETHER = 64  # spikes of a batch that are sent at a time


class _Carry(NamedTuple):
    """What a step hands on, for b images and n excitatory neurons; T is the floating dtype."""

    cells: LIFState  # fields (b, 2 n), T
    arrivals: Array  # (longest delay + 1, b, 2 n), T
    arriving: Array  # (b, 2 n), T: what arrived in the last step
    event: Array  # (b,), int32: the next input spike
    counts: Array  # (b, 2 n), int32


def count_spikes_batched(
    network: Network, state: NetworkState, rates: ArrayLike, key: Array, *, batch: int = 500
) -> Array:
    """Count spikes of many images at once, with frozen weights and without adaptation.

    Every image begins at rest, with potentials at −60 mV and no conductance, where
    :func:`count_spikes` goes on from the image before: 150 ms of rest are 1.5 membrane time
    constants, and totals agree to some percent. An image's spikes depend on the key and its
    position alone, not on the batch.

    Args:
      network: what it is.
      state: whose weights and delays are used.
      rates: (images, inputs), Hz.
      key: of the input spikes.
      batch: images at a time.

    Returns:
      Spikes while each image was shown, int32 (images, 2 n), excitatory neurons first.

    Raises:
      ValueError: for no images, or rates that are none.

    Examples:
      >>> import jax, numpy as np
      >>> from synscale_jax import spiking
      >>> network = spiking.Network(inputs=4, classes=2, neurons_per_class=1, active=50.0)
      >>> state = spiking.initial_state(network, jax.random.key(0), weights=np.full((4, 2), 0.05))
      >>> rates = np.array([[0.0] * 4, [900.0] * 4])
      >>> counts = spiking.count_spikes_batched(network, state, rates, jax.random.key(1))
      >>> counts.shape, counts[0].tolist(), bool(counts[1, :2].sum() > 0)
      ((2, 4), [0, 0, 0, 0], True)
    """
    check_state(network, state)
    rates = encoding.check_rates(np.asarray(rates), network.inputs, network.dt)
    intensity = -np.log1p(-np.asarray(rates, float) * (network.dt / 1000)).sum(1)
    expected = float(intensity.max()) * network.active_steps
    size = 256 * (1 + int(expected + 8 * expected**0.5) // 256)
    counts = []
    for first in range(0, len(rates), batch):
        part = rates[first : first + batch]
        where = jnp.arange(first, first + len(part))
        while True:
            counted, complete = _count(network, state, part, where, key, size=size)
            if complete:  # else an image had more spikes than were drawn, which were too few
                break
            size *= 2
        counts.append(counted)
    return jnp.concatenate(counts)


@functools.partial(jax.jit, static_argnames=("network", "size"))
def _count(
    network: Network, state: NetworkState, rates: Array, where: Array, key: Array, *, size: int
) -> tuple[Array, Array]:
    """Spikes of a batch, and whether ``size`` input spikes were enough for every image."""
    dtype, active, n = state.weights.dtype, network.active_steps, network.neurons
    steps, who, complete = _draw(network, rates.astype(dtype), where, key, size)
    nothing = jnp.zeros((1, n), dtype)  # the weights of an input spike that counts for nothing
    weights = jnp.concatenate([state.weights, nothing])
    population, length = network.population, len(state.arrivals)
    to_excitatory = (np.arange(2 * n) < n)[None]
    threshold = jnp.asarray(population.threshold, dtype)[None]

    def one(now: Array, at: _Carry) -> _Carry:
        # What arrived in the step before moves potentials from this one on. It was read then, and
        # its slot is cleared now: were both done in one step, XLA would copy all slots before.
        nothing = jnp.zeros_like(at.arriving)
        arrivals = lax.dynamic_update_index_in_dim(at.arrivals, nothing, (now - 1) % length, 0)
        cells = at.cells._replace(
            excitatory=at.cells.excitatory + jnp.where(to_excitatory, 0, at.arriving),
            inhibitory=at.cells.inhibitory + jnp.where(to_excitatory, at.arriving, 0),
        )
        cells = neurons.integrate(population, cells, network.dt)
        spiked = neurons.spikes(cells, threshold)
        event, delivered = _input_spikes(weights, steps, who, now, at.event)
        cells = cells._replace(excitatory=cells.excitatory.at[:, :n].add(delivered))
        arrivals = _send(network, state, arrivals, now, spiked)
        return _Carry(
            neurons.reset(population, cells, spiked, network.dt),
            arrivals,
            lax.dynamic_index_in_dim(arrivals, now % length, keepdims=False),
            event,
            at.counts + spiked,
        )

    shape = (len(rates), 2 * n)
    rest = float(np.asarray(network.excitatory.rest))
    start = _Carry(
        neurons.initial_state(population, shape, potential=rest, dtype=dtype),
        jnp.zeros((length, *shape), dtype),
        jnp.zeros(shape, dtype),
        jnp.zeros(len(rates), jnp.int32),
        jnp.zeros(shape, jnp.int32),
    )
    return lax.fori_loop(0, active, one, start).counts, complete


def _draw(
    network: Network, rates: Array, where: Array, key: Array, size: int
) -> tuple[Array, Array, Array]:
    """Input spikes of a batch, (b, size) each; the same input twice in a step counts once."""

    def draw(rates: Array, position: Array) -> tuple[Array, Array, Array]:
        cumulative = encoding.cumulative_intensity(rates, network.dt)
        begin = jnp.zeros([], rates.dtype)
        active = network.active_steps
        one = jax.random.fold_in(key, position)
        spikes, place = encoding.draw_spikes(one, cumulative, begin, active, size)
        step, who = lax.sort((spikes.step, spikes.input), num_keys=2)
        again = (step[1:] == step[:-1]) & (who[1:] == who[:-1])
        who = who.at[1:].set(jnp.where(again, network.inputs, who[1:]))
        return step, who, place >= active

    step, who, complete = jax.vmap(draw)(rates, where)
    return step, who, complete.all()


def _input_spikes(
    weights: Array, steps: Array, who: Array, now: Array, event: Array
) -> tuple[Array, Array]:
    """What all input spikes of this step deliver, (b, n), and each image's next one."""
    images = jnp.arange(len(steps))
    last = steps.shape[1] - 1

    def due(event: Array) -> Array:
        return (event <= last) & (steps[images, jnp.minimum(event, last)] == now)

    def deliver(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        event, delivered, is_due = carry
        heard = jnp.where(is_due, who[images, jnp.minimum(event, last)], len(weights) - 1)
        event = event + is_due
        return event, delivered + weights[heard], due(event)

    start = (event, jnp.zeros((len(steps), weights.shape[1]), weights.dtype), due(event))
    event, delivered, _ = lax.while_loop(lambda carry: carry[2].any(), deliver, start)
    return event, delivered


def _send(
    network: Network, state: NetworkState, arrivals: Array, now: Array, spiked: Array
) -> Array:
    """Put a step's spikes on their way, some at a time; most neurons are silent."""
    n, (length, images, width) = network.neurons, arrivals.shape
    own = jnp.arange(n)
    # One row a neuron: when and with what weight its spike reaches the n neurons on the other side.
    delay = jnp.concatenate(
        [jnp.broadcast_to(state.partner_delay[:, None], (n, n)), state.inhibition_delay]
    )
    itself = jnp.eye(n, dtype=arrivals.dtype)
    weight = jnp.concatenate(
        [network.partner_weight * itself, network.inhibition / n * (1 - itself)]
    )

    def send(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        arrivals, left = carry
        (spikes,) = jnp.nonzero(left.ravel(), size=TOGETHER, fill_value=images * width)
        image, cell = spikes // width, spikes % width
        target = jnp.where(cell < n, n, 0)[:, None] + own[None]
        slot = (now + delay[cell]) % length
        arrivals = arrivals.at[slot, image[:, None], target].add(weight[cell], mode="drop")
        return arrivals, left.at[image, cell].set(False, mode="drop")

    return lax.while_loop(lambda carry: carry[1].any(), send, (arrivals, spiked))[0]
