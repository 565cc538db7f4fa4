"""Presenting images to a network: learning, flushing, counting spikes."""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from synscale_jax.spiking import _engine, _native, encoding
from synscale_jax.spiking.encoding import InputSpikes
from synscale_jax.spiking.network import (
    Network,
    NetworkState,
    begin_presentation,
    check_state,
    learning_rates,
)
from synscale_jax.spiking.stdp import LearningRates

BLOCK = 2048  # input spikes drawn at a time; more blocks follow until the image is over


def engine() -> Literal["native", "jax"]:
    """Which path :func:`train`, :func:`count_spikes`, :func:`flush` and :func:`run` take.

    ``"native"``, a loop in C++, on CPUs with a C++ compiler, which is called once and takes some
    seconds; else, or with ``SYNSCALE_SPIKING=jax`` in the environment when first asked,
    ``"jax"``. Their arithmetic is the same; float32 may round otherwise.
    """
    return "jax" if _native.why_not() else "native"


def run(
    network: Network,
    state: NetworkState,
    spikes: InputSpikes,
    steps: int,
    rates: LearningRates,
    *,
    decay: bool = False,
    native: bool | None = None,
) -> tuple[NetworkState, Array]:
    """Run a network on given input spikes.

    Args:
      network: what it is.
      state: before.
      spikes: from :func:`encoding.spikes_from_raster`, counted from the state's step.
      steps: how many to take.
      rates: from :func:`learning_rates`.
      decay: whether weights lose by their input's silence.
      native: whether C++ does it; left out, where it can.

    Returns:
      The state after it, and spikes by neuron, int32 (2 n,), excitatory neurons first.
    """
    check_state(network, state)
    return _run(network, state, spikes, steps, rates, decay=decay, native=_choice(native))


def _choice(native: bool | None) -> bool:
    if native and (reason := _native.why_not()):
        raise ValueError(f"native=True cannot be had: {reason}; leave it out.")
    return _native.why_not() is None if native is None else native


@functools.partial(jax.jit, static_argnames=("network", "steps", "decay", "native"))
def _run(
    network: Network,
    state: NetworkState,
    spikes: InputSpikes,
    steps: int,
    rates: LearningRates,
    *,
    decay: bool,
    native: bool,
) -> tuple[NetworkState, Array]:
    # One more than there may be spikes: the padding ends the run, not the last spike.
    step = jnp.append(spikes.step, steps).at[spikes.count].set(steps)
    spikes = InputSpikes(step, jnp.append(spikes.input, 0), spikes.count + 1)
    end = state.step + steps
    packed = _engine.advance(
        network, state, _engine.pack(state), spikes, state.step, end, rates, decay, native
    )
    return _engine.unpack(packed, state), packed.counts


def train(
    network: Network,
    state: NetworkState,
    rates: ArrayLike,
    slots: ArrayLike,
    key: Array,
    *,
    native: bool | None = None,
) -> tuple[NetworkState, Array]:
    """Show images one after the other and learn from each.

    The network carries everything over from image to image. The spikes of an image depend on the
    key and the state's step alone: training in several calls is the same as in one.

    Args:
      network: what it is; ``"continuous"`` decay acts here, ``"one_shot"`` in :func:`flush`.
      state: before.
      rates: (images, inputs) in Hz, from :func:`encoding.pixel_rates`.
      slots: int (images,), each image's class as a position 0 .. classes − 1.
      key: of the input spikes.
      native: whether C++ does it; left out, where it can.

    Returns:
      The state after it, and spikes while each image was shown, int32 (images, 2 n), excitatory
      neurons first.

    Raises:
      ValueError: for no images, rates that are none, slots that are no class, or more time than an
        int32 counts.
    """
    rates, slots = _checked(network, state, rates, slots)
    decay = network.decay == "continuous"
    return _present(network, state, rates, slots, key, decay=decay, native=_choice(native))


def count_spikes(
    network: Network,
    state: NetworkState,
    rates: ArrayLike,
    key: Array,
    *,
    native: bool | None = None,
) -> tuple[NetworkState, Array]:
    """Show images one after the other with frozen weights and without adaptation.

    As the original tests: nothing is reset between images. :func:`count_spikes_batched` is faster.

    Args:
      network: what it is.
      state: before.
      rates: (images, inputs) in Hz.
      key: of the input spikes.
      native: whether C++ does it; left out, where it can.

    Returns:
      The state after it, and spikes while each image was shown, int32 (images, 2 n).

    Raises:
      ValueError: as :func:`train`.
    """
    nobody = np.full(len(np.asarray(rates)), -1, np.int32)
    rates, _ = _checked(network, state, rates, nobody)
    fixed = dataclasses.replace(network, threshold="fixed")
    return _present(fixed, state, rates, nobody, key, decay=False, native=_choice(native))


