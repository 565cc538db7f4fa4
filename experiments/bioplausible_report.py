"""Tables and figures of ``experiments/bioplausible.py``."""

from __future__ import annotations

import json
import pathlib
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from synscale_jax.report.plots import save
from synscale_jax.report.statistics import spread
from synscale_jax.report.tables import markdown
from synscale_jax.training.plasticity_hebbian import SWEEP, sweep_name
from synscale_jax.training.plasticity_jobs import Study, units_folder
from synscale_jax.training.plasticity_rows import Row
from synscale_jax.training.plasticity_runs import load_arrays
from synscale_jax.training.plasticity_studies import GROUPS
from synscale_jax.training.provenance import write_text
from synscale_jax.training.runs import RunError

TITLES = {
    "light": "Light models, one epoch",
    "hebb": "Semi-Hebbian networks as published: one local update, then a linear readout",
    "sweep": "Percentile of the threshold, as published",
    "local": "Local rules on every batch, then a linear readout",
    "feedback": "Feedback alignment in an MLP, each at its best learning rate",
    "convolution": "A CNN, and feedback alignment on its convolutions",
    "units": "Competing hidden units and their readouts",
}
# Data set -> row -> accuracy in % that its mean must reach.
BANDS: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "mnist": {
        "cnn": (98.0, 99.0), "cnn2": (93.5, 95.5), "fcn": (88.5, 90.5),
        "units_power": (96.5, 100), "units_clean": (97.1, 100), "units_3fc": (92, 96),
        "units_3fa": (87, 93),
        "oja_single": (80, 87), "hebb_single": (10, 45), "gupta4_1": (60, 85),
        "cnn_fa": (50, 75),
    },
    "cifar10": {"cnn": (54, 60), "cnn2": (47, 51), "fcn": (35, 39), "cnn_fa": (22, 30)},
}  # fmt: skip
SWEPT = ("1+4", "2+3", "3+2")
# Those that are held to the largest accuracy along the way.
MAX_BANDS = {
    "mnist": {sweep_name(depth, p): (89, 100) for depth in SWEPT for p in SWEEP if p >= 50}
    | {sweep_name(depth, 10): (78, 87) for depth in SWEPT}
    | {sweep_name(depth, 60): (90, 93.5) for depth in SWEPT}
}
# In place of the others where there are fewer than 2000 competing units.
FEW_UNITS = {"mnist": {"units_power": (93, 100), "units_clean": (93, 100)}}
# Row -> the row whose mean its own is to be near, and by how many points.
NEAR = {"units_power_fa": ("units_power", 2.0)}
KINDS = {"legacy": "#0072B2", "clean": "#D55E00", "control": "#000000"}

Runs = dict[str, list[dict[str, Any]]]


def report(study: Study, rows: Sequence[Row], *, smoke: bool = False) -> str:
    """Write a table and curves of each group, the mosaics, and all tables as one page.

    Raises:
      RunError: if there is no result yet.
    """
    results = {row.name: read_runs(study.folder / row.name) for row in rows}
    if not any(results.values()):
        raise RunError(f"there is no result below {study.folder} yet: leave out --draw to train.")
    parts = [f"# Learning without backpropagation, {study.data}\n"]
    if smoke:
        parts.append("Tiny networks on few images: this says that it runs, and nothing else.\n")
    shown: set[str] = set()
    for group in GROUPS:
        here = [row for row in rows if row.group == group and results[row.name]]
        if {row.name for row in here} <= shown:  # nothing, or what another study shares with it
            continue
        shown |= {row.name for row in here}
        parts.append(f"## {TITLES[group]}\n\n{table(here, results, study.data, bands=not smoke)}\n")
        path = study.folder / f"{group}.png"
        if group == "sweep":
            sweep_figure(results, path)
        else:
            curves(here, results, TITLES[group], path)
        parts.append(f"![{TITLES[group]}]({group}.png)\n")
    weights = units_folder(study, study.seeds[0]) / "weights.npz"
    fields = study.folder / "receptive_fields.png"
    if weights.exists():
        mosaic(load_arrays(weights)["weights"], study.images.image_shape, fields)
    if fields.exists():  # results are kept without their weights
        parts.append("![Weights of 20 competing units](receptive_fields.png)\n")
    parts.append(_origin(results, smoke))
    text = "\n".join(parts)
    write_text(study.folder / "README.md", text)
    return text


