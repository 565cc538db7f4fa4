"""Comparison tables of methods, from result JSONs, in Markdown, CSV and plain text."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from synscale_jax.report.statistics import Estimate, estimate, spread


class MethodRow(NamedTuple):
    """One method of a comparison, over its seeds; errors and differences in percentage points."""

    label: str
    final: Estimate | None  # None: no seed finished
    best: Estimate | None
    difference: Estimate | None  # to the baseline on the same seeds; None: nothing to compare
    paper: float | None
    paper_difference: float | None
    minutes: float | None
    note: str


def error(accuracy: float) -> float:
    """Classification error in percent."""
    return 100 * (1 - accuracy)


def method_rows(
    results: Mapping[str, Sequence[Mapping[str, Any]]],
    labels: Mapping[str, str],
    paper: Mapping[str, float],
) -> list[MethodRow]:
    """Summarise results by method.

    Args:
      results: method name -> result JSONs, one a seed.
      labels: method name -> what the table calls it.
      paper: method name -> the paper's error in percent, where it has one.

    Returns:
      One row a method, in the order of ``results``. The difference pairs runs of equal seed.
    """
    pairs = set(paper) - {"baseline"} if "baseline" in paper else set()
    base = {r["seed"]: r for r in results.get("baseline", ()) if r["status"] == "finished"}
    rows = []
    for name, runs in results.items():
        done = [run for run in runs if run["status"] == "finished"]
        lost = [run for run in runs if run["status"] == "diverged"]
        paired = [run for run in done if run["seed"] in base]
        compare = name != "baseline" and paired
        rows.append(
            MethodRow(
                labels[name],
                estimate([_final_error(run) for run in done]) if done else None,
                estimate([_best_error(run) for run in done]) if done else None,
                estimate([_final_error(r) - _final_error(base[r["seed"]]) for r in paired])
                if compare
                else None,
                paper.get(name),
                paper[name] - paper["baseline"] if name in pairs else None,
                sum(run["wall_seconds"] for run in done) / len(done) / 60 if done else None,
                f"{len(lost)} of {len(runs)} diverged" if lost else "",
            )
        )
    return rows


def _final_error(run: Mapping[str, Any]) -> float:
    return error(run["final"]["test_accuracy"])


def _best_error(run: Mapping[str, Any]) -> float:
    best = run.get("best_on_validation") or run["best_on_test"]
    return error(best["accuracy"]["test_accuracy"])


def columns(rows: Sequence[MethodRow], chosen_on: str) -> dict[str, list[str]]:
    """The table as text, by column; columns that no row fills are left out.

    Args:
      rows: from :func:`method_rows`.
      chosen_on: the split that the best epoch was chosen on, ``"validation"`` or ``"test"``.

    Returns:
      Heading -> one cell a row.
    """
    table = {
        "method": [row.label for row in rows],
        "seeds": [_seeds(row) for row in rows],
        "test error %, last epoch": [_spread(row.final) for row in rows],
        f"test error %, best_on_{chosen_on}": [_spread(row.best) for row in rows],
        "Δ to baseline, last epoch": [_interval(row) for row in rows],
        "published error %": ["" if r.paper is None else f"{r.paper:.2f}" for r in rows],
        "published Δ": [
            "" if r.paper_difference is None else f"{r.paper_difference:+.2f}" for r in rows
        ],
        "minutes a run": ["" if r.minutes is None else f"{r.minutes:.1f}" for r in rows],
    }
    return {heading: column for heading, column in table.items() if any(column)}


def markdown(columns: Mapping[str, Sequence[str]]) -> str:
    """The table in Markdown."""
    lines = [list(columns), ["---"] * len(columns), *zip(*columns.values(), strict=True)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def latex(columns: Mapping[str, Sequence[str]]) -> str:
    """The table as a LaTeX ``tabular`` with booktabs rules."""
    lines = [list(columns), *zip(*columns.values(), strict=True)]
    rows = [" & ".join(map(_escaped, line)) + r" \\" + "\n" for line in lines]
    head = rf"\begin{{tabular}}{{{'l' * len(columns)}}}"
    return (
        head
        + "\n\\toprule\n"
        + rows[0]
        + "\\midrule\n"
        + "".join(rows[1:])
        + "\\bottomrule\n\\end{tabular}\n"
    )


_LATEX = str.maketrans(
    {
        "%": r"\%",
        "_": r"\_",
        "&": r"\&",
        "#": r"\#",
        "±": r"$\pm$",
        "Δ": r"$\Delta$",
        "×": r"$\times$",
        "−": "$-$",
        "γ": r"$\gamma$",
        "β": r"$\beta$",
    }
)


def _escaped(text: str) -> str:
    return text.translate(_LATEX)


def readings_of_synscaw(runs: Iterable[Mapping[str, Any]]) -> str:
    """How the runs among these that scale weights did so, for a caption; each reading once."""
    found = {
        f"; SynScaW γ = {method['scaling_rate']:g}, every_k = {method['every_k']}"
        + (", norms restored" if method["restore_norm"] else "")
        + (", output layer scaled" if method["scale_output"] else ", output layer left out")
        for method in (run["method"] for run in runs)
        if "every_k" in method
    }
    return "".join(sorted(found))


def origin(*runs: Mapping[str, Any]) -> str:
    """Versions, device, convolution path, commit and command of runs, in one line.

    Where runs differ in one of them, all that there were are named; of many commands (processes
    that shared the work) the first.
    """
    versions = _each(
        ", ".join(f"{name} {version}" for name, version in run["versions"].items()) for run in runs
    )
    devices = _each(f"{run['device']}, {run['cpu']}" for run in runs)
    convolutions = _each(run["convolution"] for run in runs)
    commits = _each(run["commit"] or "unknown" for run in runs)
    commit = "" if commits == "unknown" else f"; commit {commits}"
    commands = _commands([run["command"] for run in runs])
    return f"{versions}; {devices}; convolutions {convolutions}{commit}. {commands}"


def _each(texts: Iterable[str]) -> str:
    return " or ".join(dict.fromkeys(texts))


def _commands(typed: Sequence[str]) -> str:
    """The commands; of more than three the first and how many others there were."""
    commands = [f"`{command}`" for command in dict.fromkeys(typed)]
    return (
        " or ".join(commands)
        if len(commands) <= 3
        else f"{commands[0]} and {len(commands) - 1} like it"
    )


def as_csv(rows: Sequence[MethodRow]) -> str:
    """The table as CSV, numbers unrounded, one column each for mean, spread and interval ends."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    parts = ("mean", "deviation", "low", "high", "count")
    groups = ("final", "best", "difference")
    writer.writerow(
        ["method", *(f"{g}_{p}" for g in groups for p in parts), "paper", "paper_difference",
         "minutes", "note"]
    )  # fmt: skip
    for row in rows:
        values = [row.label]
        for group in groups:
            values += getattr(row, group) or [""] * len(parts)
        writer.writerow([*values, row.paper, row.paper_difference, row.minutes, row.note])
    return buffer.getvalue()


def plain(columns: Mapping[str, Sequence[str]]) -> str:
    """The table for a terminal, columns aligned."""
    lines = [list(columns), *zip(*columns.values(), strict=True)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        + "\n"
        for line in lines
    )


def _seeds(row: MethodRow) -> str:
    return f"{row.final.count if row.final else 0}" + (f" ({row.note})" if row.note else "")


def _spread(value: Estimate | None) -> str:
    return spread(value) or "none finished"


def _interval(row: MethodRow) -> str:
    value = row.difference
    if value is None:
        return ""
    ends = "" if value.low is None else f" ({value.low:+.2f} to {value.high:+.2f})"
    # The other seeds have no partner: one of the two runs diverged or was not made.
    pairs = (
        ""
        if row.final and row.final.count == value.count
        else f", {value.count} seed{'s' * (value.count > 1)}"
    )
    return f"{value.mean:+.2f}{ends}{pairs}"
