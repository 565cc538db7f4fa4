"""Use it or lose it on an ordinary network, beside weight decay and SynScaW: an MLP on MNIST.

The decay of silent inputs comes from a spiking network; as an optax transform it is ours, and no
published figure stands beside it. 784-1024-10 with the schedule of the package's MLPs, 5 epochs of
20 000 training images, 3 seeds.

    python experiments/use_it_or_lose_it.py --preset smoke   # seconds
    python experiments/use_it_or_lose_it.py                  # some minutes on one core

Expect what results/use_it_or_lose_it/README.md says: 3.7 % error with either time constant, 3.75 %
without. Give the same command again to go on after an interruption.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Literal

import optax

from synscale_jax.report import tables
from synscale_jax.report.collect import collect
from synscale_jax.scaling import use_it_or_lose_it
from synscale_jax.training import methods
from synscale_jax.training.cells import cells_named
from synscale_jax.training.command_line import check_seeds, run_experiment
from synscale_jax.training.config import TrainConfig
from synscale_jax.training.methods import Method
from synscale_jax.training.provenance import write_text
from synscale_jax.training.runs import RunError
from synscale_jax.training.sweep import run_cells

CELL = "mnist-port_mlp"
SETTINGS = {
    "smoke": TrainConfig(epochs=1, train_examples=1000, test_examples=300, chunk_steps=5),
    "laptop": TrainConfig(epochs=5, train_examples=20_000),
}


def silent_decay(time_constant: float) -> Method:
    """Use it or lose it after every optimizer step."""
    return Method(
        f"use_it_or_lose_it-{time_constant:g}",
        f"use it or lose it, {time_constant:g} steps",
        {"time_constant": time_constant},
        after_optimizer=lambda layers, _: use_it_or_lose_it(time_constant, layers=layers),
    )


def weight_decay(rate: float = 1e-4) -> Method:
    """All parameters shrink by this share in every step."""
    return Method(
        "weight_decay",
        f"weight decay, {rate:g} a step",
        {"rate": rate},
        after_optimizer=lambda layers, _: optax.add_decayed_weights(-rate),
    )


METHODS: Mapping[str, Callable[[], Method]] = {
    "baseline": methods.baseline,
    "weight_decay": weight_decay,
    "synscaw": methods.synscaw,
    "use_it_or_lose_it-10": lambda: silent_decay(10.0),
    "use_it_or_lose_it-100": lambda: silent_decay(100.0),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Train the same MLP with each of the decays."""

    preset: Literal["smoke", "laptop"] = "laptop"
    """smoke: an epoch of 1000 images; laptop: 5 epochs of 20 000."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Every method is trained with each of these seeds."""
    output: pathlib.Path = pathlib.Path("runs/use_it_or_lose_it")
    """Folder of runs and table."""
    restart: bool = False
    """Begin anew; earlier runs are kept aside."""

    def __post_init__(self) -> None:
        check_seeds(self.seeds)


def main(config: Config) -> None:
    """Train what is missing, then write and print the table."""
    folder, chosen = config.output / config.preset, [make() for make in METHODS.values()]
    run_cells(
        folder, cells_named([CELL]), chosen, config.seeds,
        lambda cell: SETTINGS[config.preset], restart=config.restart,
    )  # fmt: skip
    found = collect(folder, [CELL], list(METHODS))[CELL]
    results = {name: runs for name, runs in found.items() if runs}
    if not results:
        raise RunError(f"there is no result below {folder} yet: give the same command again.")
    labels = {method.name: method.label for method in chosen}
    rows = tables.columns(tables.method_rows(results, labels, {}), "test")
    for name in ("minutes a run", "test error %, best_on_test"):
        rows.pop(name, None)
    first = next(iter(results.values()))[0]
    text = "# Use it or lose it on an MLP\n\n" + tables.markdown(rows) + "\n" + tables.origin(first)
    write_text(folder / "README.md", text + "\n")
    print(text)


if __name__ == "__main__":
    run_experiment(main, Config, {"smoke": Config(preset="smoke"), "laptop": Config()})