def read_runs(folder: pathlib.Path) -> list[dict[str, Any]]:
    """The results of a row, in the order of the seeds."""
    paths = sorted(folder.glob("seed[0-9]*/result.json"), key=lambda path: path.parent.name)
    return [json.loads(path.read_text()) for path in paths if ".old" not in path.parent.name]


def table(rows: Sequence[Row], results: Runs, data: str, *, bands: bool = True) -> str:
    """One line a row: accuracy at the end and the largest, what was printed, and time."""
    columns: dict[str, list[str]] = {
        "learner": [], "kind": [], "seeds": [], "accuracy %, at the end": [], "largest %": [],
        "printed, end": [], "printed, largest": [], "asked for": [], "learning rate": [],
        "s an epoch": [],
    }  # fmt: skip
    for row in rows:
        runs = results[row.name]
        end = [100 * run["final"]["test_accuracy"] for run in runs]
        best = [100 * run["best"]["test_accuracy"] for run in runs]
        lost = sum(run["status"] == "diverged" for run in runs)
        values = (
            row.label + (f" ({lost} of {len(runs)} diverged)" if lost else ""),
            row.kind,
            str(len(runs)),
            spread(end),
            spread(best) if len(runs[0]["history"]) > 1 and row.kind == "legacy" else "",
            _shown(row.printed.get(data)),
            _shown(row.printed_max.get(data)),
            asked_for(row.name, results, data) if bands else "",
            f"{runs[0]['config']['learning_rate']:g}",
            _seconds(np.median([run["seconds_per_epoch"] for run in runs])),
        )
        for column, value in zip(columns.values(), values, strict=True):
            column.append(value)
    return markdown({name: c for name, c in columns.items() if any(c)})


def scaled(rows: Sequence[Row], folder: pathlib.Path) -> str:
    """One line a row: accuracy without and with SynScaW on top, over the seeds that have both."""
    columns: dict[str, list[str]] = {
        name: []
        for name in ("learner", "seeds", "accuracy %", "with SynScaW %", "difference, points")
    }
    for row in rows:
        plain, on_top = (
            {run["seed"]: 100 * run["final"]["test_accuracy"] for run in read_runs(folder / name)}
            for name in (row.name, f"{row.name}_synscaw")
        )
        seeds = sorted(plain.keys() & on_top.keys())
        if not seeds:
            continue
        difference = spread([on_top[seed] - plain[seed] for seed in seeds])
        cells = (
            f"{row.label} ({row.kind})",
            str(len(seeds)),
            spread([plain[seed] for seed in seeds]),
            spread([on_top[seed] for seed in seeds]),
            difference if difference.startswith("-") else f"+{difference}",
        )
        for column, cell in zip(columns.values(), cells, strict=True):
            column.append(cell)
    return markdown(columns)


def asked_for(name: str, results: Runs, data: str) -> str:
    """What is asked of a row, and whether its mean is so; nothing of most."""
    runs = results[name]
    end, best = ([100 * run[which]["test_accuracy"] for run in runs] for which in ("final", "best"))
    other, points = NEAR.get(name, ("", 0.0))
    if data == "mnist" and results.get(other):
        there = np.mean([100 * run["final"]["test_accuracy"] for run in results[other]])
        near = abs(np.mean(end) - there) <= points
        return f"within {points:g} of {there:.2f}: {'yes' if near else 'no'}"
    few = runs[0].get("units", {}).get("units", 2000) < 2000
    return verdict(name, end, best, data, few_units=few)


def verdict(
    name: str, end: Sequence[float], best: Sequence[float], data: str, *, few_units: bool = False
) -> str:
    """The band asked of a row, and whether the mean lies in it."""
    # The first that has the row decides.
    few = FEW_UNITS if few_units else {}
    for bands, values in ((few, end), (BANDS, end), (MAX_BANDS, best)):
        if name in bands.get(data, {}):
            low, high = bands[data][name]
            inside = low <= np.mean(values) <= high
            return f"{low:g} to {high:g}: {'yes' if inside else 'no'}"
    return ""


