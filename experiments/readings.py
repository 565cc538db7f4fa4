"""Which reading of SynScaW and SynScaL the paper's claim holds for: MNIST, then CIFAR-10.

The paper's text leaves choices open: the target, where the activity is measured, one gap a neuron
or a layer, when to scale, what bounds a step, at what rate. Here every choice is one line of
``READINGS`` and is trained on the paper's MLP (784-1024-1024-10, 24 epochs, 3 seeds): error,
divergence, cost of a step, largest weight and mean |ẑ|, beside the baseline on the same seeds.

    python experiments/readings.py                            # MNIST, about 100 min on 2 cores
    python experiments/readings.py --cell cifar10-mlp --readings synscal-per_example ...

Start it twice to use two cores; give the same command again to go on after an interruption.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from synscale_jax.report import tables
from synscale_jax.report.collect import collect
from synscale_jax.training import methods
from synscale_jax.training.cells import cells_named
from synscale_jax.training.command_line import check_seeds, run_experiment
from synscale_jax.training.measures import WEIGHTS
from synscale_jax.training.methods import Method
from synscale_jax.training.provenance import write_text
from synscale_jax.training.runs import RunError
from synscale_jax.training.sweep import run_cells
from synscale_jax.training.table_settings import PROTOCOLS


def _synscaw(scaling_rate: float = 0.01, *, restore_norm: bool = False, **reading) -> Method:
    """As printed where nothing else is said: every layer, and no norm restored."""
    choices = {"restore_norm": restore_norm, "scale_output": True, **reading}
    return methods.synscaw(scaling_rate, **choices)


READINGS: Mapping[str, Callable[[], Method]] = {
    "baseline": methods.baseline,
    "text": _synscaw,
    "text-0.001": lambda: _synscaw(0.001),
    "text-0.1": lambda: _synscaw(0.1),
    "sampled": lambda: _synscaw(target="layer_noise_sampled"),
    "per_layer": lambda: _synscaw(granularity="layer"),
    "uniform": lambda: _synscaw(target="uniform"),
    "hidden_only": lambda: _synscaw(scale_output=False),
    "skip_silent": lambda: _synscaw(skip_silent_inputs=True),
    "bounded": lambda: _synscaw(max_relative_change=0.01),
    "bounded-0.1": lambda: _synscaw(0.1, max_relative_change=0.01),
    "every_epoch": lambda: _synscaw(every_k="epoch"),
    "every_epoch-0.1": lambda: _synscaw(0.1, every_k="epoch"),
    "every_epoch-1": lambda: _synscaw(1.0, every_k="epoch"),
    "notebook": lambda: _synscaw(
        0.1, target=0.1, measured_on="noise", granularity="layer", clip=1.0, every_k="epoch"
    ),
    "norm_restored-0.001": lambda: _synscaw(0.001, restore_norm=True),
    "norm_restored": lambda: _synscaw(restore_norm=True),
    "norm_restored-0.1": lambda: _synscaw(0.1, restore_norm=True),
    "norm_restored-per_layer": lambda: _synscaw(restore_norm=True, granularity="layer"),
    "norm_restored-uniform": lambda: _synscaw(restore_norm=True, target="uniform"),
    "norm_restored-constant": lambda: _synscaw(restore_norm=True, target=0.1),
    "synscal-per_example": lambda: methods.synscal(1.0, reading="per_example"),
    "synscal-per_example_mean": lambda: methods.synscal(1.0, reading="per_example_mean"),
    "synscal-batch_mean": lambda: methods.synscal(1.0, reading="batch_mean"),
    "synscal-mean_logit": lambda: methods.synscal(1.0, reading="mean_logit"),
}
"""Name -> method; where nothing else is said, the text's SynScaW with what the name changes."""


