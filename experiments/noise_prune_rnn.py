"""Noise-prune on trained recurrent networks: an Elman net and a GRU that read MNIST row by row.

Each network (64 units, 28 steps of 28 pixels) is trained on all 60 000 images, then its recurrent
kernels are pruned to a density in six ways and tested, as they are and after 100 more steps with
the mask held. Nothing is chosen on the test images. The rule is the linear theory's; no published
figures exist for this task.

    python experiments/noise_prune_rnn.py --preset smoke    # one seed, few images, half a minute
    python experiments/noise_prune_rnn.py  # 5 seeds, estimated 7 minutes of one core

Finished seeds are kept in the output folder and not run again.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import pathlib
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import noise_prune_report
import numpy as np
import optax
from flax import linen as nn
from jax import Array

from synscale_jax.data import Split, load_images
from synscale_jax.pruning import keep_pruned, noise_prune
from synscale_jax.training.command_line import check_numbers, check_seeds, run_experiment
from synscale_jax.training.provenance import provenance, write_json
from synscale_jax.training.runs import run_folder

METHODS: dict[str, dict[str, Any]] = {
    "noise, largest": {"rule": "noise", "selection": "largest"},
    "noise, sampled": {"rule": "noise", "selection": "sampled"},
    "noise, rescaled": {"rule": "noise", "selection": "sampled", "max_gain": math.inf},
    "noise, rescaled up to 2": {"rule": "noise", "selection": "sampled", "max_gain": 2.0},
    "magnitude": {"rule": "weight", "selection": "largest"},
    "random": {"rule": "uniform", "selection": "sampled"},
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Train recurrent classifiers, prune them in several ways, test and fine-tune."""

    preset: Literal["smoke", "laptop", "paper"] = "laptop"
    """Defaults of all the rest; paper is laptop with 10 seeds."""
    cells: tuple[Literal["elman", "gru"], ...] = ("elman", "gru")
    """Which networks."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Of initial weights, batches and draws."""
    densities: tuple[float, ...] = (0.5, 0.3, 0.2, 0.1, 0.05)
    """Fractions of each recurrent kernel to keep."""
    hidden: int = 64
    """Units."""
    epochs: int = 3
    """Of training before pruning."""
    fine_tuning_steps: int = 100
    """Steps after pruning."""
    batch: int = 128
    """Images a step."""
    learning_rate: float = 1e-3
    """Adam's, in training and in fine-tuning."""
    train_images: int | None = None
    """None for all."""
    test_images: int | None = None
    """None for all."""
    restart: bool = False
    """Move an earlier run aside and begin anew."""
    output: pathlib.Path = pathlib.Path("runs/noise_prune")
    """Where results go."""

    def __post_init__(self) -> None:
        check_seeds(self.seeds)
        check_numbers(
            self, hidden=1, epochs=0, fine_tuning_steps=0, batch=1, learning_rate=0,
            train_images=self.batch, test_images=1,
        )  # fmt: skip
        if not self.densities or not all(0 < density <= 1 for density in self.densities):
            raise ValueError(f"densities={self.densities}: use one or more, in (0, 1].")


PRESETS = {
    "smoke": Config(
        preset="smoke", seeds=(0,), densities=(0.2,), hidden=32, epochs=1, fine_tuning_steps=20,
        train_images=6400, test_images=1000,
    ),
    "laptop": Config(),
    "paper": Config(preset="paper", seeds=tuple(range(10))),
}  # fmt: skip


class RowClassifier(nn.Module):
    """Reads an image row by row and classifies by the last state.

    Attributes:
      cell: ``"elman"`` or ``"gru"``.
      hidden: units.
    """

    cell: str
    hidden: int

    @nn.compact
    def __call__(self, images: Array) -> Array:
        """Logits (batch, 10) of images (batch, rows, columns)."""
        kind = nn.SimpleCell if self.cell == "elman" else nn.GRUCell
        states: Any = nn.RNN(kind(self.hidden, name="cell"), name="recurrent")(images)
        return nn.Dense(10, name="head")(states[:, -1])


Train = Callable[[Any, Any, Array, int], Any]