def _seconds(value: Any) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _origin(results: Runs, smoke: bool) -> str:
    runs = [run for each in results.values() for run in each]
    commits = sorted({str(run["commit"]) for run in runs})
    first = runs[0]
    versions = ", ".join(f"{name} {version}" for name, version in first["versions"].items())
    note = "" if smoke else " Accuracies are of the test set; ± is the deviation over seeds."
    trained = [run["units"] for run in runs if run.get("units", {}).get("kind") == "competing"]
    for units, epochs in sorted({(each["units"], each["epochs"]) for each in trained}):
        note += f" Competing units: {units}, trained for {epochs} epochs."
    return (
        f"{len(runs)} runs, commits {', '.join(commits)}, {first['device']} ({first['cpu']}), "
        f"{versions}, `{first['command']}`.{note}\n"
    )


def curves(rows: Sequence[Row], results: Runs, title: str, path: pathlib.Path) -> None:
    """Test accuracy against epochs, mean and range of the seeds, one panel a kind."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    kinds = [kind for kind in KINDS if any(row.kind == kind for row in rows)]
    figure = Figure(figsize=(1 + 4.6 * len(kinds), 5.0), layout="constrained")
    for axes, kind in zip(
        figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0], kinds, strict=True
    ):
        here = [row for row in rows if row.kind == kind]
        for index, row in enumerate(here):
            color = colormaps["tab10"](index % 10)
            _curve(axes, results[row.name], row.label, color, "-" if index < 10 else "--")
        axes.set_title(kind, fontsize=10)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        columns = 2 if len(here) > 4 else 1
        axes.legend(
            frameon=False,
            fontsize=7,
            ncols=columns,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.13),
        )
        if max(run["final"]["epoch"] for row in here for run in results[row.name]) > 30:
            axes.set_xscale("log")
    figure.axes[0].set_ylabel("test accuracy (%)")
    figure.suptitle(textwrap.fill(title, 60 * len(kinds)), fontsize=11)
    save(figure, path)


def _curve(axes: Any, runs: Sequence[Mapping[str, Any]], label: str, color: Any, line: str) -> None:
    length = min(len(run["history"]) for run in runs)
    epochs = [row["epoch"] for row in runs[0]["history"][:length]]
    values = 100 * np.array(
        [[row["test_accuracy"] for row in run["history"][:length]] for run in runs]
    )
    marker = "o" if length == 1 else None
    axes.plot(epochs, values.mean(0), line, color=color, label=label, marker=marker, lw=1.4)
    axes.fill_between(epochs, values.min(0), values.max(0), color=color, alpha=0.15, lw=0)


def sweep_figure(results: Runs, path: pathlib.Path) -> None:
    """Largest accuracy against the percentile: ours with the range of seeds, printed dashed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for index, depth in enumerate(SWEPT):
        points = {
            p: [100 * run["best"]["test_accuracy"] for run in results[sweep_name(depth, p)]]
            for p in SWEEP
            if results.get(sweep_name(depth, p))
        }
        color = f"C{index}"
        axes.plot(list(points), [np.mean(v) for v in points.values()], "o-", color=color,
                  label=depth)  # fmt: skip
        low, high = ([of(v) for v in points.values()] for of in (min, max))
        axes.fill_between(list(points), low, high, color=color, alpha=0.15, lw=0)
        axes.plot(list(SWEEP), [SWEEP[p][index][0] for p in SWEEP], "--", color=color, lw=1)
    axes.set_xlabel("percentile p")
    axes.set_ylabel("largest test accuracy (%)\ndashed: printed; band: range of seeds")
    axes.grid(alpha=0.25)
    axes.legend(title="layers: local + trained", frameon=False)
    axes.set_title(TITLES["sweep"], fontsize=11)
    save(figure, path)


def mosaic(weights: np.ndarray, shape: tuple[int, int, int], path: pathlib.Path) -> None:
    """The weights of a random 5 × 4 of the units, blue negative and red positive."""
    from matplotlib.figure import Figure

    height, width, channels = shape
    chosen = np.random.default_rng(0).permutation(weights.shape[1])[:20]
    figure = Figure(figsize=(5, 6.2), layout="constrained")
    fields = weights.T[chosen].reshape(-1, height, width, channels)
    limit = np.abs(fields).max()
    for axes, field in zip(figure.subplots(5, 4).ravel(), fields, strict=False):
        if channels == 1:
            axes.imshow(field[..., 0], cmap="bwr", vmin=-limit, vmax=limit)
        else:
            axes.imshow(np.clip(0.5 + field / (2 * np.abs(field).max()), 0, 1))
        axes.set_axis_off()
    save(figure, path)