@dataclasses.dataclass(frozen=True)
class ReadingsConfig:
    """Train the paper's MLP under every reading of SynScaW and SynScaL."""

    preset: Literal["smoke", "laptop"] = "laptop"
    """smoke: 2 epochs of 1000 images; laptop: 24 epochs of all."""
    cell: str = "mnist-mlp"
    """Image set and network."""
    readings: tuple[str, ...] = tuple(READINGS)
    """Which readings to train; the baseline is what they are compared with."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Every reading is trained with each of these seeds."""
    output: pathlib.Path = pathlib.Path("runs/readings")
    """Folder of runs and table."""
    draw: bool = False
    """Only draw the table of what is there."""
    restart: bool = False
    """Begin anew; earlier runs are kept aside."""

    def __post_init__(self) -> None:
        check_seeds(self.seeds)
        (cell,) = cells_named([self.cell])
        if cell.network not in PROTOCOLS[self.preset]:
            raise ValueError(
                f"the {self.preset} protocol has no cell {self.cell}: its networks are "
                f"{', '.join(PROTOCOLS[self.preset])}."
            )
        if unknown := [name for name in self.readings if name not in READINGS]:
            raise ValueError(
                f"there is no reading {unknown[0]!r}: use some of {', '.join(READINGS)}."
            )


def named(name: str) -> Method:
    """A reading as a method that files and tables call by its name."""
    return dataclasses.replace(READINGS[name](), name=name, label=name)


def table(results: Mapping[str, list[dict[str, Any]]]) -> str:
    """Every reading in Markdown, error and what the weights did."""
    rows = tables.method_rows(results, {name: name for name in results}, {})
    columns = tables.columns(rows, "test") | {
        "largest weight": [_ends(runs, "largest_weight") for runs in results.values()],
        "mean abs(ẑ), largest layer": [_gap(runs) for runs in results.values()],
        "ms a step": [_milliseconds(runs) for runs in results.values()],
        "diverged": [_diverged(runs) for runs in results.values()],
    }
    columns.pop("minutes a run", None)
    return tables.markdown(columns)


def _last(runs: list[dict[str, Any]], name: str) -> list[Any]:
    return [run["history"][-1][name] for run in runs if run["history"] and name in run["final"]]


def _ends(runs: list[dict[str, Any]], name: str) -> str:
    values = _last(runs, name)
    return f"{min(values):.2g} to {max(values):.2g}" if values else ""


def _gap(runs: list[dict[str, Any]]) -> str:
    gaps = [gap for row in _last(runs, "mean_gap") for gap in row.values() if gap is not None]
    return f"{max(gaps):.2g}" if gaps else ""


def _milliseconds(runs: list[dict[str, Any]]) -> str:
    """The median epoch of all runs, evaluation included."""
    times = [
        1000 * (after["seconds"] - before["seconds"]) / (after["step"] - before["step"])
        for run in runs
        for before, after in itertools.pairwise(run["history"])
    ]
    return f"{np.median(times):.1f}" if times else ""


def _diverged(runs: list[dict[str, Any]]) -> str:
    epochs = [len(run["history"]) + 1 for run in runs if run["status"] == "diverged"]
    return f"{len(epochs)} of {len(runs)}, in epoch {', '.join(map(str, epochs))}" if epochs else ""


def _note(results: Mapping[str, Any], config: ReadingsConfig) -> str:
    """How to read the table, and what it lacks."""
    text = (
        "Mean ± standard deviation over seeds that did not diverge; Δ with 95 % by Student's t "
        "over the same seeds. The best epoch on the test set is optimistic. Steps are timed "
        "with what else the machine did."
    )
    missing = [name for name in config.readings if name not in results]
    return text + (f" Not run: {', '.join(missing)}." if missing else "")


def main(config: ReadingsConfig) -> None:
    """Train what is missing, then write and print the table."""
    cells = cells_named([config.cell])
    folder = config.output / config.preset
    if not config.draw:
        run_cells(
            folder,
            cells,
            [named(name) for name in config.readings],
            config.seeds,
            lambda cell: PROTOCOLS[config.preset][cell.network],
            measures=WEIGHTS,
            restart=config.restart,
        )
    results = {
        name: runs
        for name, runs in collect(folder, [config.cell], list(READINGS))[config.cell].items()
        if runs
    }
    if not results:
        raise RunError(f"there is no result below {folder} yet: leave out --draw to train.")
    runs = [run for found in results.values() for run in found]
    text = (
        f"# Readings on {cells[0].label}\n\n{table(results)}\n{_note(results, config)}\n\n"
        f"{tables.origin(*runs)}\n"
    )
    write_text(folder / f"readings_{config.cell}.md", text)
    print(text)


if __name__ == "__main__":
    presets = {name: ReadingsConfig(preset=name) for name in ("smoke", "laptop")}
    run_experiment(main, ReadingsConfig, presets)
