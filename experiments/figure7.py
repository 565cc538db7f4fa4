"""Curves like figure 7 of the paper: loss and accuracy by epoch, from any runs that are there.

The paper's shows the test error of ResNet50 on ImageNet; this draws mean and range over seeds for
every method in a folder of runs, e.g. a cell of `table1.py` or what `cifar100_resnet.py` wrote.

    python experiments/figure7.py --runs runs/tables/laptop/mnist-mlp
    python experiments/figure7.py --runs results/cifar100_resnet --figure curves.png
"""

import dataclasses
import pathlib

import tyro

from synscale_jax.report.collect import ResultError, collect
from synscale_jax.report.plots import learning_curves
from synscale_jax.training.runs import RunError
from synscale_jax.training.table_settings import TablesConfig, method_labels


@dataclasses.dataclass(frozen=True)
class Figure7Config:
    """Draw the learning curves of every method in a folder of runs."""

    runs: pathlib.Path = pathlib.Path("runs/tables/laptop/mnist-mlp")
    """Folder that holds <method>/seed<k>/result.json."""
    figure: pathlib.Path | None = None
    """The PNG; by default <runs>/figure7.png."""


def main(config: Figure7Config) -> None:
    """Draw what is there."""
    runs = config.runs.resolve()
    methods = sorted({path.parent.parent.name for path in runs.glob("*/seed*/result.json")})
    if not methods:
        raise RunError(
            f"there is no result below {config.runs}: name a folder of runs with --runs."
        )
    try:
        found = collect(runs.parent, [runs.name], methods)[runs.name]
    except ResultError as refusal:
        raise RunError(str(refusal)) from refusal
    path = config.figure or runs / "figure7.png"
    known = method_labels(TablesConfig().chosen_methods())
    labels = {name: known.get(name, name) for name in methods}
    learning_curves(found, labels, runs.name, path)
    print(f"{path}: {', '.join(f'{name} ({len(runs)})' for name, runs in found.items())}")


if __name__ == "__main__":
    try:
        main(tyro.cli(Figure7Config))
    except RunError as error:
        raise SystemExit(f"error: {error}") from None
