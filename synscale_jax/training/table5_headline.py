"""Table V's tests over data sets, its headline: Friedman, and Wilcoxon with Holm."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from synscale_jax.analysis.significance import friedman, holm, wilcoxon
from synscale_jax.report import tables
from synscale_jax.report.collect import Results
from synscale_jax.training.table5 import ROWS
from synscale_jax.training.table5_report import (
    HEADLINE,
    LABELS,
    READING_LABELS,
    TIE,
    figures,
    printed_p,
)

PARKINSON = ("parkinson_motor", "parkinson_total")


def headline(results: Results, reading: str = HEADLINE) -> str:
    """Friedman's and Wilcoxon's tests over data sets, Holm over the methods, in Markdown.

    A data set's figure is the mean over seeds and folds of the error in percent, or of the mean
    absolute error in percent of the range. Parkinson's two targets are one data set, their mean.
    Variants of a set that are ours are left out.
    """
    scores = data_set_scores(results, reading)
    text = f"Reading: {READING_LABELS[reading]}.\n\n"
    full = [m for m in LABELS if m != "confidence_penalty"]
    for heading, compared in (("all data sets", full), ("classification", list(LABELS))):
        blocks = [
            [line[m] for m in compared]
            for line in scores.values()
            if all(m in line for m in compared)
        ]
        if len(blocks) < 2:
            text += f"Friedman, {heading}: fewer than two data sets have them all, no test.\n\n"
            continue
        outcome = friedman(np.array(blocks))
        named = ", ".join(LABELS[m] for m in compared)
        statistic = "" if outcome.statistic is None else f"χ² {outcome.statistic:.2f}, "
        text += (
            f"Friedman, {heading} ({len(blocks)}; {named}): {statistic}p {printed_p(outcome)}.\n\n"
        )
    lacking = [
        f"{LABELS[method]} on {name}"
        for name, line in scores.items()
        for method in full
        if method not in line
    ]
    text += f"Not in the tests, having no figure: {', '.join(lacking)}.\n\n" if lacking else ""
    return text + tables.markdown(_wilcoxon_rows(scores))


def data_set_scores(results: Results, reading: str) -> dict[str, dict[str, float]]:
    """Data set -> method -> mean points, with Parkinson's targets as one.

    Within a row the means are over the seeds that all its methods have.
    """
    scores: dict[str, dict[str, list[float]]] = {}
    for name, column in results.items():
        if not ROWS[name].published:
            continue
        found = {method: figures(ROWS[name], runs, reading) for method, runs in column.items()}
        there = {method: ours for method, ours in found.items() if ours is not None}
        both = set.intersection(*(set(ours.seeds) for ours in there.values())) if there else set()
        line = scores.setdefault("parkinson" if name in PARKINSON else name, {})
        for method, ours in there.items() if both else ():
            line.setdefault(method, []).append(
                float(ours.points[[seed in both for seed in ours.seeds]].mean())
            )
    means = {
        name: {
            method: round(float(np.mean(values)), TIE)
            for method, values in line.items()
            # One target alone is not the data set.
            if name != "parkinson" or len(values) == len(PARKINSON)
        }
        for name, line in scores.items()
    }
    return {name: line for name, line in means.items() if line}


def _wilcoxon_rows(scores: Mapping[str, Mapping[str, float]]) -> dict[str, list[str]]:
    gaps = {
        method: [
            line[method] - line["baseline"]
            for line in scores.values()
            if method in line and "baseline" in line
        ]
        for method in LABELS
        if method != "baseline"
    }
    gaps = {method: values for method, values in gaps.items() if values}
    outcomes = {method: wilcoxon(values) for method, values in gaps.items()}
    tested = {m: found.p_value for m, found in outcomes.items() if found.p_value is not None}
    adjusted = holm(tested)
    return {
        "method": [LABELS[method] for method in gaps],
        "data sets": [str(len(values)) for values in gaps.values()],
        "better": [str(sum(v < 0 for v in values)) for values in gaps.values()],
        "worse": [str(sum(v > 0 for v in values)) for values in gaps.values()],
        "median Δ, points": [f"{np.median(values):+z.3f}" for values in gaps.values()],
        "p, Wilcoxon": [printed_p(outcomes[method]) for method in gaps],
        "p, Holm": [f"{adjusted[m]:.3f}" if m in adjusted else "no test" for m in gaps],
    }
