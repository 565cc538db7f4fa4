"""Table V from result JSONs: every figure read in three ways, tests, verdicts, one figure."""

from __future__ import annotations

import csv
import dataclasses
import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from synscale_jax.analysis.significance import (
    Interval,
    Outcome,
    corrected_interval,
    corrected_t_test,
    student_t_test,
    verdict,
)
from synscale_jax.report import tables
from synscale_jax.report.collect import ResultError, Results, collect, finished
from synscale_jax.report.plots import Dot, dots
from synscale_jax.report.statistics import spread
from synscale_jax.training.folds import FoldConfig
from synscale_jax.training.runs import RunError
from synscale_jax.training.table5 import READINGS, ROWS, Row

LABELS = {
    "baseline": "baseline",
    "dropout": "dropout",
    "confidence_penalty": "confidence penalty",
    "synscaw": "SynScaW",
    "synscal": "SynScaL",
}
READING_LABELS = {
    "final": "last epoch",
    "best_on_validation": "best on validation",
    "best_on_test": "best on test (optimistic)",
}
HEADLINE = "best_on_validation"
LIKE_THE_PAPER = "best_on_test"
UNITS = {
    "accuracy": "accuracy %",
    "raw": "MAE, raw",
    "range": "MAE / range",
    "mad": "MAE / MAD",
}
TIE = 4  # decimals of points: equal accuracies in other folds differ by float32's rounding
Runs = Sequence[Mapping[str, Any]]


class Figures(NamedTuple):
    """One method on one row.

    Attributes:
      values: figures in the row's unit, shape=(seeds, folds).
      points: error in percent, or mean absolute error in percent of the target's range, so that
        rows can be compared; the same shape.
      epochs: the epochs that were read, the same shape.
      seeds: their seeds.
    """

    values: np.ndarray
    points: np.ndarray
    epochs: np.ndarray
    seeds: tuple[int, ...]


def results_below(folder: pathlib.Path, rows: Sequence[str], methods: Sequence[str]) -> Results:
    """The rows of which there are results.

    Raises:
      RunError: in one sentence, if there are none, or results that do not go together.
    """
    try:
        found = collect(folder, rows, methods)
    except ResultError as refusal:
        raise RunError(str(refusal)) from refusal
    found = {row: column for row, column in found.items() if any(column.values())}
    if not found:
        raise RunError(f"there is no result below {folder}: leave out --draw to train.")
    _check_across(folder, found)
    return found


def _check_across(folder: pathlib.Path, results: Results) -> None:
    """Refuse rows that were trained in different ways: the tests over data sets take all."""
    seen: dict[str, tuple[str, Any]] = {}
    for row, column in results.items():
        for run in (run for runs in column.values() for run in runs):
            for what in ("config", "method"):
                key = what if what == "config" else run["method"]["name"]
                first, settings = seen.setdefault(key, (row, run[what]))
                if settings != run[what]:
                    raise RunError(
                        f"{first} and {row} below {folder} were trained with different settings of "
                        f"{key}: a table does not mix protocols, keep each in a folder of its own."
                    )


def like_the_paper(column: Mapping[str, Runs]) -> bool:
    """Whether all runs of a row have the paper's settings, by their own record."""
    paper = dataclasses.asdict(FoldConfig())
    return all(run["config"] == paper for runs in column.values() for run in runs)


def figures(row: Row, runs: Sequence[dict[str, Any]], reading: str) -> Figures | None:
    """What the runs of a method say in one reading; None: nothing.

    A run that diverged has no last epoch. It has a best one, and leaving that out would flatter the
    method wherever it breaks down.
    """
    counted = finished(runs) if reading == "final" else {run["seed"]: run for run in runs}
    done = {seed: run for seed, run in counted.items() if _has(run["folds"], reading)}
    if not done:
        return None
    values, points = [], []
    for run in done.values():
        figure = np.array(run["folds"][reading]["figure"], float)
        values.append(_in_unit(figure, run["folds"]["target_range"], run["target"], row.unit))
        points.append(100 - figure if row.unit == "accuracy" else 100 * figure)
    epochs = np.array([run["folds"][reading]["epoch"] for run in done.values()])
    return Figures(np.array(values), np.array(points), epochs, tuple(done))


def _has(folds: Mapping[str, Any], reading: str) -> bool:
    """Whether every fold has a number in a reading."""
    return reading in folds and None not in folds[reading]["figure"]


def _in_unit(
    figure: np.ndarray, ranges: Sequence[float], target: Mapping[str, float], unit: str
) -> np.ndarray:
    """Accuracies stay; errors come as shares of the range of each fold's training targets."""
    if unit in ("accuracy", "range"):
        return figure
    raw = figure * np.asarray(ranges)
    return raw / target["mad"] if unit == "mad" else raw


