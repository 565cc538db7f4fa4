"""The paper's tables I to III from result JSONs: cells with their spread and the paper's figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from synscale_jax.analysis.significance import (
    Interval,
    bootstrap_interval,
    difference_interval,
    holm,
    prediction_interval,
    sign_flip_test,
    verdict,
)
from synscale_jax.report.collect import ResultError, correctness, finished
from synscale_jax.report.statistics import Estimate, estimate
from synscale_jax.report.tables import error

PRIMARY_CELLS = ("mnist-mlp", "cifar10-mlp", "cifar100-mlp")
PRIMARY_METHODS = ("synscaw", "synscal")
PRIMARY_SEEDS = range(10)
TEST_IMAGES = {"digits": 360}  # where a config does not say; all others have 10 000
RESAMPLES = 4000

Runs = Sequence[dict[str, Any]]


class Entry(NamedTuple):
    """One method in one cell.

    Attributes:
      final: of the quantity after the last epoch, over seeds; None: no seed finished.
      interval: of its mean, over other seeds and test images; None: too few seeds.
      best: of the best epoch on the test set, which is optimistic; None where it has no meaning.
      initial: of the quantity before training; None where it has no meaning.
      difference: to the baseline on the same seeds, with its interval; None: fewer than two seeds.
      mean_difference: its mean, where one seed is enough; None: nothing to compare.
      relative: that difference in percent of the baseline's mean on the same seeds, or None.
      published: the paper's figure, or None.
      published_difference: the paper's difference to its baseline, or None.
      diverged: how many seeds diverged.
      verdict: on the paper's difference, see :func:`synscale_jax.analysis.significance.verdict`.
      more: what else the quantity tells, by heading.
    """

    final: Estimate | None
    interval: Interval | None
    best: Estimate | None
    initial: Estimate | None
    difference: Interval | None
    mean_difference: float | None
    relative: float | None
    published: float | None
    published_difference: float | None
    diverged: int
    verdict: str
    more: Mapping[str, str]


class Quantity(NamedTuple):
    """What a table is about.

    Attributes:
      name: for headings, with its unit.
      digits: decimals in the table.
      of_run: a finished run's value.
      best_of_run: that of its best epoch, or None.
      initial_of_run: that before training, or None.
      interval: finished runs -> interval of the mean, or None: too few.
      difference: finished runs of method and baseline on the same seeds -> its interval, or None.
      more: heading -> finished runs -> what a cell says beside all that.
      direction_only: whether verdicts are on the sign of the paper's difference alone.
      by_layer: a finished run and ``"initial"`` or ``"final"`` -> layer -> value, or None.
    """

    name: str
    digits: int
    of_run: Callable[[Mapping[str, Any]], float]
    best_of_run: Callable[[Mapping[str, Any]], float] | None
    initial_of_run: Callable[[Mapping[str, Any]], float] | None
    interval: Callable[[Runs], Interval | None]
    difference: Callable[[Runs, Runs], Interval | None]
    more: Mapping[str, Callable[[Runs], str]] = MappingProxyType({})
    direction_only: bool = False
    by_layer: Callable[[Mapping[str, Any], str], Mapping[str, float]] | None = None


def entries(
    column: Mapping[str, Runs],
    quantity: Quantity,
    published: Mapping[str, float],
    comparable: bool,
    needs: str = "time",
) -> dict[str, Entry]:
    """Summarise a cell by method.

    Args:
      column: method name -> result JSONs.
      quantity: what of them.
      published: method name -> the paper's figure.
      comparable: whether the runs are as long as the paper's.
      needs: what those that were not run would need.

    Returns:
      Method name -> its entry.
    """
    base = finished(column.get("baseline", ()))
    return {
        name: _entry(name, runs, base, quantity, published, comparable, needs)
        for name, runs in column.items()
    }


def _entry(
    name: str,
    runs: Runs,
    base: Mapping[int, dict[str, Any]],
    quantity: Quantity,
    published: Mapping[str, float],
    comparable: bool,
    needs: str,
) -> Entry:
    done = finished(runs)
    paired = [seed for seed in done if seed in base]
    theirs = published.get(name)
    printed = name != "baseline" and theirs is not None and "baseline" in published
    their_difference = theirs - published["baseline"] if printed and theirs is not None else None
    difference = mean_difference = relative = None
    if name != "baseline" and paired:
        difference = quantity.difference([done[s] for s in paired], [base[s] for s in paired])
        before = fmean(quantity.of_run(base[seed]) for seed in paired)
        mean_difference = fmean(quantity.of_run(done[seed]) for seed in paired) - before
        relative = 100 * mean_difference / before if before else None
    said = ""
    if not runs:
        said = verdict(None, their_difference, needs=needs)
    elif name != "baseline":
        said = verdict(difference, their_difference, rounding=0.01, comparable=comparable)
        if quantity.direction_only:
            said = _direction_verdict(said, difference, their_difference)
    values = list(done.values())

    def over(function: Callable[[Mapping[str, Any]], float] | None) -> Estimate | None:
        return estimate([function(run) for run in values]) if function and values else None

    return Entry(
        over(quantity.of_run),
        quantity.interval(values),
        over(quantity.best_of_run),
        over(quantity.initial_of_run),
        difference,
        mean_difference,
        relative,
        theirs,
        their_difference,
        len(runs) - len(done),
        said,
        {
            heading: function(values) if values else ""
            for heading, function in quantity.more.items()
        },
    )


def _direction_verdict(said: str, ours: Interval | None, theirs: float | None) -> str:
    if said == "not comparable" or ours is None or theirs is None:
        return said
    if ours.low <= 0 <= ours.high or theirs == 0:
        return "cannot tell"
    return "confirms the sign" if (ours.mean > 0) == (theirs > 0) else "contradicts the sign"


def _correct(runs: Runs) -> np.ndarray:
    first = runs[0]
    images = first["config"]["test_examples"] or TEST_IMAGES.get(first["data"]["name"], 10_000)
    return np.stack([correctness(run, images) for run in runs])


def _percent(interval: Interval) -> Interval:
    return Interval(*(100 * value for value in interval))


def _error_interval(runs: Runs) -> Interval | None:
    if len(runs) < 2:
        return None
    return _percent(bootstrap_interval(~_correct(runs), resamples=RESAMPLES))


def _error_difference(ours: Runs, theirs: Runs) -> Interval | None:
    if len(ours) < 2:
        return None
    return _percent(difference_interval(_correct(ours), _correct(theirs), resamples=RESAMPLES))


ERROR = Quantity(
    "test error %",
    2,
    lambda run: error(run["final"]["test_accuracy"]),
    lambda run: error(run["best_on_test"]["accuracy"]["test_accuracy"]),
    None,
    _error_interval,
    _error_difference,
)
"""Test error in percent (table I), intervals by bootstrap over seeds and test images."""


def divergence(of: str) -> Quantity:
    """Tables II and III: pooled Jensen-Shannon divergence in nats, Student's t over seeds.

    Args:
      of: ``"weights"`` or ``"activations"``.
    """

    def value(when: str) -> Callable[[Mapping[str, Any]], float]:
        return lambda run: _number(_pooled(run, when, of)["divergence"])

    def interval(runs: Runs) -> Interval | None:
        found = estimate([value("final")(run) for run in runs]) if runs else None
        return _student(found)

    def difference(ours: Runs, theirs: Runs) -> Interval | None:
        pairs = zip(ours, theirs, strict=True)
        return _student(estimate([value("final")(a) - value("final")(b) for a, b in pairs]))

    def mean_of(name: str) -> Callable[[Runs], str]:
        def mean(runs: Runs) -> str:
            return f"{np.mean([_number(_pooled(run, 'final', of)[name]) for run in runs]):.3f}"

        return mean

    def likelihoods(runs: Runs) -> list[dict[str, float]]:
        found = (_pooled(run, "final", of).get("likelihood") for run in runs)
        return [each for each in found if each]

    def best_fit(runs: Runs) -> str:
        best = {max(each, key=lambda name: each[name]) for each in likelihoods(runs)}
        return " or ".join(sorted(best)).replace("_", "-")

    def other_fits(runs: Runs) -> str:
        each = likelihoods(runs)
        return ", ".join(
            f"{name.replace('_', '-')} {np.mean([e[name] - e['lognormal'] for e in each]):+.3f}"
            for name in (each[0] if each else ())
            if name != "lognormal"
        )

    def by_layer(run: Mapping[str, Any], when: str) -> dict[str, float]:
        return {
            layer: _number(found["divergence"])
            for layer, found in run["measured"][when][of].items()
            if layer != "pooled"
        }

    return Quantity(
        f"divergence of the {of}",
        4,
        value("final"),
        None,
        value("initial"),
        interval,
        difference,
        MappingProxyType(
            {
                "√ divergence": mean_of("distance"),
                "KS distance": mean_of("ks"),
                "zeros": mean_of("zeros"),
                "best fit": best_fit,
                "held-out nats a value over the log-normal": other_fits,
            }
        ),
        direction_only=True,  # the paper names neither bins nor whether it prints the square root
        by_layer=by_layer,
    )


def _pooled(run: Mapping[str, Any], when: str, of: str) -> Mapping[str, Any]:
    if not run.get("measured"):
        raise ResultError(
            f"{run['method']['name']}, seed {run['seed']}, was run without measuring how "
            "log-normal it is: run it again with --restart."
        )
    return run["measured"][when][of]["pooled"]


def _number(value: float | None) -> float:
    """JSON has no nan: what could not be fitted is None there."""
    return float("nan") if value is None else value


def _student(found: Estimate | None) -> Interval | None:
    if found is None or found.low is None or found.high is None or not np.isfinite(found.mean):
        return None
    return Interval(found.mean, found.low, found.high)


class Test(NamedTuple):
    """One hypothesis of the primary family."""

    cell: str
    method: str
    seeds: int  # pairs
    diverged: int  # seeds without a pair, because the method or the baseline diverged
    difference: float  # mean over pairs, in percentage points; nan without any
    p: float | None  # None: fewer than two pairs
    adjusted: float | None  # by Holm over all six, also where some could not be tested


def primary_family(results: Mapping[str, Mapping[str, Runs]]) -> list[Test]:
    """SynScaW and SynScaL against the baseline on the three MLP cells, last epoch, seeds 0 to 9.

    Exact paired sign-flip tests, Holm over the six. The family was fixed before the runs: what is
    missing is there as a hypothesis that cannot be rejected, and further seeds are left out.
    """
    found = [
        _hypothesis(cell, method, results.get(cell, {}))
        for cell in PRIMARY_CELLS
        for method in PRIMARY_METHODS
    ]
    adjusted = holm({f"{t.cell} {t.method}": 1.0 if t.p is None else t.p for t in found})
    return [
        test if test.p is None else test._replace(adjusted=adjusted[f"{test.cell} {test.method}"])
        for test in found
    ]


def _hypothesis(cell: str, method: str, column: Mapping[str, Runs]) -> Test:
    both = [
        [run for run in column.get(name, ()) if run["seed"] in PRIMARY_SEEDS]
        for name in (method, "baseline")
    ]
    done, base = map(finished, both)
    lost = {run["seed"] for runs in both for run in runs if run["status"] == "diverged"}
    gaps = [ERROR.of_run(done[seed]) - ERROR.of_run(base[seed]) for seed in done if seed in base]
    p = sign_flip_test(gaps) if len(gaps) > 1 else None
    mean = float(np.mean(gaps)) if gaps else float("nan")
    return Test(cell, method, len(gaps), len(lost), mean, p, None)


class Prediction(NamedTuple):
    """A published single run beside ours."""

    cell: str
    method: str
    seeds: int
    interval: Interval | None  # for one new run's best epoch; None: fewer than two seeds
    published: float


def predictions(
    results: Mapping[str, Mapping[str, Runs]], published: Mapping[str, Mapping[str, float]]
) -> list[Prediction]:
    """Where one new run's best error would lie, beside a published single run's."""
    found = []
    for cell, column in results.items():
        for method, figure in published.get(cell, {}).items():
            done = finished(column.get(method, ())).values()
            values = [error(run["best_on_test"]["accuracy"]["test_accuracy"]) for run in done]
            interval = prediction_interval(values) if len(values) > 1 else None
            found.append(Prediction(cell, method, len(values), interval, figure))
    return found
