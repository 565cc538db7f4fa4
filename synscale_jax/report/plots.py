"""Figures of several methods: learning curves, and differences with their intervals."""

from __future__ import annotations

import os
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

# Okabe and Ito's colours: told apart by colour-blind readers too.
COLORS = {
    "baseline": "#000000",
    "synscaw": "#0072B2",
    "synscal": "#D55E00",
    "dropout": "#E69F00",
    "confidence_penalty": "#009E73",
    "bottleneck": "#56B4E9",
    "synscaw_confidence_penalty": "#CC79A7",
    "synscal_confidence_penalty": "#F0E442",
    "label_smoothing": "#999999",
}


def learning_curves(
    results: Mapping[str, Sequence[Mapping[str, Any]]],
    labels: Mapping[str, str],
    title: str,
    path: pathlib.Path,
) -> None:
    """Draw loss and accuracy of training and test against the epoch, one colour a method.

    Lines are means over seeds, bands reach from the lowest seed to the highest. Losses are
    cross-entropy alone, so that methods can be compared. The training curves are means over the
    steps of an epoch, the test curves are taken after it. Runs that diverged are drawn as far as
    they got, and the legend counts them.

    Args:
      results: method name -> result JSONs, one a seed.
      labels: method name -> what the legend calls it.
      title: of the figure.
      path: where the PNG goes, whole or not at all.
    """
    from matplotlib.figure import Figure  # slow to import, and needed here alone

    figure = Figure(figsize=(9, 6.2), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True)
    for row, (quantity, name) in enumerate(
        (("loss", "cross-entropy"), ("accuracy", "accuracy (%)"))
    ):
        for column, split in enumerate(("train", "test")):
            axes = panels[row][column]
            for method, runs in results.items():
                _curve(axes, runs, f"{split}_{quantity}", method, _label(labels[method], runs))
            axes.set_ylabel(f"{'training' if split == 'train' else 'test'} {name}")
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
            if row:
                axes.set_xlabel("epoch")
                axes.xaxis.get_major_locator().set_params(integer=True)
    panels[0][0].legend(frameon=False)
    figure.suptitle(title)
    save(figure, path)


class Dot(NamedTuple):
    """One line of a dot-and-interval figure.

    Attributes:
      label: what the axis calls it.
      value: where the dot is; None: an empty line.
      low: lower end of the interval; None: the dot stands alone.
      high: upper end.
      published: where the open diamond is; None: there is none.
      direction: sign of a published difference on another scale, which a triangle at the edge
        shows; 0: there is none.
    """

    label: str
    value: float | None
    low: float | None
    high: float | None
    published: float | None = None
    direction: int = 0


def dots(
    panels: Mapping[str, Sequence[Dot]],
    quantity: str,
    title: str,
    path: pathlib.Path,
    note: str = "open diamonds: published",
) -> None:
    """Draw dots with intervals, one panel a column of a table, against a line at zero.

    An interval that leaves zero out is drawn dark, one that holds it grey. What lies beyond three
    times a panel's furthest dot is cut, and an arrow tells so: one line of three scattered seeds
    would flatten all others.

    Args:
      panels: title -> lines, top to bottom; all panels have the same lines.
      quantity: label of the abscissa.
      title: of the figure.
      path: where the PNG goes, whole or not at all.
      note: what the open marks are.
    """
    from matplotlib.figure import Figure

    lines = len(next(iter(panels.values())))
    size = (max(7.0, 2.2 + 2.6 * len(panels)), 1.7 + 0.34 * lines)  # the note takes 6.5
    figure = Figure(figsize=size, layout="constrained")
    for axes, (name, rows) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        axes.axvline(0, color="#888888", lw=0.8)
        reach = _reach(rows)
        for line, dot in enumerate(rows):
            _dot(axes, line, dot, reach)
        axes.set_yticks(range(lines), [dot.label for dot in rows] if name in _first(panels) else [])
        axes.set_ylim(lines - 0.5, -0.5)
        axes.locator_params(axis="x", nbins=4)
        if any(dot.direction for dot in rows):
            axes.margins(x=0.12)  # leaves the edges to the triangles
        axes.set_title(name, fontsize=10)
        axes.set_xlabel(quantity, fontsize=9)
        axes.grid(axis="x", alpha=0.25)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    figure.suptitle(title)
    figure.supxlabel(
        f"dots: ours with 95 % interval, an arrow where it goes on; {note}", fontsize=8
    )
    save(figure, path)


def _first(panels: Mapping[str, Any]) -> tuple[str]:
    return (next(iter(panels)),)


def _reach(rows: Sequence[Dot]) -> float:
    """How far from zero an interval is drawn."""
    points = [at for dot in rows for at in (dot.value, dot.published) if at is not None]
    return 3 * max(map(abs, points), default=0.0) or np.inf


def _dot(axes: Any, line: int, dot: Dot, reach: float) -> None:
    if dot.published is not None:
        axes.plot(dot.published, line, "D", mfc="none", mec="#D55E00", ms=6)
    if dot.direction:
        where, marker = (0.97, ">") if dot.direction > 0 else (0.03, "<")
        edge = axes.get_yaxis_transform()
        axes.plot(where, line, marker, mfc="none", mec="#D55E00", ms=7, transform=edge)
    if dot.value is None:
        return
    if dot.low is None or dot.high is None:
        axes.plot(dot.value, line, "o", color="#888888", ms=5)
        return
    color = "#0072B2" if dot.low > 0 or dot.high < 0 else "#888888"
    low, high = max(dot.low, -reach), min(dot.high, reach)
    axes.plot([low, high], [line, line], color=color, lw=2)
    for end, cut, marker in ((low, low > dot.low, "<"), (high, high < dot.high, ">")):
        if cut:
            axes.plot(end, line, marker, color=color, ms=6)
    axes.plot(dot.value, line, "o", color=color, ms=6)


def save(figure: Any, path: pathlib.Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own: another process may draw the same figure.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
        scratch = pathlib.Path(folder) / path.name
        figure.savefig(scratch, dpi=150, format="png")
        os.replace(scratch, path)


def _label(label: str, runs: Sequence[Mapping[str, Any]]) -> str:
    lost = sum(run["status"] == "diverged" for run in runs)
    return f"{label} ({lost} of {len(runs)} diverged)" if lost else label


def _curve(axes: Any, runs: Sequence[Mapping[str, Any]], key: str, method: str, label: str) -> None:
    histories = [[row[key] for row in run["history"]] for run in runs if run["history"]]
    if not histories:  # its line in the legend says why
        axes.plot([], [], color=COLORS.get(method), label=label)
        return
    length = max(map(len, histories))
    values = np.full((len(histories), length), np.nan)
    for index, history in enumerate(histories):
        values[index, : len(history)] = history
    values *= 100 if key.endswith("accuracy") else 1
    epochs, color = np.arange(1, length + 1), COLORS.get(method)
    marker = "o" if length == 1 else None
    (line,) = axes.plot(
        epochs, np.nanmean(values, 0), color=color, label=label, marker=marker, lw=1.6
    )
    if len(histories) > 1:
        low, high = np.nanmin(values, 0), np.nanmax(values, 0)
        axes.fill_between(epochs, low, high, color=line.get_color(), alpha=0.15, lw=0)
