"""What the runs of tables I to III and of figure 6 say on claims that no table has a column for.

Does the error go with the divergence of activations? Does the gain change with the number of
classes? Is the best epoch reached sooner? Does a divergence fall during training, does it depend on
γ, and at which γ is the error least? docs/claims.md quotes the answers. Nothing is trained.

    python experiments/claims.py                      # from what table1.py and figure6.py left
    python experiments/claims.py --runs results       # from the published runs, into results/claims

A few seconds.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tyro
from figure6 import CELL, LABELS, Figure6Config, quantity
from scipy import stats

from synscale_jax.report import tables
from synscale_jax.report.cell_tables import ERROR, divergence
from synscale_jax.report.collect import ResultError, Results, collect, finished
from synscale_jax.report.plots import COLORS, save
from synscale_jax.report.statistics import estimate
from synscale_jax.training.cells import cells_named
from synscale_jax.training.provenance import write_text
from synscale_jax.training.runs import RunError
from synscale_jax.training.table_settings import (
    MLP_CELLS,
    RESNET_CELLS,
    method_labels,
    table_presets,
)

PRESET = "laptop"  # the protocol whose runs are asked
# Asked by cell and method only, where there are runs.
OTHERS = {
    "The same after 200 epochs": ("paper", MLP_CELLS),
    "The same with ResNet32, 20 epochs": (PRESET, RESNET_CELLS),
}
MEASURED = {
    "error": ERROR.of_run,
    "weights": divergence("weights").of_run,
    "activations": divergence("activations").of_run,
}
MARKERS: Mapping[str, str] = dict(zip(MLP_CELLS, "os^", strict=True))

Pairs = list[tuple[dict[str, Any], dict[str, Any]]]  # a method's run and the baseline's, by seed


@dataclasses.dataclass(frozen=True)
class ClaimsConfig:
    """Ask the runs of tables I to III and of figure 6."""

    runs: pathlib.Path = pathlib.Path("runs")
    """Folder that holds tables/laptop and figure6/laptop, and tables/paper if that was run; the
    answers go to its folder claims."""


def main(config: ClaimsConfig) -> None:
    """Write the answers as ``<runs>/claims/README.md`` and ``divergence.png``."""
    labels = method_labels(table_presets()[PRESET].chosen_methods())
    found = collect(config.runs / "tables" / PRESET, MLP_CELLS, list(labels))
    pairs = paired(found)
    if not pairs:
        raise RunError(f"there is no method beside a baseline below {config.runs}: run table1.py.")
    others = {
        title: collect(config.runs / "tables" / preset, cells, list(labels))
        for title, (preset, cells) in OTHERS.items()
    }
    sweep = Figure6Config()
    swept = collect(config.runs / "figure6" / PRESET, [CELL], sweep.all_names())[CELL]
    asked = [
        run
        for results in (found, *others.values(), {CELL: swept})
        for column in results.values()
        for runs in column.values()
        for run in runs
    ]
    parts = [
        "# Claims: what no table has a column for",
        "MLP, 24 epochs where no other length is named, last epoch; differences are to the "
        "baseline on the same seeds.",
        "## By cell and method",
        tables.markdown(by_method(pairs, labels)),
    ]
    for title, results in others.items():
        if other_pairs := paired(results):
            parts += [f"## {title}", tables.markdown(by_method(other_pairs, labels))]
    parts += [
        "## Does the error go with the divergence of activations?",
        correlations(pairs),
    ]
    if finished(swept["baseline"]):
        parts += [
            "## Divergence during training (runs of figure 6)",
            tables.markdown(during_training(swept, sweep)),
            "## Against γ (runs of figure 6)",
            tables.markdown(against_rate(swept, sweep)),
            "Spearman's ρ over the six rates, and the rate of least error, after the last epoch; "
            "one number a seed.",
        ]
    parts.append(tables.origin(*asked))
    text = "\n\n".join(part.strip() for part in parts) + "\n"
    folder = config.runs / "claims"
    write_text(folder / "README.md", text)
    draw(pairs, labels, folder / "divergence.png")
    print(text)


def paired(results: Results) -> dict[tuple[str, str], Pairs]:
    """Cell and method -> its finished runs beside the baseline's of the same seeds."""
    found = {}
    for cell, column in results.items():
        base = finished(column["baseline"])
        for method, runs in column.items():
            both = [(run, base[s]) for s, run in finished(runs).items() if s in base]
            if method != "baseline" and both:
                found[cell, method] = both
    return found


def differences(pairs: Pairs, name: str) -> np.ndarray:
    """What a method adds to the baseline, one number a seed."""
    of_run = MEASURED[name]
    return np.array([of_run(ours) - of_run(base) for ours, base in pairs])


def relative(pairs: Pairs, name: str) -> float:
    """The mean difference in percent of the baseline's mean."""
    base = np.mean([MEASURED[name](base) for _, base in pairs])
    return float(100 * differences(pairs, name).mean() / base)


def by_method(
    pairs: Mapping[tuple[str, str], Pairs], labels: Mapping[str, str]
) -> dict[str, list[str]]:
    """Direction of every difference, seed by seed, and when the best epoch comes."""
    cells = {cell: cells_named([cell])[0].label for cell, _ in pairs}
    columns = {
        "cell": [cells[cell] for cell, _ in pairs],
        "method": [labels[method] for _, method in pairs],
        "seeds": [str(len(both)) for both in pairs.values()],
        "Δ error, % of the baseline's": [f"{relative(p, 'error'):+.1f}" for p in pairs.values()],
    }
    for name in MEASURED:
        heading = "error" if name == "error" else f"divergence of {name}"
        if name != "error":
            columns[heading] = [_change(both, name) for both in pairs.values()]
        columns[f"seeds with a higher {heading}"] = [
            str(int((differences(both, name) > 0).sum())) for both in pairs.values()
        ]
    columns["best epoch on the test set, baseline → method"] = [
        _best_epochs(both) for both in pairs.values()
    ]
    return columns