def settings(runs: Runs) -> str:
    """How the rows were trained, in one line, by the runs' own record; they share it."""
    config = runs[0]["config"]
    methods = {run["method"]["name"]: run["method"] for run in runs}
    strengths = "".join(
        f"; {LABELS[name]} {symbol} = {methods[name][key]:g}"
        for name, symbol, key in (
            ("confidence_penalty", "β", "strength"),
            ("synscal", "γ", "scaling_rate"),
        )
        if name in methods
    )
    return (
        f"{config['folds']} folds{' by group' if config['grouped'] else ''}, {config['epochs']} "
        f"epochs, batch {config['batch']} (ours), Adam {config['learning_rate']:g} × "
        f"{config['decay']:g} every {config['decay_epochs']} epochs, as SynScaW's γ; loss of "
        f"regressions {config['loss']}{strengths}{tables.readings_of_synscaw(runs)}."
    )


def overview(results: Results, reading: str) -> dict[str, list[str]]:
    """Every row and method in one reading; stars as in the paper, by Student's t."""
    columns: dict[str, list[str]] = {"row": [], "unit": []} | {
        label: [] for label in LABELS.values()
    }
    for name, column in results.items():
        row = ROWS[name]
        base = figures(row, column.get("baseline", []), reading)
        columns["row"].append(row.label)
        columns["unit"].append(UNITS[row.unit])
        for method, label in LABELS.items():
            ours = figures(row, column.get(method, []), reading)
            runs = column.get(method, [])
            if ours is None:
                text = "diverged" if runs else ""
            else:
                lost = len(runs) - len(ours.seeds)
                text = _spread(ours.values, row) + (f" ({lost} diverged)" if lost else "")
            if ours is not None and base is not None and method != "baseline":
                text += stars(student_t_test(ours.values.ravel(), base.values.ravel()))
            columns[label].append(text)
    return columns


def stars(outcome: Outcome) -> str:
    """The paper's marks: one star at 0.1, two at 0.01, three at 0.001; above that a dash."""
    if outcome.p_value is None:
        return " (no test)"
    for mark, level in (("***", 0.001), ("**", 0.01), ("*", 0.1)):
        if outcome.p_value <= level:
            return f" {mark}"
    return " -"


def _digits(row: Row) -> int:
    return {"accuracy": 2, "raw": 2, "range": 4, "mad": 3}[row.unit]


def _spread(values: np.ndarray, row: Row) -> str:
    return spread(values.ravel().tolist(), _digits(row))


def details(
    row: Row, column: Mapping[str, Sequence[dict[str, Any]]], comparable: bool
) -> dict[str, list[str]]:
    """Everything about one row: heading -> one cell a method; empty columns are left out.

    Differences, tests and the verdict are of the paper's reading, the best epoch on the test fold,
    and the corrected test beside it of the epoch that the validation split chose.
    """
    lines = []
    for method, label in LABELS.items():
        runs = column.get(method, [])
        found = {name: figures(row, runs, name) for name in READINGS}
        alike, lost = found[LIKE_THE_PAPER], len(runs) - len(finished(runs))
        if not runs:
            continue
        base = {name: figures(row, column.get("baseline", []), name) for name in READINGS}
        line = {"method": label, "seeds": str(len(runs)), "diverged": str(lost or "")}
        for name, heading in READING_LABELS.items():
            ours = found[name]
            line[heading] = "" if ours is None else _spread(ours.values, row)
        if alike is not None:
            if row.unit in ("raw", "mad"):
                line["MAE / range"] = f"{alike.points.mean() / 100:.4f}"
            line["epoch of the best"] = f"{alike.epochs.mean():.0f}"
        published = row.published.get(method)
        line["published"] = "" if published is None else f"{published:.2f}"
        line |= _compared(row, method, found, base, comparable)
        lines.append(line)
    lines += [
        {"method": label, "verdict": verdict(None, None, needs="time")}
        for method, label in LABELS.items()
        if method in row.published and not column.get(method)
    ]
    headings = list(dict.fromkeys(name for line in lines for name in line))
    columns = {name: [line.get(name, "") for line in lines] for name in headings}
    return {name: cells for name, cells in columns.items() if any(cells)}


def _compared(
    row: Row,
    method: str,
    found: Mapping[str, Figures | None],
    base: Mapping[str, Figures | None],
    comparable: bool,
) -> dict[str, str]:
    """Difference, tests and verdict of a method against the baseline."""
    pairs = {name: paired(found[name], base[name]) for name in READINGS}
    alike = pairs[LIKE_THE_PAPER]
    if method == "baseline" or alike is None:
        return {}
    interval = _interval(alike)
    ours, theirs = found[LIKE_THE_PAPER], base[LIKE_THE_PAPER]
    assert ours is not None and theirs is not None
    printed = published_difference(row, method)
    chosen = pairs[HEADLINE]
    digits = _digits(row)
    ends = ""
    if interval is not None:
        ends = f" [{interval.low:+z.{digits}f}, {interval.high:+z.{digits}f}]"
    return {
        "Δ best on test [95 %]": f"{alike.mean():+z.{digits}f}{ends}",
        "published Δ": "" if printed is None else f"{printed:+.2f}",
        "p, Student's t": printed_p(student_t_test(ours.values.ravel(), theirs.values.ravel())),
        "p, corrected t": printed_p(corrected_t_test(alike)),
        "p, corrected t, best on validation": ""
        if chosen is None
        else printed_p(corrected_t_test(chosen)),
        "verdict": judged(interval, printed, comparable=comparable),
    }