def trainer(model: RowClassifier, config: Config, split: Split) -> Train:
    """A function that trains parameters under a mask for so many steps."""
    images, labels = jnp.asarray(split.images[..., 0]), jnp.asarray(split.labels)

    @partial(jax.jit, static_argnums=3)
    def compiled(
        params: Any, mask: Any, key: Array, steps: int, images: Array, labels: Array
    ) -> Any:
        optimizer = optax.chain(
            optax.clip_by_global_norm(1.0), optax.adam(config.learning_rate), keep_pruned(mask)
        )

        def step(carry: tuple[Any, Any], index: Array) -> tuple[tuple[Any, Any], None]:
            params, state = carry
            chosen = jax.random.randint(
                jax.random.fold_in(key, index), (config.batch,), 0, len(labels)
            )

            def loss(params: Any) -> Array:
                logits: Any = model.apply({"params": params}, images[chosen] / 255.0)
                return optax.softmax_cross_entropy_with_integer_labels(
                    logits, labels[chosen]
                ).mean()

            updates, state = optimizer.update(jax.grad(loss)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(steps))[0][0]

    return lambda *arguments: compiled(*arguments, images, labels)


def tester(model: RowClassifier, split: Split) -> Callable[[Any], float]:
    """A function that gives the error in percent."""
    images, labels = jnp.asarray(split.images[..., 0]), jnp.asarray(split.labels)

    @jax.jit
    def wrong(params: Any, images: Array, labels: Array) -> Array:
        logits: Any = model.apply({"params": params}, images / 255.0)
        return (logits.argmax(-1) != labels).sum()

    return lambda params: 100 * int(wrong(params, images, labels)) / len(labels)


def study(config: Config, cell: str, seed: int, train: Train, test: Callable) -> dict[str, Any]:
    """Train one network, prune it in all ways, fine-tune each."""
    model = RowClassifier(cell, config.hidden)
    keys = jax.random.split(jax.random.key(seed), 4)
    params = model.init(keys[0], jnp.zeros((1, 28, 28)))["params"]
    everything = jax.tree.map(lambda _: jnp.array(True), params)
    steps = config.epochs * ((config.train_images or 60_000) // config.batch)
    params = train(params, everything, keys[1], steps)
    tuned = train(params, everything, keys[2], config.fine_tuning_steps)
    rows = []
    for density in config.densities:
        for method, options in METHODS.items():
            pruned = noise_prune(params, density, key=keys[3], **options)
            mask = jax.tree.map(lambda keep, p: keep & jnp.ones(p.shape, bool), pruned.mask, params)
            again = train(pruned.params, mask, keys[2], config.fine_tuning_steps)
            rows.append({
                "density": density,
                "method": method,
                "kept": float(np.mean([float(r.density) for r in pruned.reports.values()])),
                "shift": {name: float(r.shift) for name, r in pruned.reports.items()},
                "largest gain": max(float(r.largest_gain) for r in pruned.reports.values()),
                "error": test(pruned.params),
                "fine-tuned error": test(again),
            })  # fmt: skip
    return {"error": test(params), "fine-tuned error": test(tuned), "rows": rows}


def main(config: Config) -> None:
    """Run what is missing, then write the table and the figure."""
    data = load_images("mnist")
    train_split = Split(*(part[: config.train_images] for part in data.train))
    test_split = Split(*(part[: config.test_images] for part in data.test))
    identity = dataclasses.asdict(config)
    for name in ("output", "restart", "cells", "seeds", "preset"):
        identity.pop(name)
    folder = config.output / "rnn"
    with run_folder(folder, identity, restart=config.restart):
        tools = {}
        for cell in config.cells:
            model = RowClassifier(cell, config.hidden)
            tools[cell] = trainer(model, config, train_split), tester(model, test_split)
        for seed, cell in itertools.product(config.seeds, config.cells):
            path = folder / cell / f"seed{seed}.json"
            if path.exists():
                continue
            begin, origin = time.perf_counter(), provenance()
            result = study(config, cell, seed, *tools[cell])
            wall = time.perf_counter() - begin
            about = {"cell": cell, "seed": seed, "config": identity, **origin}
            about |= {"data": data.data_hash, "seconds": wall}
            write_json(path, {**result, **about})
            print(f"{cell}, seed {seed}: {wall:.0f} s, error {result['error']:.2f} %", flush=True)
        print(noise_prune_report.write(config.output))


if __name__ == "__main__":
    run_experiment(main, Config, PRESETS)