def _change(pairs: Pairs, name: str) -> str:
    ours, base = (np.mean([MEASURED[name](pair[i]) for pair in pairs]) for i in (0, 1))
    return f"{base:.4f} → {ours:.4f}"


def _best_epochs(pairs: Pairs) -> str:
    """Means, and the difference with its 95 % interval by Student's t."""
    epochs = np.array(
        [[run["best_on_test"]["accuracy"]["epoch"] for run in pair] for pair in pairs]
    )
    gap = estimate((epochs[:, 0] - epochs[:, 1]).tolist())
    text = f"{epochs[:, 1].mean():.1f} → {epochs[:, 0].mean():.1f}"
    if gap.low is None or gap.high is None:
        return text
    return f"{text} (Δ {gap.low:+.1f} to {gap.high:+.1f})"


def correlations(pairs: Mapping[tuple[str, str], Pairs]) -> str:
    """Spearman's ρ of Δ error and Δ divergence over cells and methods."""
    if len(pairs) < 3:
        return f"Not with {len(pairs)} pairs of a cell and a method."
    absolute = [
        [float(differences(both, name).mean()) for both in pairs.values()]
        for name in ("error", "activations")
    ]
    shares = [[relative(p, name) for p in pairs.values()] for name in ("error", "activations")]
    return (
        f"Spearman's ρ over {len(pairs)} pairs of a cell and a method: {_rho(*absolute):+.2f} of "
        f"the differences, {_rho(*shares):+.2f} of the differences in percent of the baseline's. "
        "The claim asks for a ρ near +1. The pairs share cells and baselines, so no p is given.\n\n"
        "![Δ error against Δ divergence](divergence.png)"
    )


def _rho(first: Sequence[float], second: Sequence[float]) -> float:
    return float(np.corrcoef(stats.rankdata(first), stats.rankdata(second))[0, 1])


def during_training(
    results: Mapping[str, list[dict[str, Any]]], sweep: Figure6Config
) -> dict[str, list[str]]:
    """Both divergences after the first epoch and the last, and in how many seeds they fell."""
    synscaw, synscal = sweep.shown
    names = ("baseline", f"synscaw-{synscaw:g}", f"synscal-{synscal:g}")
    rows = [name for name in names if finished(results[name])]
    columns = {"run": rows, "seeds": [str(len(finished(results[name]))) for name in rows]}
    for of in ("weights", "activations"):
        ends = {
            name: np.array(
                [
                    [quantity(run, f"{of}_divergence", epoch) for epoch in (0, -1)]
                    for run in finished(results[name]).values()
                ]
            )
            for name in rows
        }
        columns[f"{of}, first → last epoch"] = [
            "{:.4f} → {:.4f}".format(*ends[name].mean(0)) for name in rows
        ]
        columns[f"{of}: seeds in which it fell"] = [
            str(int((ends[name][:, 1] < ends[name][:, 0]).sum())) for name in rows
        ]
    return columns


def against_rate(
    results: Mapping[str, list[dict[str, Any]]], sweep: Figure6Config
) -> dict[str, list[str]]:
    """For each method, of the seeds that have all rates: ρ with γ, and the γ of least error."""
    rows = []
    for method, label in LABELS.items():
        rates = list(sweep.names(method).values())
        done = [finished(results[name]) for name in sweep.names(method)]
        whole = sorted(set.intersection(*map(set, done)))
        ends = {
            key: [[quantity(of[seed], key) for of in done] for seed in whole]
            for key in ("error", "weights_divergence", "activations_divergence")
        }
        least = [f"{rates[int(np.argmin(errors))]:g}" for errors in ends["error"]]
        trends = [
            ", ".join(f"{_rho(rates, seed):+.2f}" for seed in values) for values in ends.values()
        ]
        rows.append([label, str(len(whole)), ", ".join(least), *trends])
    headings = (
        "method",
        "seeds with all rates",
        "γ of least error",
        "ρ of γ and error",
        "ρ of γ and the weights' divergence",
        "ρ of γ and the activations' divergence",
    )
    return dict(zip(headings, map(list, zip(*rows, strict=True)), strict=True))


def draw(
    pairs: Mapping[tuple[str, str], Pairs], labels: Mapping[str, str], path: pathlib.Path
) -> None:
    """Δ error against Δ divergence of activations, in percent of the baseline's."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.axhline(0, color="#888888", lw=0.8)
    axes.axvline(0, color="#888888", lw=0.8)
    for (cell, method), both in pairs.items():
        at = relative(both, "activations"), relative(both, "error")
        axes.plot(*at, MARKERS[cell], color=COLORS[method], ms=8, mec="#444444", mew=0.6)
    marks = [(labels[method], COLORS[method], "o") for method in dict.fromkeys(m for _, m in pairs)]
    marks += [
        (cells_named([cell])[0].label, "#ffffff", MARKERS[cell])
        for cell in dict.fromkeys(cell for cell, _ in pairs)
    ]
    for label, color, marker in marks:
        axes.plot([], [], marker, color=color, ms=8, mec="#444444", mew=0.6, label=label)
    figure.legend(loc="outside right center", frameon=False, fontsize=9)
    axes.set(
        xlabel="Δ divergence of the test activations (% of the baseline's)",
        ylabel="Δ test error (% of the baseline's)",
        title="Does the error go with the distance from the log-normal?",
    )
    save(figure, path)


if __name__ == "__main__":
    try:
        main(tyro.cli(ClaimsConfig))
    except (RunError, ResultError) as error:
        raise SystemExit(f"error: {error}") from None
