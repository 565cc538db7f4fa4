"""Figure 6 of the paper: error and distance from the log-normal, in training and against γ.

The paper's two-layer MLP on MNIST, ten runs a curve: error and the Jensen-Shannon divergence of
weights and test activations during training (left) and at the end against the scaling rate
(right), SynScaL at the top, SynScaW at the bottom (its caption says so; its panel letters have it
the other way round). It reports the least error at γ = 0.085 (SynScaW) and 0.74 (SynScaL).

    python experiments/figure6.py                  # 24 epochs, 5 seeds, 6 rates a method
    python experiments/figure6.py --draw           # only the figure of what is there

Per-example SynScaL is a confidence penalty with the square in place of the entropy, so a second
figure sets error against strength for both. 90 runs of two to seven minutes on a core, by the
machine; start it twice to use two cores.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from synscale_jax.report import tables
from synscale_jax.report.collect import collect, finished
from synscale_jax.report.plots import save
from synscale_jax.report.statistics import estimate, spread
from synscale_jax.training import methods
from synscale_jax.training.cells import cells_named
from synscale_jax.training.command_line import check_seeds, run_experiment
from synscale_jax.training.measures import DIVERGENCE_CURVES
from synscale_jax.training.methods import Method
from synscale_jax.training.provenance import write_text
from synscale_jax.training.runs import RunError
from synscale_jax.training.sweep import run_cells
from synscale_jax.training.table_settings import PROTOCOLS

CELL = "mnist-mlp"
LABELS = {"synscal": "SynScaL", "synscaw": "SynScaW"}
STRENGTHS = {"synscaw": "γ", "synscal": "γ", "confidence_penalty": "β"}
PUBLISHED_BEST = {"synscal": 0.74, "synscaw": 0.085}
QUANTITIES = {  # name in a result -> label, colour
    "error": ("test error (%)", "#000000"),
    "weights_divergence": ("weights", "#0072B2"),
    "activations_divergence": ("test activations", "#D55E00"),
}
NOTE = (
    "\nMean ± standard deviation over seeds that did not diverge; Δ with 95 % by Student's t over "
    "the same seeds, not corrected for the number of rates. The best epoch on the test set is "
    "optimistic."
)


@dataclasses.dataclass(frozen=True)
class Figure6Config:
    """Train the paper's MLP on MNIST at several scaling rates and draw figure 6."""

    preset: Literal["smoke", "laptop"] = "laptop"
    """smoke: 2 epochs of 1000 images; laptop: 24 epochs of all."""
    synscaw_rates: tuple[float, ...] = (0.001, 0.01, 0.03, 0.085, 0.2, 0.5)
    """Scaling rates γ of SynScaW."""
    synscal_rates: tuple[float, ...] = (0.1, 0.3, 0.74, 1.0, 2.0, 5.0)
    """Scaling rates γ of SynScaL."""
    penalties: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0, 2.0)
    """Strengths β of the confidence penalty."""
    shown: tuple[float, float] = (0.085, 0.74)
    """Rates of SynScaW and SynScaL whose curves are drawn over the epochs."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Every rate is trained with each of these seeds."""
    output: pathlib.Path = pathlib.Path("runs/figure6")
    """Folder of runs, table and figure."""
    draw: bool = False
    """Only draw what is there."""
    restart: bool = False
    """Begin anew; earlier runs are kept aside."""

    def __post_init__(self) -> None:
        check_seeds(self.seeds)
        for rate, rates in zip(self.shown, (self.synscaw_rates, self.synscal_rates), strict=True):
            if rate not in rates:
                raise ValueError(f"shown={self.shown}: {rate} is none of the rates {rates}.")

    def names(self, method: str) -> dict[str, float]:
        """Name of a run -> its rate or strength."""
        rates = {
            "synscaw": self.synscaw_rates,
            "synscal": self.synscal_rates,
            "confidence_penalty": self.penalties,
        }
        return {f"{method}-{rate:g}": rate for rate in rates[method]}

    def all_names(self) -> list[str]:
        """Every run that the figures need, without seeds."""
        return ["baseline", *(name for method in STRENGTHS for name in self.names(method))]


