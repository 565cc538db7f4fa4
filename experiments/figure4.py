"""Figure 4 of the paper: what one scaling step does to the information of a sigmoid neuron.

Equation 25 with ẑ free (left), with ẑ tied to w (middle), and the exact change of I(Z; X) for a
binary z and x ~ U(-1, 1) by quadrature (right). Expected: the left panel has the sign of ẑ for
every w; the middle one the sign opposite to w, as the paper describes; the right one the sign of
w·ẑ, so that along the tied ẑ the information falls for either sign of w.

    python experiments/figure4.py
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from synscale_jax.analysis.information import (
    delta_information,
    exact_delta_information,
    tied_gap,
)
from synscale_jax.report import tables
from synscale_jax.report.plots import save
from synscale_jax.training.command_line import check_numbers, run_experiment
from synscale_jax.training.provenance import provenance, write_json, write_text


@dataclasses.dataclass(frozen=True)
class Figure4Config:
    """Draw figure 4 three times: as equation 25, with ẑ tied to w, and exactly."""

    preset: Literal["laptop", "smoke"] = "laptop"
    """smoke: a coarse grid."""
    scaling_rate: float = 1.0
    """γ of the maps; the paper prints none, and its colours from -1 to 1 need about this one."""
    curve_rates: tuple[float, ...] = (0.01, 0.1, 1.0, 3.0)
    """γ of the curves and of the table."""
    largest_weight: float = 3.0
    """Maps and curves reach from minus to plus this."""
    points: int = 121
    """Of the grid, on each axis."""
    output: pathlib.Path = pathlib.Path("runs/information")
    """Folder of figure, table and numbers."""

    def __post_init__(self) -> None:
        check_numbers(self, scaling_rate=0, curve_rates=0)
        if self.points < 3 or not self.largest_weight > 0:
            raise ValueError(
                f"points={self.points}, largest_weight={self.largest_weight} span no grid: use 3 "
                "or more, and a number above 0."
            )


def main(config: Figure4Config) -> None:
    """Compute, draw and write."""
    draw(config, config.output / "figure4.png")
    rows = [summary(rate, config) for rate in config.curve_rates]
    origin = provenance()
    write_json(config.output / "figure4.json", {"rows": rows, **origin})
    text = f"# Figure 4: ΔI of one neuron\n\n{table(rows, config)}"
    write_text(config.output / "figure4.md", text)
    print(text)


def summary(scaling_rate: float, config: Figure4Config) -> dict[str, float]:
    """Extremes and mean along the tied ẑ: equation 25 for either sign of w, and exactly."""
    w = np.linspace(0, config.largest_weight, config.points)
    up, down = (
        delta_information(sign * w, tied_gap(sign * w), scaling_rate=scaling_rate)
        for sign in (1, -1)
    )
    exact = exact_delta_information(w, tied_gap(w), scaling_rate=scaling_rate)
    return {
        "scaling_rate": scaling_rate,
        "least_above": float(up[1:].min()),
        "largest_below": float(down[1:].max()),
        "mean": float(np.trapezoid((up + down) / 2, w) / config.largest_weight),
        "exact_least": float(exact[1:].min()),
        "exact_largest": float(exact[1:].max()),
    }


def table(rows: Sequence[dict[str, float]], config: Figure4Config) -> str:
    """The summaries in Markdown."""
    headings = {
        "scaling_rate": "γ",
        "least_above": "eq. 25, tied: least, w > 0",
        "largest_below": "largest, w < 0",
        "mean": "mean over both",
        "exact_least": "exact, tied: least",
        "exact_largest": "largest",
    }
    columns = {
        heading: [f"{row[key]:g}" if key == "scaling_rate" else f"{row[key]:+.4f}" for row in rows]
        for key, heading in headings.items()
    }
    return (
        tables.markdown(columns)
        + f"\nBits, for 0 < |w| ≤ {config.largest_weight:g}, b = 0, p(x|z) = 0.5. Exact: binary z, "
        "x ~ U(−1, 1), the same for w and −w.\n"
    )


def draw(config: Figure4Config, path: pathlib.Path) -> Any:
    """The three panels; returns the figure."""
    from matplotlib.figure import Figure

    w = np.linspace(-config.largest_weight, config.largest_weight, config.points)
    gaps = np.linspace(-0.5, 0.5, config.points)
    grid = np.meshgrid(w, gaps)
    figure = Figure(figsize=(13, 4), layout="constrained")
    free, tied, exact = figure.subplots(1, 3)
    for axes, function, title in (
        (free, delta_information, "eq. 25, ẑ free"),
        (exact, exact_delta_information, "exact ΔI by quadrature, ẑ free"),
    ):
        values = function(*grid, scaling_rate=config.scaling_rate)
        limit = float(np.abs(values).max())
        mesh = axes.pcolormesh(w, gaps, values, cmap="RdBu_r", vmin=-limit, vmax=limit)
        figure.colorbar(mesh, ax=axes, label="ΔI (bits)")
        axes.plot(w, tied_gap(w), "k--", lw=1, label="tied: ẑ = 0.5 − σ(0.5 w)")
        axes.legend(loc="lower left", fontsize=8, frameon=False)
        axes.set(xlabel="synaptic strength w", ylabel="ẑ")
        axes.set_title(f"{title}, γ = {config.scaling_rate:g}")
    for rate in config.curve_rates:
        tied.plot(w, delta_information(w, tied_gap(w), scaling_rate=rate), label=f"γ = {rate:g}")
    tied.axhline(0, color="#888888", lw=0.8)
    tied.set_yscale("symlog", linthresh=1e-3)
    tied.set(xlabel="synaptic strength w", ylabel="ΔI (bits)", title="eq. 25, ẑ tied to w")
    tied.legend(frameon=False, fontsize=9)
    save(figure, path)
    return figure


if __name__ == "__main__":
    presets = {
        "smoke": Figure4Config(preset="smoke", points=41),
        "laptop": Figure4Config(),
    }
    run_experiment(main, Figure4Config, presets)