def _interval(gaps: np.ndarray) -> Interval | None:
    """Of the corrected t; None where all differences are equal, which says nothing of spread."""
    return None if corrected_t_test(gaps).p_value is None else corrected_interval(gaps)


def judged(interval: Interval | None, printed: float | None, *, comparable: bool) -> str:
    """The verdict on a difference of printed figures; without spread there is no test."""
    said = verdict(interval, printed, rounding=0.01, comparable=comparable)
    return "no test" if interval is None and said == "cannot tell" else said


def paired(ours: Figures | None, base: Figures | None, *, points: bool = False):
    """Differences to the baseline on the same seeds and folds, shape (seeds, folds), or None."""
    if ours is None or base is None:
        return None
    both = [seed for seed in ours.seeds if seed in base.seeds]
    if not both:
        return None
    mine, theirs = (one.points if points else one.values for one in (ours, base))
    return np.array([mine[ours.seeds.index(s)] - theirs[base.seeds.index(s)] for s in both])


def published_difference(row: Row, method: str) -> float | None:
    """The paper's difference to its baseline, in the row's unit."""
    if method == "baseline" or not {method, "baseline"} <= row.published.keys():
        return None
    return row.published[method] - row.published["baseline"]


def printed_p(outcome: Outcome) -> str:
    """The p of a test, with three digits."""
    if outcome.p_value is None:
        return "no test"
    return "< 0.001" if outcome.p_value < 0.001 else f"{outcome.p_value:.3f}"


def as_csv(results: Results) -> str:
    """One line a row, method, reading, seed and fold, numbers unrounded."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["row", "method", "reading", "seed", "fold", "figure", "unit", "epoch"])
    for name, column in results.items():
        row = ROWS[name]
        for method, runs in column.items():
            for reading in READINGS:
                if (found := figures(row, runs, reading)) is None:
                    continue
                for index, seed in enumerate(found.seeds):
                    for fold, value in enumerate(found.values[index]):
                        epoch = found.epochs[index, fold]
                        line = [name, method, reading, seed, fold, value, UNITS[row.unit], epoch]
                        writer.writerow(line)
    return buffer.getvalue()


def draw(
    results: Results,
    path: pathlib.Path,
    reading: str = LIKE_THE_PAPER,
    more: Mapping[str, Sequence[Dot]] | None = None,
) -> bool:
    """One panel a method, one line a row: difference to the baseline in points, with interval.

    Args:
      results: of tabular rows.
      path: where the PNG goes.
      reading: which epochs are read.
      more: label of a method -> lines below those of the tables.

    Returns:
      Whether there was a method to draw, beside the baseline.
    """
    panels = {
        label: [
            *(_dot(ROWS[name], column, method, reading) for name, column in results.items()),
            *(more or {}).get(label, ()),
        ]
        for method, label in LABELS.items()
        if method != "baseline" and any(column.get(method) for column in results.values())
    }
    if panels:
        note = "open: published; left of 0 is better than the baseline"
        title = f"Table V, {READING_LABELS[reading]}"
        dots(panels, "Δ, % error or % of range", title, path, note)
    return bool(panels)


def _dot(row: Row, column: Mapping[str, Any], method: str, reading: str) -> Dot:
    ours, base = (figures(row, column.get(name, []), reading) for name in (method, "baseline"))
    printed = _published_points(row, method, column)
    gaps = paired(ours, base, points=True)
    if gaps is None:
        return Dot(row.label, None, None, None, printed)
    interval = _interval(gaps)
    if interval is None:
        return Dot(row.label, float(gaps.mean()), None, None, printed)
    return Dot(row.label, *interval, printed)


def _published_points(row: Row, method: str, column: Mapping[str, Any]) -> float | None:
    """The paper's difference in points, where the scale of the target is known."""
    printed = published_difference(row, method)
    runs = [run for runs in column.values() for run in runs]
    if printed is None or not runs:
        return None
    target = runs[0]["target"]
    scale = {
        "accuracy": -1.0,
        "range": 100.0,
        "raw": 100 / target.get("range", 1),
        "mad": 100 * target.get("mad", 1) / target.get("range", 1),
    }
    return scale[row.unit] * printed
