"""Figures of noise_prune_report.py."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from synscale_jax.report.plots import save

Runs = list[dict[str, Any]]
COLORS = {
    "noise": "#D55E00", "weight": "#0072B2", "uniform": "#999999",
    "noise, largest": "#D55E00", "noise, sampled": "#E69F00", "noise, rescaled": "#CC79A7",
    "noise, rescaled up to 2": "#009E73", "magnitude": "#0072B2", "random": "#999999",
}  # fmt: skip


def canvas(rows: int, columns: int) -> tuple[Any, Any]:
    """An empty figure."""
    from matplotlib.figure import Figure  # slow to import

    figure = Figure(figsize=(4.6 * columns, 3.4 * rows), layout="constrained")
    axes = figure.subplots(rows, columns)
    for panel in np.reshape(axes, -1):
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save_as(figure: Any, root: pathlib.Path, name: str) -> str:
    """Write a PNG; returns its name, for a link."""
    save(figure, root / f"{name}.png")
    return f"{name}.png"


def band(panel: Any, x: Sequence[float], values: Sequence[Sequence[float]], name: str) -> None:
    """Means with the range over seeds."""
    color = COLORS[name]
    panel.plot(x, [np.mean(each) for each in values], "o-", ms=3, color=color, label=name)
    low, high = [min(each) for each in values], [max(each) for each in values]
    panel.fill_between(x, low, high, color=color, alpha=0.15, lw=0)


def density_axis(panel: Any, densities: Sequence[float]) -> None:
    """The densities measured as ticks, and no others."""
    panel.set_xticks(densities, [f"{density:g}" for density in densities])
    panel.set_xticks([], minor=True)
    panel.set_xlabel("density")


def dynamics_figure(runs: Runs, root: pathlib.Path, preset: str) -> str:
    """Every run of the first network, mean and deviation."""
    figure, axes = canvas(1, 2)
    dynamics = runs[0]["dynamics"]
    times = np.array(dynamics["times"])
    for panel, kind in zip(axes, ("random state", "slow modes"), strict=True):
        for rule in ("weight", "noise"):
            each, color = dynamics[kind][rule], COLORS[rule]
            for run in each.get("runs", []):
                panel.plot(times[::4], run, color=color, lw=0.4, alpha=0.35)
            mean, deviation = np.array(each["mean"]), np.array(each["deviation"])
            panel.plot(times, mean, color=color, label=f"{rule}, mean ± deviation")
            panel.fill_between(times, mean - deviation, mean + deviation, color=color, alpha=0.2)
        panel.set(xlabel="time", title=f"from {'random states' if 'random' in kind else kind}")
        panel.set_ylim(bottom=0)
    axes[0].set_ylabel("relative error of the state")
    axes[0].legend(frameon=False)
    return save_as(figure, root, f"{preset}_dynamics")


def spectrum_figure(run: dict[str, Any], root: pathlib.Path, preset: str) -> str:
    """Eigenvalues before and after, and how far they moved."""
    figure, axes = canvas(1, 2)
    whole = np.array(run["scatter"]["original"])
    errors = {}
    for rule in ("uniform", "weight", "noise"):
        pruned = np.array(run["scatter"][rule])
        errors[rule] = np.abs(pruned / whole - 1)
        axes[0].plot(-whole, -pruned, ".", ms=3, color=COLORS[rule], label=rule, alpha=0.6)
    axes[0].plot(-whole, -whole, color="black", lw=0.8)
    axes[0].set(xscale="log", yscale="log", xlabel="−λ of the whole network", ylabel="−λ pruned")
    axes[0].set_ylim(bottom=0.3 * -float(whole.max()))  # lost modes, at zero, fall out
    axes[0].legend(frameon=False)
    order = ("noise", "weight", "uniform")
    boxes = axes[1].boxplot(
        [errors[rule] for rule in order], tick_labels=order, showfliers=True, patch_artist=True,
        flierprops={"marker": ".", "markersize": 2}, medianprops={"color": "black"},
    )  # fmt: skip
    for box, rule in zip(boxes["boxes"], order, strict=True):
        box.set(facecolor=COLORS[rule], alpha=0.6)
    axes[1].set(yscale="log", ylabel="|eigenvalue error|", ylim=(1e-3, None))
    return save_as(figure, root, f"{preset}_spectrum")
