"""How the paper's tables look: overview, one cell in full, tests, CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from synscale_jax.analysis.significance import Interval
from synscale_jax.report.cell_tables import PRIMARY_SEEDS, Entry, Prediction, Quantity, Test
from synscale_jax.report.collect import finished
from synscale_jax.report.statistics import Estimate, spread


def prediction_table(rows: Sequence[Prediction], labels: Mapping[str, str]) -> dict[str, list[str]]:
    """Predictions as a table."""

    def inside(row: Prediction) -> str:
        if row.interval is None:
            return "not run"
        return "inside" if row.interval.low <= row.published <= row.interval.high else "outside"

    return {
        "cell": [row.cell for row in rows],
        "method": [labels.get(row.method, row.method) for row in rows],
        "seeds": [str(row.seeds) for row in rows],
        "our mean": ["" if r.interval is None else f"{r.interval.mean:.2f}" for r in rows],
        "one new run, 95 %": [_ends(row.interval, 2) for row in rows],
        "printed": [f"{row.published:.2f}" for row in rows],
        "the print lies": [inside(row) for row in rows],
    }


def overview(
    cells: Mapping[str, Mapping[str, Entry]],
    labels: Mapping[str, str],
    digits: int,
    source: str = "paper",
) -> dict[str, list[str]]:
    """Methods in rows, cells in columns: mean ± deviation (seeds), the published figure behind it.

    Args:
      cells: label of a cell -> method name -> entry.
      labels: method name -> what the table calls it.
      digits: decimals.
      source: who published it.
    """
    table = {"method": [labels[name] for name in labels]}
    for cell, column in cells.items():
        table[cell] = [_short(column[name], digits, source) for name in labels]
    return table


def _short(entry: Entry, digits: int, source: str) -> str:
    ours = "not run"
    if entry.final is not None:
        ours = f"{spread(entry.final, digits)} (n {entry.final.count})"
    elif entry.diverged:
        ours = f"diverged ({entry.diverged})"
    if entry.published is None:
        return ours
    return f"{ours}; {source} {entry.published:.{min(digits, 3)}f}"


def details(
    column: Mapping[str, Entry],
    labels: Mapping[str, str],
    quantity: Quantity,
    source: str = "paper",
) -> dict[str, list[str]]:
    """One cell, a method a row, with everything that is known; empty columns are left out."""
    digits, rows = quantity.digits, [column[name] for name in labels]
    their_digits = min(digits, 3)
    table = {
        "method": list(labels.values()),
        "seeds": [_seeds(row) for row in rows],
        f"{quantity.name}, last epoch": [spread(row.final, digits) for row in rows],
        "95 %": [_ends(row.interval, digits) for row in rows],
        "best epoch on test (optimistic)": [spread(row.best, digits) for row in rows],
        "before training": [spread(row.initial, digits) for row in rows],
        "Δ to baseline": [
            "" if r.mean_difference is None else f"{r.mean_difference:+.{digits}f}" for r in rows
        ],
        "95 % of Δ": [_ends(row.difference, digits, "+") for row in rows],
        "Δ relative %": ["" if r.relative is None else f"{r.relative:+.1f}" for r in rows],
        source: ["" if r.published is None else f"{r.published:.{their_digits}f}" for r in rows],
        f"{source} Δ": [
            "" if r.published_difference is None else f"{r.published_difference:+.{their_digits}f}"
            for r in rows
        ],
        **{heading: [row.more[heading] for row in rows] for heading in quantity.more},
        "here": [_direction(row.difference) for row in rows],
        f"verdict on the {source}'s Δ": [row.verdict for row in rows],
    }
    return {heading: cells for heading, cells in table.items() if any(cells)}


def by_layer(
    column: Mapping[str, Sequence[dict[str, Any]]], labels: Mapping[str, str], quantity: Quantity
) -> dict[str, list[str]]:
    """The quantity's mean over seeds in every layer, before training and after the last epoch."""
    if quantity.by_layer is None:
        return {}
    shown = {"before training": ("initial", column.get("baseline", ()))}
    shown |= {labels[name]: ("final", column.get(name, ())) for name in labels}
    means: dict[str, dict[str, float]] = {}
    for heading, (when, runs) in shown.items():
        each = [quantity.by_layer(run, when) for run in finished(runs).values()]
        if each:
            means[heading] = {n: fmean(one[n] for one in each) for n in each[0]}
    layers = list(dict.fromkeys(name for found in means.values() for name in found))
    if not layers:
        return {}
    digits = quantity.digits
    return {"layer": [f"`{name}`" for name in layers]} | {
        heading: [f"{found[name]:.{digits}f}" if name in found else "" for name in layers]
        for heading, found in means.items()
    }


def tests(family: Sequence[Test], labels: Mapping[str, str]) -> dict[str, list[str]]:
    """The primary family as a table."""
    return {
        "cell": [test.cell for test in family],
        "method": [labels.get(test.method, test.method) for test in family],
        "pairs": [
            f"{t.seeds} of {len(PRIMARY_SEEDS)}"
            + (f", {t.diverged} diverged" if t.diverged else "")
            for t in family
        ],
        "mean Δ (points)": [f"{t.difference:+.3f}" if t.seeds else "" for t in family],
        "p (exact sign flip)": [_p(test.p) for test in family],
        "p (Holm)": [_p(test.adjusted) for test in family],
    }


def _p(value: float | None) -> str:
    return "not run" if value is None else f"{value:.4f}"


def _seeds(row: Entry) -> str:
    done = row.final.count if row.final else 0
    return f"{done}" + (f", {row.diverged} diverged" if row.diverged else "")


def _ends(interval: Interval | None, digits: int, sign: str = "") -> str:
    if interval is None:
        return ""
    return f"{interval.low:{sign}.{digits}f} to {interval.high:{sign}.{digits}f}"


def _direction(interval: Interval | None) -> str:
    if interval is None:
        return ""
    if interval.high < 0:
        return "lower"
    return "higher" if interval.low > 0 else "no difference seen"


def as_csv(cells: Mapping[str, Mapping[str, Entry]]) -> str:
    """All entries as CSV, numbers unrounded, one line a cell and method."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    groups = {"final": Estimate, "best": Estimate, "initial": Estimate}
    pairs = {"interval": Interval, "difference": Interval}
    head = [f"{g}_{p}" for g, kind in {**groups, **pairs}.items() for p in kind._fields]
    plain = (
        "mean_difference",
        "relative",
        "published",
        "published_difference",
        "diverged",
        "verdict",
    )
    more = list(
        dict.fromkeys(h for column in cells.values() for e in column.values() for h in e.more)
    )
    writer.writerow(["cell", "method", *head, *plain, *more])
    for cell, column in cells.items():
        for method, entry in column.items():
            values: list[Any] = [cell, method]
            for name, kind in {**groups, **pairs}.items():
                values += getattr(entry, name) or [None] * len(kind._fields)
            values += [getattr(entry, name) for name in plain]
            writer.writerow([*values, *(entry.more.get(heading, "") for heading in more)])
    return buffer.getvalue()
