"""What the two rules and the adaptive threshold are worth: accuracy over random digit triples.

Antonov, Batuev and Sukhov (ITNT 2024) report 74.9 ± 19.8 % without and 80.0 ± 13.0 % with an
adaptive threshold, over triples of digits, without decay. Their loop shows the same 100 images 50
times. Here: adaptive threshold or fixed; all-LTD for the other classes' neurons or STDP alone
(those frozen); the same 100 images or 5000 fresh ones.

    python experiments/spiking_rules.py --preset smoke   # a minute
    python experiments/spiking_rules.py                  # laptop: three triples
    python experiments/spiking_rules.py --preset paper   # ten triples

Eighty networks of 5000 presentations take about a quarter of an hour on one core with a C++
compiler. Expect what results/spiking/rules.md says. Give the same command again to go on after an
interruption.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import pathlib
import time
from typing import Any, Literal

import jax
import numpy as np

from synscale_jax.data import load_images
from synscale_jax.report import spiking as report
from synscale_jax.spiking import Network, engine, initial_state, protocol, train
from synscale_jax.training.command_line import run_experiment
from synscale_jax.training.provenance import provenance, write_json, write_text
from synscale_jax.training.runs import RunError, run_folder
from synscale_jax.training.spiking_runs import in_processes

THRESHOLDS = {"snapshot": "adaptive", "fixed": "fixed"}
OTHERS = {"all_ltd": "STDP + all-LTD", "frozen": "STDP alone"}
SHOWN = {"same": "same 100 images", "fresh": "fresh images"}
CONDITIONS = tuple(itertools.product(OTHERS, THRESHOLDS, SHOWN))
REPEATED = 100  # images that the original shows again and again


@dataclasses.dataclass(frozen=True)
class Config:
    """Train on random triples of digits under every rule, threshold and choice of images."""

    preset: Literal["smoke", "laptop", "paper"] = "laptop"
    """Defaults of all the rest: smoke (a minute), laptop (three triples), paper (ten)."""
    triples: int = 3
    """How many triples; the first so many of a fixed random list."""
    images: int = 5000
    """Presentations in training."""
    test_images: int = 1000
    """Test images of a triple."""
    checkpoints: tuple[int, ...] = (100, 500, 1000, 2000, 5000)
    """After how many presentations accuracy is taken; the last is the result."""
    dt: float = 0.1
    """Length of a step, ms."""
    processes: int = 2
    """Triples at a time, each on a core of its own."""
    output: pathlib.Path | None = None
    """Folder of runs, table and figure; by default runs/spiking_rules-<preset>."""
    restart: bool = False
    """Move earlier runs aside and begin anew."""

    def __post_init__(self) -> None:
        Network(dt=self.dt)
        if not 1 <= self.triples <= 120:
            raise ValueError(f"triples={self.triples}: there are 120, use 1 or more of them.")
        steps = (0, *self.checkpoints)
        if any(a >= b for a, b in itertools.pairwise(steps)) or steps[-1] != self.images:
            raise ValueError(
                f"checkpoints={self.checkpoints}: let them rise and end with images={self.images}."
            )
        if any(point % REPEATED for point in self.checkpoints) or self.test_images < 3:
            raise ValueError(f"use checkpoints that are multiples of {REPEATED} and 3 test images.")


PRESETS = {
    "smoke": Config(
        preset="smoke", triples=1, images=600, checkpoints=(100, 600), test_images=150, dt=0.5
    ),
    "laptop": Config(),
    "paper": Config(preset="paper", triples=10),
}


def triple_of(index: int) -> tuple[int, ...]:
    """The index-th of the fixed random list, in random order."""
    rng = np.random.default_rng(0)
    chosen = rng.permutation(np.array(list(itertools.combinations(range(10), 3))))[index]
    return tuple(rng.permutation(chosen).tolist())


def compare_rules(config: Config, folder: pathlib.Path, index: int) -> None:
    """All conditions on one triple; writes ``result.json``."""
    elsewhere = ("preset", "triples", "output", "restart", "processes")
    identity = {k: v for k, v in dataclasses.asdict(config).items() if k not in elsewhere}
    identity["triple"] = triple_of(index)
    with run_folder(folder / f"triple{index}", identity, restart=config.restart) as here:
        if (here / "result.json").exists():
            return
        start, origin, data = time.perf_counter(), provenance(), load_images("mnist")
        each = -(-config.images // 3)
        fresh = protocol.class_examples(*data.train, triple_of(index), each, index)
        tests = protocol.class_examples(
            *data.test, triple_of(index), -(-config.test_images // 3), index
        )
        shown = {
            "fresh": protocol.Examples(*(a[: config.images] for a in fresh)),
            "same": protocol.Examples(
                *(np.resize(a[:REPEATED], (config.images, *a.shape[1:])) for a in fresh)
            ),
        }
        tests = protocol.Examples(*(a[: config.test_images] for a in tests))
        curves = {}
        for others, threshold, images in CONDITIONS:
            network = Network(dt=config.dt, others=others, threshold=threshold)  # pyright: ignore[reportArgumentType]
            name = f"{others}, {threshold}, {images}"
            curves[name] = learning_curve(config, network, shown[images], tests, index)
            print(f"triple {triple_of(index)}, {name}: {curves[name][-1]:.1%}", flush=True)
        write_json(
            here / "result.json",
            {
                "triple": triple_of(index),
                "seed": index,
                "config": identity,
                "accuracy": curves,
                "data_hash": data.data_hash,
                "engine": engine(),
                "wall_seconds": time.perf_counter() - start,
                "provenance": origin,
            },
        )


def learning_curve(
    config: Config, network: Network, shown: Any, tests: Any, seed: int
) -> list[float]:
    """Accuracy at every checkpoint."""
    for_network, for_spikes, for_tests = jax.random.split(jax.random.key(seed), 3)
    state, done, curve = initial_state(network, for_network), 0, []
    for checkpoint in config.checkpoints:
        for first in range(done, checkpoint, REPEATED):  # one length, compiled once
            part = slice(first, first + REPEATED)
            state, _ = train(network, state, shown.rates[part], shown.slots[part], for_spikes)
        done = checkpoint
        _, report = protocol.show(network, state, {"tests": tests}, for_tests)
        curve.append(report["tests"]["accuracy"])
    return curve


def main(config: Config) -> None:
    """Train every triple, then write and print the table and the figure."""
    folder = config.output or pathlib.Path("runs") / f"spiking_rules-{config.preset}"
    jobs = [(config, folder, index) for index in range(config.triples)]
    in_processes(compare_rules, jobs, config.processes)
    files = [folder / f"triple{index}" / "result.json" for index in range(config.triples)]
    if missing := [str(file) for file in files if not file.exists()]:
        raise RunError(f"no result in {', '.join(missing)}: give the same command again.")
    results = [json.loads(file.read_text()) for file in files]
    text = report.rules_table(results, smoke=config.preset == "smoke")
    write_text(folder / "rules.md", text)
    report.rules_figure(results, folder / "rules.png")
    print(text)


if __name__ == "__main__":
    run_experiment(main, Config, PRESETS)
