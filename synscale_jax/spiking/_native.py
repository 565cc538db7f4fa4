"""The event-driven path in C++, where a compiler is at hand: compiled once, called through XLA."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.resources
import os
import pathlib

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from jax import Array

from synscale_jax.kernels import _native as shims
from synscale_jax.spiking import neurons
from synscale_jax.spiking.encoding import InputSpikes
from synscale_jax.spiking.network import Network, NetworkState
from synscale_jax.spiking.stdp import LearningRates

_TARGETS = {"float32": "synscale_spiking_f32", "float64": "synscale_spiking_f64"}


@functools.cache
def why_not() -> str | None:
    """Why there is no native path, in one sentence, or None where there is."""
    if os.environ.get("SYNSCALE_SPIKING") == "jax":
        return "switched off by SYNSCALE_SPIKING=jax"
    if jax.default_backend() != "cpu":
        return f"it runs on CPUs, this is {jax.default_backend()}"
    try:
        library = _load()
    except shims.UnavailableError as error:
        return str(error)
    for target in _TARGETS.values():
        handler = jax.ffi.pycapsule(getattr(library, target))
        jax.ffi.register_ffi_target(target, handler, platform="cpu")
    return None


def _load() -> ctypes.CDLL:
    """The compiled engine, from the user's cache where this machine has built it before."""
    source = importlib.resources.files("synscale_jax.spiking").joinpath("engine.cc").read_text()
    # No contraction to fused multiply-adds: float64 then rounds as the plain step does.
    command = [*shims._compiler(), "-std=c++17", "-O3", "-march=native", "-ffp-contract=off"]
    command += ["-fno-math-errno", "-shared", "-fPIC", "-w", f"-I{jax.ffi.include_dir()}"]
    parts = [source, jaxlib.__version__, shims._version(command[0]), _processor(), *command]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    path = shims._cache() / f"spiking-{key[:32]}.so"
    if not shims._intact(path):
        shims._build(source, command, [], path)
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise shims.UnavailableError(f"{path} does not load: {error}") from None


def _processor() -> str:
    """What -march=native depends on; homes are shared between machines."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def advance(
    network: Network,
    state: NetworkState,
    packed: tuple[Array, ...],
    spikes: InputSpikes,
    begin: Array,
    end: Array,
    rates: LearningRates,
    decay: bool,
) -> tuple[Array, ...]:
    """As :func:`_engine.advance`; fields of ``Packed`` in its order."""
    now, pending, cells, rows, last_input, arrivals, last_spike, counts = packed
    dtype = rows.dtype
    time = jnp.stack([now, pending.astype(jnp.int32), last_spike])
    mutable = (cells, rows, arrivals, last_input, counts, time)
    fixed = (
        spikes.step,
        spikes.input,
        jnp.stack([jnp.asarray(x, jnp.int32) for x in (spikes.count, begin, end)]),
        jnp.asarray(_parameters(network), dtype),
        state.threshold,
        *rates,
        jnp.asarray(_constants(network, decay), dtype),
        state.partner_delay,
        state.inhibition_delay,
    )
    call = jax.ffi.ffi_call(
        _TARGETS[dtype.name],
        tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in mutable),
        input_output_aliases={len(fixed) + i: i for i in range(len(mutable))},
    )
    cells, rows, arrivals, last_input, counts, time = call(*fixed, *mutable)
    return time[0], time[1] != 0, cells, rows, last_input, arrivals, time[2], counts


def _parameters(network: Network) -> np.ndarray:
    """Of every neuron, in the order of engine.cc, shape=(11, 2 n)."""
    cell, dt = network.population, network.dt
    rows = (
        np.divide(dt, cell.membrane_time),
        cell.rest,
        cell.excitatory_reversal,
        cell.inhibitory_reversal,
        1 - np.divide(dt, cell.excitatory_time),
        1 - np.divide(dt, cell.inhibitory_time),
        np.divide(dt, cell.threshold_time),
        cell.threshold,
        cell.reset,
        cell.threshold_jump,
        neurons.steps_in(cell.refractory, dt),
    )
    return np.stack([np.broadcast_to(np.asarray(row, float), 2 * network.neurons) for row in rows])


def _constants(network: Network, decay: bool) -> np.ndarray:
    """Of the network, in the order of engine.cc."""
    rule, dt = network.rule, network.dt
    return np.array(
        [
            np.exp(-dt / rule.postsynaptic_time),
            -dt / rule.presynaptic_time,
            rule.potentiation,
            rule.depression,
            rule.g_max,
            dt / network.silence_time if decay else 0,
            network.partner_weight,
            network.inhibition / network.neurons,
            network.threshold == "continuous",
        ]
    )
