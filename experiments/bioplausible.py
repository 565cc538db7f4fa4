"""Learning without backpropagation, compared: what the published figures were, and what holds.

Two course projects compare biologically plausible learners on MNIST and CIFAR-10. Each of their
networks is trained here as published (``legacy``), slips included, beside the accuracy they print,
and with the slips mended (``clean``) beside controls: random features and backprop.

    python experiments/bioplausible.py --preset smoke                 # a minute and a half
    python experiments/bioplausible.py                                # MNIST
    python experiments/bioplausible.py --data cifar10
    python experiments/bioplausible.py --groups sweep                 # percentile × depth, MNIST

Expect the bands of docs/plasticity.md. Start it twice to use two cores; give the same command again
to go on after an interruption; ``--draw`` only makes tables and figures of what is there.
"""

from __future__ import annotations

import dataclasses
import difflib
import pathlib
from typing import Literal

import bioplausible_report

from synscale_jax.training.command_line import check_seeds, run_experiment
from synscale_jax.training.plasticity_jobs import Study, run_study
from synscale_jax.training.plasticity_rows import Row
from synscale_jax.training.plasticity_studies import GROUPS
from synscale_jax.training.plasticity_units import UnitsConfig

# What two epochs of few images can show: one of each kind.
TRIED = ("fcn", "cnn2", "gupta3_2", "oja_single", "oja_clean", "mlp_alignment", "simple_cnn",
         "cnn_fa", "units_power_fa", "units_power_v2_long", "units_clean", "units_3fa",
         "random_standard")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config:
    """Train every learner of some studies."""

    preset: Literal["smoke", "laptop", "paper"] = "laptop"
    """smoke: a dozen learners at a tenth of their size; laptop: three seeds, 400 units on CIFAR-10;
    paper: five seeds, 2000 units on both."""
    data: Literal["mnist", "cifar10"] = "mnist"
    """Image set."""
    groups: tuple[str, ...] = ("light", "units", "feedback", "convolution", "local", "hebb")
    """Studies, in this order; "sweep" is another."""
    only: tuple[str, ...] = ()
    """Train these rows of them only."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Every learner is trained with each."""
    units: int | None = None
    """Competing units; by default 2000, and 400 on CIFAR-10 under laptop."""
    unit_epochs: int = 200
    """Epochs of their unsupervised phase."""
    output: pathlib.Path | None = None
    """Folder of runs, tables and figures; by default runs/bioplausible-<preset>/<data>."""
    draw: bool = False
    """Only draw what is there."""
    restart: bool = False
    """Begin anew; earlier runs are kept aside."""

    def __post_init__(self) -> None:
        if unknown := [name for name in self.groups if name not in GROUPS]:
            raise ValueError(f"there is no study {unknown[0]!r}: use some of {', '.join(GROUPS)}.")
        names = [row.name for group in self.groups for row in GROUPS[group]()]
        if unknown := [name for name in self.only if name not in names]:
            alike = difflib.get_close_matches(unknown[0], names, cutoff=0.4) or names[:3]
            raise ValueError(
                f"there is no row {unknown[0]!r} in {', '.join(self.groups)}: use e.g. "
                f"{', '.join(alike)}."
            )
        check_seeds(self.seeds)
        self.study()

    def rows(self) -> list[Row]:
        """What is trained."""
        chosen = self.only or (TRIED if self.preset == "smoke" else ())
        rows = [row for group in self.groups for row in GROUPS[group]()]
        if self.preset == "smoke":  # one trial of a learning rate
            rows = [dataclasses.replace(row, rates=row.rates[2:3]) for row in rows]
        named = {row.name: row for row in rows}  # the sweep shares runs with the depths
        return [row for name, row in named.items() if not chosen or name in chosen]

    def study(self) -> Study:
        """Data, seeds and sizes."""
        smoke = self.preset == "smoke"
        folder = self.output or pathlib.Path("runs") / f"bioplausible-{self.preset}" / self.data
        few = self.data == "cifar10" and self.preset == "laptop"
        usual = 100 if smoke else 400 if few else 2000
        units = UnitsConfig(usual if self.units is None else self.units, self.unit_epochs)
        if smoke:
            epochs = 60 if self.unit_epochs == Config.unit_epochs else self.unit_epochs
            units = dataclasses.replace(units, epochs=epochs, batch=250)
        return Study(
            folder,
            self.data,
            self.seeds,
            units,
            train_examples=2500 if smoke else None,
            test_examples=1000 if smoke else None,
            shrink=10 if smoke else 1,
            most_epochs=2 if smoke else None,
            restart=self.restart,
        )


PRESETS = {
    "smoke": Config(preset="smoke", seeds=(0,)),
    "laptop": Config(),
    "paper": Config(preset="paper", seeds=(0, 1, 2, 3, 4)),
}


def main(config: Config) -> None:
    """Train what is missing, then write and print tables and figures."""
    study = config.study()
    if not config.draw:
        elsewhere = run_study(study, config.rows())
        if elsewhere:
            print(f"{elsewhere} runs are being done by other processes: draw when they end.")
    every = [row for make in GROUPS.values() for row in make()]  # also what was run before
    print(bioplausible_report.report(study, every, smoke=config.preset == "smoke"))


if __name__ == "__main__":
    run_experiment(main, Config, PRESETS)