def flush(
    network: Network, state: NetworkState, key: Array, *, rate: float = 63.0, duration: float = 50.0
) -> NetworkState:
    """Let all inputs fire for a moment, so that unused weights lose what their silence costs.

    The decay is worked out when an input spikes; an input that never does would keep its weights.
    After this they follow :func:`silence_factor`, but for the few inputs (4 % by default) that
    happen not to spike here.

    Args:
      network: what it is; without decay nothing happens.
      state: after training.
      key: of the input spikes.
      rate: of every input, Hz.
      duration: of the flush, ms.

    Returns:
      The state after it.
    """
    if network.decay == "none":
        return state
    brief = dataclasses.replace(network, threshold="fixed", active=duration, rest=0.0)
    rates = np.full((1, network.inputs), rate, np.float32)
    nobody = np.full(1, -1, np.int32)
    rates, slots = _checked(brief, state, rates, nobody)
    return _present(brief, state, rates, slots, key, decay=True, native=_choice(None))[0]


def _checked(
    network: Network, state: NetworkState, rates: ArrayLike, slots: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    check_state(network, state)
    rates = encoding.check_rates(np.asarray(rates), network.inputs, network.dt)
    slots = np.asarray(slots)
    if slots.shape != (len(rates),):
        raise ValueError(f"{len(rates)} images need as many slots, got shape {slots.shape}.")
    if not (slots.min() >= -1 and slots.max() < network.classes):
        raise ValueError(
            f"slots reach from {slots.min()} to {slots.max()}: give positions 0 to "
            f"{network.classes - 1} among the network's classes."
        )
    if int(state.step) + len(rates) * network.steps >= 2**31:
        raise ValueError(
            f"step {int(state.step)} and {len(rates)} images exceed what an int32 counts: begin "
            "from a state of step 0 with these weights."
        )
    return rates, slots.astype(np.int32)


@functools.partial(jax.jit, static_argnames=("network", "decay", "native"))
def _present(
    network: Network,
    state: NetworkState,
    rates: ArrayLike,
    slots: ArrayLike,
    key: Array,
    *,
    decay: bool,
    native: bool,
) -> tuple[NetworkState, Array]:
    def one(state: NetworkState, image: tuple[Array, Array]) -> tuple[NetworkState, Array]:
        rates, slot = image
        dtype = state.weights.dtype
        return _show(
            network,
            begin_presentation(network, state),
            encoding.cumulative_intensity(rates.astype(dtype), network.dt),
            learning_rates(network, slot, dtype),
            jax.random.fold_in(key, state.step),
            decay,
            native,
        )

    return lax.scan(one, state, (jnp.asarray(rates), jnp.asarray(slots)))


def _show(
    network: Network,
    state: NetworkState,
    cumulative: Array,
    rates: LearningRates,
    key: Array,
    decay: bool,
    native: bool,
) -> tuple[NetworkState, Array]:
    """One image and the rest after it; spikes are counted while it is shown."""
    begin, active = state.step, network.active_steps

    def more(carry: tuple[_engine.Packed, Array, Array]) -> Array:
        return carry[1] < active

    def block(
        carry: tuple[_engine.Packed, Array, Array],
    ) -> tuple[_engine.Packed, Array, Array]:
        packed, place, number = carry
        spikes, place = encoding.draw_spikes(
            jax.random.fold_in(key, number), cumulative, place, active, BLOCK
        )
        complete = place >= active  # then the padding behind the last spike ends the run
        spikes = spikes._replace(count=spikes.count + complete)
        packed = _engine.advance(
            network, state, packed, spikes, begin, begin + active, rates, decay, native
        )
        return packed, place, number + 1

    start = (_engine.pack(state), jnp.zeros([], cumulative.dtype), jnp.int32(0))
    packed = lax.while_loop(more, block, start)[0]
    counts = packed.counts
    step, who, count = jnp.full(1, network.steps, jnp.int32), jnp.zeros(1, jnp.int32), jnp.int32(1)
    silence = InputSpikes(step, who, count)
    packed = _engine.advance(
        network, state, packed, silence, begin, begin + network.steps, rates, decay, native
    )
    return _engine.unpack(packed, state), counts
