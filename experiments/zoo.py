"""Train the zoo's networks and export those that reach what the original prints.

    python experiments/zoo.py --preset smoke                     # one FCN, under a minute
    python experiments/zoo.py                                    # all of MNIST
    python experiments/zoo.py --data cifar10
    python experiments/zoo.py --export synscale_jax/zoo/checkpoints

The light models are trained for five epochs where the original took one, the competing units as in
``experiments/bioplausible.py``: give its ``--output`` as ``--runs`` and their runs are not made
again. A network goes into the zoo if the mean accuracy of its seeds is at least the printed one;
the weights are those of the median seed. Give the command again to go on after an interruption.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any, Literal

import numpy as np

from synscale_jax.report.statistics import spread
from synscale_jax.training.command_line import check_numbers, check_seeds, run_experiment
from synscale_jax.training.plasticity_jobs import (
    Study,
    responses,
    root_mean_square,
    run_study,
    units_folder,
)
from synscale_jax.training.plasticity_learner import Learner
from synscale_jax.training.plasticity_rows import Row
from synscale_jax.training.plasticity_runs import load_arrays, load_variables
from synscale_jax.training.plasticity_studies import GROUPS
from synscale_jax.training.runs import RunError
from synscale_jax.zoo.pretrained import ENTRIES, export

from bioplausible_report import read_runs  # isort: skip


@dataclasses.dataclass(frozen=True)
class Config:
    """Train and export the zoo's networks."""

    preset: Literal["smoke", "laptop", "paper"] = "laptop"
    """smoke: the FCN, one seed and epoch; laptop and paper: all, three seeds."""
    data: Literal["mnist", "cifar10"] = "mnist"
    """Image set."""
    names: tuple[str, ...] = ()
    """Which networks; if left out all of the image set, under smoke its FCN."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Every network is trained with each."""
    epochs: int = 5
    """Of the light models."""
    runs: pathlib.Path | None = None
    """Runs of experiments/bioplausible.py, for competing units; by default where it puts them."""
    output: pathlib.Path | None = None
    """Folder of the light models' runs; by default runs/zoo-<preset>/<data>."""
    export: pathlib.Path | None = None
    """Where weights and cards go; by default <output>/checkpoints."""
    restart: bool = False
    """Begin anew, the comparison's competing units too; earlier runs are kept aside."""

    def __post_init__(self) -> None:
        if unknown := [name for name in self.names if name not in self.all_names()]:
            raise ValueError(
                f"there is no network {unknown[0]!r}: use some of {', '.join(self.all_names())}."
            )
        check_seeds(self.seeds)
        check_numbers(self, epochs=1)

    def chosen(self) -> tuple[str, ...]:
        """The networks that are trained."""
        smoke = (f"{self.data}_fcn",) if self.preset == "smoke" else ()
        return self.names or smoke or tuple(self.all_names())

    def all_names(self) -> list[str]:
        """The zoo's networks of this image set."""
        return [name for name, entry in ENTRIES.items() if entry.data == self.data]


PRESETS = {
    "smoke": Config(preset="smoke", seeds=(0,), epochs=1),
    "laptop": Config(),
    "paper": Config(preset="paper"),
}


def row_of(name: str) -> Row:
    """The row of the comparison that trains a network."""
    rows = {row.name: row for group in ("light", "units") for row in GROUPS[group]()}
    return rows[ENTRIES[name].row]


def main(config: Config) -> None:
    """Train what is missing, then export what is good enough."""
    folder = config.output or pathlib.Path("runs") / f"zoo-{config.preset}" / config.data
    runs = config.runs or pathlib.Path("runs") / f"bioplausible-{config.preset}" / config.data
    for name in config.chosen():
        row = row_of(name)
        study = Study(
            runs if row.units else folder, config.data, config.seeds, restart=config.restart
        )
        busy = run_study(
            study, [row], None if row.units else lambda one: longer(one, config.epochs)
        )
        if busy:
            raise RunError(f"another process trains {name}: give the command again when it ends.")
        print(put_in(name, study, row, config.export or folder / "checkpoints"))


def longer(learner: Learner, epochs: int) -> Learner:
    """The same learner for more epochs, its rate falling to zero."""
    config = dataclasses.replace(learner.config, epochs=epochs, optimizer="adam_cosine")
    return dataclasses.replace(learner, config=config)


def put_in(name: str, study: Study, row: Row, folder: pathlib.Path) -> str:
    """Export the median seed of a network, if its mean is at least the printed accuracy."""
    results = [run for run in read_runs(study.folder / row.name) if run["seed"] in study.seeds]
    accuracies = [100 * run["final"]["test_accuracy"] for run in results]
    mean, printed = float(np.mean(accuracies)), ENTRIES[name].printed
    if printed is not None and mean < printed:
        return f"{name}: {mean:.2f} % is less than the printed {printed:.2f} %, not exported."
    chosen = results[int(np.argsort(accuracies)[(len(accuracies) - 1) // 2])]
    params: dict[str, Any] = load_variables(study.folder / row.name / f"seed{chosen['seed']}")[
        "params"
    ]
    if row.units is not None:
        weights = load_arrays(units_folder(study, chosen["seed"]) / "weights.npz")["weights"]
        inputs = responses(weights, study.images.train.images, row.source, row.power)
        factor = chosen["config"]["slope"] / root_mean_square(inputs)
        head = {"kernel": factor * params["head"]["kernel"]}  # of bare responses, β included
        params = {"units": {"kernel": weights}, "head": head}
    path = export(
        name,
        params,
        {
            "data": study.data,
            "data_hash": chosen["data"]["hash"],
            "test_accuracy": round(chosen["final"]["test_accuracy"], 4),
            "test_accuracy_of_the_seeds": f"{spread(accuracies)} %, {len(accuracies)} seeds",
            "printed_by_the_original": "" if printed is None else f"{printed:.2f} %",
            "seed": chosen["seed"],
            "epochs": chosen["config"]["epochs"],
            "parameters": sum(leaf.size for part in params.values() for leaf in part.values()),
            "command": f"python experiments/zoo.py --data {study.data} --names {name}",
            "commit": chosen["commit"],
        },
        folder,
    )
    return f"{name}: {mean:.2f} % of {len(accuracies)} seeds, written to {path}."


if __name__ == "__main__":
    run_experiment(main, Config, PRESETS)