def main(config: Figure6Config) -> None:
    """Train what is missing, then draw."""
    names = config.all_names()
    folder = config.output / config.preset
    if not config.draw:
        run_cells(
            folder,
            cells_named([CELL]),
            [method_named(name) for name in names],
            config.seeds,
            lambda cell: PROTOCOLS[config.preset][cell.network],
            measures=DIVERGENCE_CURVES,
            restart=config.restart,
        )
    results = collect(folder, [CELL], names)[CELL]
    if not finished(results["baseline"]):
        raise RunError(f"there is no finished baseline below {folder}: leave out --draw to train.")
    runs = [run for name in names for run in results[name]]
    draw(results, config, folder / "figure6.png")
    draw_strengths(results, config, folder / "strength.png")
    text = f"# Figure 6: error and divergence against γ\n\n{table(results, config)}\n"
    # What the runs share at every rate.
    readings = {tables.readings_of_synscaw([run]).partition(", ")[2] for run in runs} - {""}
    scaled = "".join(f"SynScaW: {reading}. " for reading in sorted(readings))
    write_text(folder / "figure6.md", f"{text}\n{scaled}{tables.origin(*runs)}\n")
    print(text)


def method_named(name: str) -> Method:
    """``"synscaw-0.01"`` -> that method, called so in files."""
    kind, _, rate = name.partition("-")
    made = getattr(methods, kind)(*([float(rate)] if rate else []))
    return dataclasses.replace(made, name=name, label=name)


def quantity(run: Mapping[str, Any], name: str, epoch: int = -1) -> float:
    """A run's error in percent, or a divergence, after an epoch."""
    row = run["history"][epoch]
    if name == "error":
        return tables.error(row["test_accuracy"])
    return float("nan") if row[name] is None else row[name]  # JSON has no nan


def table(results: Mapping[str, list[dict[str, Any]]], config: Figure6Config) -> str:
    """Each rate's end in Markdown: over seeds, and against the baseline on the same seeds."""
    rows = {name: results[name] for name in config.all_names()}
    columns = tables.columns(tables.method_rows(rows, {name: name for name in rows}, {}), "test")
    columns.pop("minutes a run", None)
    for name, (label, _) in QUANTITIES.items():
        if name != "error":
            columns[f"divergence of {label}"] = [
                spread([quantity(run, name) for run in finished(runs).values()], 4)
                for runs in rows.values()
            ]
    return "\n".join([tables.markdown(columns), *(best(results, config, m) for m in LABELS), NOTE])


def best(results: Mapping[str, list[dict[str, Any]]], config: Figure6Config, method: str) -> str:
    """Where the least mean error is, in one sentence; chosen on the test set, as in the paper."""
    ends = {
        rate: estimate([quantity(run, "error") for run in runs.values()]).mean
        for name, rate in config.names(method).items()
        if (runs := finished(results[name]))
    }
    if not ends:
        return f"- {LABELS[method]}: no run has finished."
    rate, names = min(ends, key=ends.__getitem__), config.names(method)
    runs = [run for name in names for run in results[name]]
    lost = len(runs) - sum(len(finished(results[name])) for name in names)
    return (
        f"- {LABELS[method]}: least mean error {ends[rate]:.2f} % at γ = {rate:g} (paper: "
        f"{PUBLISHED_BEST[method]:g}), of {len(ends)} rates out of {len(names)}, "
        f"seeds there: {len(finished(results[f'{method}-{rate:g}']))}"
        + (f"; {lost} of {len(runs)} runs diverged and are left out." if lost else ".")
    )


