"""The unsupervised phase of competing hidden units: compiled epochs, resumable."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from synscale_jax.plasticity import StepCount, krotov_hopfield
from synscale_jax.training.plasticity_runs import SAVE_EVERY, load_arrays, save_arrays
from synscale_jax.training.provenance import provenance, write_json
from synscale_jax.training.runs import Interrupted, Signals, run_folder


@dataclasses.dataclass(frozen=True)
class UnitsConfig:
    """Settings of the unsupervised phase; the defaults are the published code's.

    Raises:
      ValueError: at once, if a value is impossible.
    """

    units: int = 2000
    """Competing units."""
    epochs: int = 200
    """Passes over the images; the rate falls to zero over them, once an epoch."""
    batch: int = 3584
    """Images a step; what is left at the end of an epoch is dropped."""
    learning_rate: float = 0.02
    """The largest change of a weight in a step of the first epoch."""
    lebesgue_norm: float = 2.0
    """p."""
    rank: int = 2
    """k."""
    anti_hebbian: float = 0.4
    """Δ."""

    def __post_init__(self) -> None:
        for name in ("units", "epochs", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is not possible: use 1 or more.")
        if self.rank > self.units:
            raise ValueError(
                f"rank={self.rank} is larger than units={self.units}: use at least {self.rank} "
                "units."
            )
        self.rule(1)

    def rule(self, steps_per_epoch: int) -> Any:
        """The rule with these settings, its rate falling once an epoch."""

        def rate(count: Any) -> Any:
            return self.learning_rate * (1 - (count // steps_per_epoch) / self.epochs)

        return krotov_hopfield(
            rate,
            lebesgue_norm=self.lebesgue_norm,
            rank=self.rank,
            anti_hebbian=self.anti_hebbian,
        )


def initial_units(key: Array, inputs: int, units: int) -> Array:
    """Weights U(0, 1), (inputs, units)."""
    return jax.random.uniform(key, (inputs, units))


@partial(jax.jit, static_argnums=(0,), donate_argnums=(1,))
def units_epoch(
    config: UnitsConfig, weights: Array, images: Array, key: Array, epoch: Array
) -> Array:
    """One pass over the images.

    Args:
      config: the settings.
      weights: (inputs, units), used up.
      images: (examples, ...), uint8, seen in [0, 1].
      key: of the order; each epoch has one of its own.
      epoch: which pass this is, from 0.

    Returns:
      The weights after it.
    """
    steps = len(images) // config.batch
    rule = config.rule(steps)
    order = jax.random.permutation(jax.random.fold_in(key, epoch), len(images))

    def step(index: Array, weights: Array) -> Array:
        chosen = jax.lax.dynamic_slice_in_dim(order, index * config.batch, config.batch)
        x = images[chosen].reshape(config.batch, -1).astype(jnp.float32) / 255
        return rule.update(weights, x, None, StepCount(epoch * steps + index))[0]

    return jax.lax.fori_loop(0, steps, step, weights)


def train_units(
    images: np.ndarray,
    config: UnitsConfig,
    data: Mapping[str, str],
    seed: int,
    folder: pathlib.Path,
    *,
    restart: bool = False,
    say: Callable[[str], None] = print,
) -> np.ndarray:
    """Train competing units in a folder, take up what was begun there, or read what is done.

    Args:
      images: (examples, ...), uint8.
      config: the settings.
      data: name and hash of the data, part of the run's identity.
      seed: of weights and order.
      folder: the run's own; gets ``weights.npz`` and ``result.json``.
      restart: begin anew and keep an earlier run aside.
      say: takes a line of progress.

    Returns:
      (inputs, units), float32.

    Raises:
      ValueError: if the batch is larger than the set.
      Busy: if another process is training it.
      Interrupted: after a signal, the weights saved.
    """
    if config.batch > len(images):
        raise ValueError(f"batch={config.batch}: there are {len(images)} images, use fewer.")
    identity = {"method": {"name": "units"}, "config": dataclasses.asdict(config), "data": data,
                "seed": seed}  # fmt: skip
    with run_folder(folder, json.loads(json.dumps(identity)), restart=restart) as folder:
        path, result = folder / "weights.npz", folder / "result.json"
        if result.exists():
            return load_arrays(path)["weights"]
        for_weights, for_order = jax.random.split(jax.random.key(seed))
        weights, done, seconds, origin = None, 0, 0.0, provenance()
        if path.exists():
            saved = load_arrays(path)
            weights, done, seconds = saved["weights"], int(saved["done"]), float(saved["seconds"])
        if weights is None:
            weights = initial_units(for_weights, int(np.prod(images.shape[1:])), config.units)
        weights, on_device, last = jnp.asarray(weights), jnp.asarray(images), time.perf_counter()
        with Signals() as signals:
            while done < config.epochs:
                begin = time.perf_counter()
                weights = units_epoch(config, weights, on_device, for_order, np.int32(done))
                weights.block_until_ready()
                seconds += time.perf_counter() - begin
                done += 1
                number = signals.received
                if (
                    number is not None
                    or done == config.epochs
                    or time.perf_counter() - last > SAVE_EVERY
                ):
                    save_arrays(path, {"weights": weights, "done": done, "seconds": seconds})
                    last = time.perf_counter()
                    say(f"units/{folder.name}: epoch {done} of {config.epochs}, {seconds:.0f} s")
                if number is not None and done < config.epochs:
                    raise Interrupted(128 + number)
        norms = np.sum(np.abs(np.asarray(weights)) ** config.lebesgue_norm, 0)
        write_json(
            result,
            {
                **identity,
                "status": "finished",
                "train_seconds": seconds,
                "seconds_per_epoch": seconds / config.epochs,
                "units_at_unit_norm": float(np.mean(np.abs(norms - 1) < 0.05)),
                **origin,
            },
        )
        if signals.received is not None:  # it came in the last epoch
            raise Interrupted(128 + signals.received)
        return np.asarray(weights)
