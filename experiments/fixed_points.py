"""Section IV-A of the paper: where the scaling rule rests and when it diverges, for one weight.

The continuous rule dw/dt = γ ẑ(w) w² of a ReLU neuron with one input of mean x̄, for three gaps ẑ:
constant (the neuron's other inputs set its activity), a constant target 0.25 − w x̄, and the
text's target, which grows with the weight itself: E relu(w u) = |w|/4 for u ~ U(-1, 1). Expected:
the first diverges at 1/(γ ẑ w₀), the second settles at 0.25/x̄, the third diverges at
1/(2γ (1/4 − x̄) w₀²) for x̄ < 1/4 and fades away otherwise.

    python experiments/fixed_points.py
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from synscale_jax.analysis.fixed_points import (
    Trajectory,
    divergence_time,
    fixed_points,
    trajectory,
)
from synscale_jax.report import tables
from synscale_jax.report.plots import save
from synscale_jax.training.command_line import check_numbers, run_experiment
from synscale_jax.training.provenance import provenance, write_json, write_text

TARGET = 0.25  # E relu(u), u ~ U(-1, 1): equation 16 as printed


class Case(NamedTuple):
    """One panel: a gap and what the algebra says of its divergence.

    Attributes:
      title: of the panel.
      gap: w -> ẑ.
      diverges_at: w₀ and γ -> time, or infinity.
    """

    title: str
    gap: Callable[[Any], Any]
    diverges_at: Callable[[float, float], float]


@dataclasses.dataclass(frozen=True)
class FixedPointsConfig:
    """Draw trajectories of one weight under the continuous scaling rule."""

    preset: Literal["laptop", "smoke"] = "laptop"
    """smoke: few points in time."""
    scaling_rate: float = 0.01
    """γ."""
    gap: float = 0.1
    """ẑ of the first panel."""
    inputs: tuple[float, float] = (0.1, 0.4)
    """Mean inputs x̄ of the panels with a target; one below 1/4 and one above."""
    weights: tuple[float, ...] = (-1.0, -0.5, 0.25, 0.5, 1.0, 2.0)
    """Where trajectories start."""
    duration: float = 3000.0
    """Scaling steps."""
    points: int = 601
    """In time."""
    output: pathlib.Path = pathlib.Path("runs/information")
    """Folder of figure, table and numbers."""

    def __post_init__(self) -> None:
        check_numbers(self, scaling_rate=0, duration=0, points=2)


def main(config: FixedPointsConfig) -> None:
    """Compute, draw and write."""
    found = {case.title: paths(case, config) for case in cases(config)}
    draw(found, config, config.output / "fixed_points.png")
    rows = [row for case in cases(config) for row in summary(case, found[case.title], config)]
    write_json(config.output / "fixed_points.json", {"rows": rows, **provenance()})
    text = f"# Fixed points of the scaling rule\n\n{table(rows, config)}"
    write_text(config.output / "fixed_points.md", text)
    print(text)


def cases(config: FixedPointsConfig) -> list[Case]:
    """The panels."""
    made = [
        Case(
            f"constant gap {config.gap:g}",
            lambda w: config.gap + 0 * w,
            lambda w, rate: divergence_time(w, config.gap, scaling_rate=rate),
        )
    ]
    for mean in config.inputs:
        made.append(
            Case(f"constant target, x̄ = {mean:g}", functools.partial(_settling, mean), _never)
        )
    for mean in config.inputs:
        made.append(
            Case(
                f"target of noise, x̄ = {mean:g}",
                functools.partial(_chasing, mean),
                functools.partial(_chase_ends, mean),
            )
        )
    return made


def _settling(mean: float, w: Any) -> Any:
    return TARGET - mean * np.maximum(w, 0)


def _chasing(mean: float, w: Any) -> Any:
    return np.abs(w) / 4 - mean * np.maximum(w, 0)


def _never(weight: float, scaling_rate: float) -> float:
    del weight, scaling_rate
    return float("inf")


def _chase_ends(mean: float, weight: float, scaling_rate: float) -> float:
    """dw/dt = γ (1/4 − x̄) w³ for w > 0; a negative weight, which is silent, fades away."""
    speed = scaling_rate * (0.25 - mean)
    return 1 / (2 * speed * weight**2) if weight > 0 and speed > 0 else float("inf")


def paths(case: Case, config: FixedPointsConfig) -> dict[float, Trajectory]:
    """Start -> trajectory."""
    times = times_of(config)
    return {
        start: trajectory(start, case.gap, times, scaling_rate=config.scaling_rate)
        for start in config.weights
    }


def times_of(config: FixedPointsConfig) -> np.ndarray:
    """The points in time."""
    return np.linspace(0, config.duration, config.points)


def summary(
    case: Case, found: Mapping[float, Trajectory], config: FixedPointsConfig
) -> list[dict[str, Any]]:
    """One row a start: where it is at the end, or when it diverged, integrated and by algebra."""
    largest = 2 * max(map(abs, config.weights))
    rest = [
        f"{point.weight:.3g} ({'stable' if point.stable else 'not stable'})"
        for point in fixed_points(case.gap, -largest, largest)
    ]
    rows = []
    for start, path in found.items():
        expected = case.diverges_at(start, config.scaling_rate)
        rows.append(
            {
                "case": case.title,
                "fixed_points": rest,
                "start": start,
                "end": None if path.diverged_at else float(path.weights[-1]),
                "diverged_at": path.diverged_at,
                "algebra": expected if expected <= config.duration else None,
            }
        )
    return rows


def table(rows: list[dict[str, Any]], config: FixedPointsConfig) -> str:
    """The rows in Markdown."""

    def text(value: Any, form: str) -> str:
        return "" if value is None else format(value, form)

    columns = {
        "gap": [row["case"] for row in rows],
        "fixed points": [", ".join(row["fixed_points"]) for row in rows],
        "w₀": [f"{row['start']:g}" for row in rows],
        f"w after {config.duration:g} steps": [text(row["end"], ".3f") for row in rows],
        "diverges at step": [text(row["diverged_at"], ".1f") for row in rows],
        "by algebra": [text(row["algebra"], ".1f") for row in rows],
    }
    return (
        tables.markdown(columns)
        + f"\nγ = {config.scaling_rate:g}, dw/dt = γ ẑ(w) w², one ReLU neuron with one positive "
        "input of mean x̄.\n"
    )


def draw(
    found: Mapping[str, Mapping[float, Trajectory]], config: FixedPointsConfig, path: pathlib.Path
) -> Any:
    """One panel a case; dotted lines mark divergences. Returns the figure."""
    from matplotlib.figure import Figure

    times, limit = times_of(config), 4 * max(map(abs, config.weights))
    figure = Figure(figsize=(3.2 * len(found), 3.6), layout="constrained")
    for axes, (title, course) in zip(
        figure.subplots(1, len(found), sharey=True, squeeze=False)[0], found.items(), strict=True
    ):
        for start, one in course.items():
            (line,) = axes.plot(times, one.weights, lw=1.4, label=f"{start:g}")
            if one.diverged_at is not None:
                axes.axvline(one.diverged_at, color=line.get_color(), ls=":", lw=1)
        axes.axhline(0, color="#888888", lw=0.6)
        axes.set(title=title, xlabel="scaling steps", ylim=(-limit / 4, limit))
        axes.title.set_fontsize(10)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("w")
    figure.axes[-1].legend(title="w₀", fontsize=8, frameon=False)
    save(figure, path)
    return figure


if __name__ == "__main__":
    presets = {
        "smoke": FixedPointsConfig(preset="smoke", points=31),
        "laptop": FixedPointsConfig(),
    }
    run_experiment(main, FixedPointsConfig, presets)
