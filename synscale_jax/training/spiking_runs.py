"""Long trainings of the spiking network: in chunks, taken up again where they were cut off."""

from __future__ import annotations

import concurrent.futures
import hashlib
import io
import multiprocessing
import os
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from synscale_jax.spiking import LIFState, Network, NetworkState, initial_state, train
from synscale_jax.training.runs import Interrupted, RunError, Signals

CHUNK = 500  # images between two saves


def save_state(path: pathlib.Path, state: NetworkState, **extra: Any) -> None:
    """Write a state, and arrays beside it, under a temporary name first."""
    arrays = {f"neurons.{k}": v for k, v in state.neurons._asdict().items()}
    arrays |= {k: v for k, v in state._asdict().items() if k != "neurons"}
    arrays |= {f"extra.{name}": value for name, value in extra.items()}
    buffer = io.BytesIO()
    plain: dict[str, Any] = {name: np.asarray(value) for name, value in arrays.items()}
    np.savez(buffer, **plain)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".npz.partial")
    scratch.write_bytes(buffer.getvalue())
    os.replace(scratch, path)


def load_state(path: pathlib.Path) -> tuple[NetworkState, dict[str, np.ndarray]]:
    """Read what :func:`save_state` wrote.

    Raises:
      RunError: if the file is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            fields = {name: arrays[name] for name in arrays.files}
        cells = LIFState(*(jnp.asarray(fields[f"neurons.{name}"]) for name in LIFState._fields))
        rest = {
            name: jnp.asarray(fields[name]) for name in NetworkState._fields if name != "neurons"
        }
    except Exception as error:  # a damaged archive fails in a dozen ways
        raise RunError(
            f"{path} is damaged ({error}): delete it and give the command again."
        ) from None
    extra = {k.removeprefix("extra."): v for k, v in fields.items() if k.startswith("extra.")}
    return NetworkState(neurons=cells, **rest), extra


def train_in_chunks(
    network: Network,
    key: Array,
    rates: np.ndarray,
    slots: np.ndarray,
    path: pathlib.Path,
    *,
    chunk: int = CHUNK,
    say: Callable[[str], None] = print,
) -> tuple[NetworkState, float]:
    """Train a new network on images, saving after every chunk; go on where an earlier call ended.

    Args:
      network: what it is.
      key: of weights, delays and spikes.
      rates: (images, inputs), Hz.
      slots: (images,).
      path: the npz file that holds the state.
      chunk: images between two saves.
      say: takes a line of progress.

    Returns:
      The trained state, and the seconds all of its training took, compilation left out where a
      chunk of the same length had been compiled before.

    Raises:
      RunError: if the file is damaged or belongs to another training.
      Interrupted: after a signal, the state saved.
    """
    for_network, for_spikes = jax.random.split(key)
    what = repr((network, np.asarray(jax.random.key_data(key)).tolist())).encode()
    identity = hashlib.sha256(what + rates.tobytes() + slots.tobytes()).hexdigest()
    done, seconds = 0, 0.0
    state = initial_state(network, for_network)
    if path.exists():
        state, extra = load_state(path)
        if str(extra["identity"]) != identity:
            raise RunError(f"{path} belongs to another training: choose another --output.")
        done, seconds = int(extra["done"]), float(extra["seconds"])
    with Signals() as signals:
        while done < len(rates):
            stop = min(done + chunk, len(rates))
            begin = time.perf_counter()
            state, counts = train(network, state, rates[done:stop], slots[done:stop], for_spikes)
            spikes = int(np.asarray(counts)[:, : network.neurons].sum())
            seconds += time.perf_counter() - begin
            say(f"{path.stem}: {stop} of {len(rates)} images, {spikes / (stop - done):.1f} spikes "
                f"an image, {seconds:.0f} s")  # fmt: skip
            done = stop
            save_state(path, state, done=done, seconds=seconds, identity=identity)
            if signals.received is not None:
                raise Interrupted(128 + signals.received)
    return state, seconds


def in_processes(
    work: Callable[..., None], arguments: Sequence[tuple[Any, ...]], processes: int
) -> None:
    """Call a function once for each tuple of arguments, each process pinned to a core of its own.

    The event-driven path is one long chain of small kernels: a second thread of XLA doubles its
    time, and a second process does not. One call, or ``processes=1``, stays in this process.

    Args:
      work: a function of a module.
      arguments: of the calls.
      processes: how many at a time; no more than there are cores.

    Raises:
      RunError: if a call refuses.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    processes = min(processes, len(arguments), len(cores))
    if processes <= 1:
        _pin(cores[:1])
        for each in arguments:
            work(*each)
        return
    context = multiprocessing.get_context("spawn")
    free = context.Queue()
    for core in cores[:processes]:
        free.put(core)
    with concurrent.futures.ProcessPoolExecutor(
        processes, context, initializer=_take_core, initargs=(free,)
    ) as pool:
        for future in [pool.submit(work, *each) for each in arguments]:
            future.result()


def _take_core(free: Any) -> None:
    _pin([free.get()])


def _pin(cores: Sequence[int]) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