def draw(
    results: Mapping[str, list[dict[str, Any]]], config: Figure6Config, path: pathlib.Path
) -> None:
    """The paper's four panels."""
    import matplotlib.lines
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7), layout="constrained")
    panels = figure.subplots(2, 2)
    for row, method in enumerate(LABELS):
        rate = config.shown[0 if method == "synscaw" else 1]
        over_epochs(
            panels[row][0], results, f"{method}-{rate:g}", f"{LABELS[method]}, γ = {rate:g}"
        )
        over_rates(panels[row][1], results, config.names(method), method)
    lines = [
        matplotlib.lines.Line2D([], [], color=color, label=label)
        for label, color in QUANTITIES.values()
    ]
    figure.legend(handles=lines, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    figure.suptitle(
        "Test error (black, left) and Jensen-Shannon divergence from the log-normal;\n"
        "bands: lowest to highest seed, bars: standard deviation over seeds",
        fontsize=11,
    )
    save(figure, path)


def over_epochs(
    axes: Any, results: Mapping[str, list[dict[str, Any]]], name: str, title: str
) -> None:
    """Error and divergences during training, the baseline dashed."""
    right = axes.twinx()
    for runs, style in ((results[name], "-"), (results["baseline"], "--")):
        done = list(finished(runs).values())
        for key, (_, color) in QUANTITIES.items():
            values = [
                [quantity(run, key, epoch) for epoch in range(len(run["history"]))] for run in done
            ]
            if not values:
                continue
            where = axes if key == "error" else right
            epochs, mean = np.arange(1, len(values[0]) + 1), np.mean(values, 0)
            where.plot(epochs, mean, style, color=color, lw=1.5)
            if style == "-":
                where.fill_between(
                    epochs, np.min(values, 0), np.max(values, 0), color=color, alpha=0.15, lw=0
                )
    state = "" if finished(results[name]) else ": not run"
    axes.set(xlabel="epoch", ylabel="test error (%)", title=f"{title}{state} (baseline dashed)")
    right.set_ylabel("divergence (nats)")


def over_rates(
    axes: Any, results: Mapping[str, list[dict[str, Any]]], names: Mapping[str, float], method: str
) -> None:
    """Error and divergences at the end, against γ; what the baseline has is a dotted line."""
    right = axes.twinx()
    for key, (_, color) in QUANTITIES.items():
        where = axes if key == "error" else right
        where.errorbar(
            *_ends(results, names, key), color=color, marker="o", ms=4, capsize=2, lw=1.5
        )
        plain = [quantity(run, key) for run in finished(results["baseline"]).values()]
        where.axhline(np.mean(plain), color=color, ls=":", lw=1)
        where.autoscale()  # axhline alone puts the limit on its line
    axes.axvline(PUBLISHED_BEST[method], color="#888888", lw=0.8)
    axes.set_xscale("log")
    axes.set(xlabel="scaling rate γ (grey: the paper's best)", ylabel="test error (%)")
    axes.set_title(f"{LABELS[method]} after the last epoch (baseline dotted)")
    right.set_ylabel("divergence (nats)")


def _ends(
    results: Mapping[str, list[dict[str, Any]]], names: Mapping[str, float], key: str
) -> tuple[list[float], list[float], list[float]]:
    """Rates that have finished, means and standard deviations over seeds after the last epoch."""
    ends = {
        rate: estimate([quantity(run, key) for run in done.values()])
        for name, rate in names.items()
        if (done := finished(results[name]))
    }
    spreads = [found.deviation or 0.0 for found in ends.values()]
    return list(ends), [found.mean for found in ends.values()], spreads


def draw_strengths(
    results: Mapping[str, list[dict[str, Any]]], config: Figure6Config, path: pathlib.Path
) -> None:
    """Error against strength, SynScaL and the confidence penalty on one axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.subplots()
    for method, label, color in (
        ("synscal", "SynScaL, strength γ", "#D55E00"),
        ("confidence_penalty", "confidence penalty, strength β", "#009E73"),
    ):
        names = config.names(method)
        seeds = sorted({len(finished(results[name])) for name in names} - {0})
        axes.errorbar(
            *_ends(results, names, "error"),
            color=color,
            marker="o",
            ms=4,
            capsize=2,
            lw=1.5,
            label=f"{label}; seeds: {' or '.join(map(str, seeds))}",
        )
    plain = [quantity(run, "error") for run in finished(results["baseline"]).values()]
    axes.axhline(float(np.mean(plain)), color="#000000", ls=":", lw=1, label="baseline")
    axes.set_xscale("log")
    axes.set(
        xlabel="strength",
        ylabel="test error (%)",
        title="Two confidence penalties, ± s.d. over seeds",
    )
    figure.legend(loc="outside lower center", frameon=False, fontsize=9)
    save(figure, path)


if __name__ == "__main__":
    presets = {name: Figure6Config(preset=name) for name in ("smoke", "laptop")}
    run_experiment(main, Figure6Config, presets)
