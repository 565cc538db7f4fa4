"""Figures and tables of noise_prune.py and noise_prune_rnn.py, from the JSONs they left.

    python experiments/noise_prune_report.py results/noise_prune

writes the folder's README.md and its figures. Both experiments call it when they end.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tyro
from noise_prune_figures import (
    Runs,
    band,
    canvas,
    density_axis,
    dynamics_figure,
    save_as,
    spectrum_figure,
)

from synscale_jax.report.statistics import Estimate, estimate, spread
from synscale_jax.report.tables import markdown
from synscale_jax.training.provenance import write_text

PRESETS = ("paper", "laptop", "smoke")
BASELINE = "magnitude"
GREATEST, ROUNDING = "largest eigenvalue", 1e-12


def write(root: pathlib.Path) -> str:
    """Draw and tabulate all that is there; returns the text."""
    sections = ["# Noise-prune"]
    for preset in PRESETS:
        parts = {part: load(root / preset / part) for part in PARTS}
        if not any(parts.values()):
            continue
        for part, runs in parts.items():
            if runs:
                sections.append(PARTS[part](runs, root, preset))
    cells = {cell: load(root / "rnn" / cell) for cell in ("elman", "gru")}
    if any(cells.values()):
        sections.append(recurrent({cell: runs for cell, runs in cells.items() if runs}, root))
    text = "\n\n".join(sections) + "\n"
    write_text(root / "README.md", text)
    return text


def load(folder: pathlib.Path) -> Runs:
    """The seeds that have finished, in order."""
    runs = [json.loads(path.read_text()) for path in folder.glob("seed*.json")]
    return sorted(runs, key=lambda run: run["seed"])


# Linear networks


def clustered(runs: Runs, root: pathlib.Path, preset: str) -> str:
    """Spectrum and dynamics of the clustered networks."""
    config = runs[0]["config"]
    low, high = runs[0]["eigenvalues"]
    names = list(runs[0]["spectrum"])
    keys = ("density", "median", "mean", "max", "slowest ten", "quadratic form", "least alignment")
    columns = {"rule / diagonal": names}
    for key in keys:
        columns[key] = [spread([run["spectrum"][name][key] for run in runs], 3) for name in names]
    published = [run["density of the published normalisation"] for run in runs]
    text = [
        f"## Clustered networks, {numbers(config['sizes'])} neurons (`--preset {preset}`)",
        f"Symmetric, density {config['density']:g} asked for; seed {runs[0]['seed']}: "
        f"{runs[0]['synapses']} synapses, eigenvalues {low:.3f} to {high:.4f}. Absolute relative "
        "errors of the eigenvalues (median, mean, largest, mean of the ten slowest modes), mean "
        "error of the quadratic form at the eigenvectors, least cosine between A'v and v; mean ± "
        f"standard deviation over {len(runs)} networks. The published normalisation would keep "
        f"{spread(published, 3)}.",
        markdown(columns),
        targets(runs),
        dynamics_table(runs),
        f"![Error of the dynamics over time, {preset}]({dynamics_figure(runs, root, preset)})",
    ]
    if "scatter" in runs[0]:
        figure = spectrum_figure(runs[0], root, preset)
        text.append(f"![Eigenvalues before and after pruning, {preset}]({figure})")
    return "\n\n".join([*text, origin(runs)])


def targets(runs: Runs) -> str:
    """In how many networks noise-prune does better than weights, under `row_sum`."""

    def count(holds: Callable[[dict[str, Any], dict[str, Any], dict[str, Any]], bool]) -> str:
        kept = [
            holds(run["spectrum"]["noise/row_sum"], run["spectrum"]["weight/row_sum"],
                  run["dynamics"])
            for run in runs
        ]  # fmt: skip
        return f"{sum(kept)} of {len(kept)}"

    def below(kind: str) -> str:
        return count(
            lambda _, __, d: d[kind]["noise"]["mean error"] < d[kind]["weight"]["mean error"]
        )

    rows = {
        "mean eigenvalue error below weights'": count(lambda n, w, _: n["mean"] < w["mean"]),
        "largest eigenvalue error at least 1.3 × below": count(
            lambda n, w, _: w["max"] >= 1.3 * n["max"]
        ),
        "median eigenvalue error below (no target)": count(
            lambda n, w, _: n["median"] < w["median"]
        ),
        "mean dynamics error below, random states": below("random state"),
        "mean dynamics error below, slow modes": below("slow modes"),
    }
    return markdown(
        {"noise-prune against weights, `row_sum`": list(rows), "networks": list(rows.values())}
    )


def dynamics_table(runs: Runs) -> str:
    """Mean errors of the driven dynamics."""
    kinds = [kind for kind in runs[0]["dynamics"] if kind != "times"]
    columns: dict[str, list[str]] = {"input": kinds}
    for rule in ("noise", "weight"):
        columns[f"{rule}, mean over time"] = [
            spread([run["dynamics"][kind][rule]["mean error"] for run in runs], 3) for kind in kinds
        ]
        columns[f"{rule}, at the end"] = [
            spread([run["dynamics"][kind][rule]["mean"][-1] for run in runs], 3) for kind in kinds
        ]
    return markdown(columns)


def sweep(runs: Runs, root: pathlib.Path, preset: str) -> str:
    """Density, rule and diagonal."""
    wanted = sorted({row["wanted"] for row in runs[0]["rows"]})

    def values(density: float, rule: str, diagonal: str, key: str) -> list[float]:
        return [
            row[key] for run in runs for row in run["rows"]
            if (row["wanted"], row["rule"], row["diagonal"]) == (density, rule, diagonal)
        ]  # fmt: skip

    columns: dict[str, list[str]] = {"density": [f"{density:g}" for density in wanted]}
    for diagonal in ("row_sum", "original"):
        for rule in ("noise", "weight", "uniform"):
            columns[f"{rule}, `{diagonal}`"] = [
                f"{spread(values(density, rule, diagonal, 'mean'), 3)} / "
                f"{np.mean(values(density, rule, diagonal, 'max')):.2f}"
                for density in wanted
            ]

    def at_rest(diagonal: str) -> str:
        found = [
            f"{rule} at {density:g}: {lost} of {len(runs)}"
            for density in wanted
            for rule in ("noise", "weight", "uniform")
            if (lost := sum(v >= -ROUNDING for v in values(density, rule, diagonal, GREATEST)))
        ]
        return "; ".join(found) or "none"

    figure, axes = canvas(1, 2)
    for panel, diagonal in zip(axes, ("row_sum", "original"), strict=True):
        for rule in ("noise", "weight", "uniform"):
            means = [values(density, rule, diagonal, "mean") for density in wanted]
            band(panel, wanted, means, rule)
        panel.set(xscale="log", yscale="log", title=f"diagonal: {diagonal}")
        density_axis(panel, wanted)
    axes[0].set_ylabel("mean |eigenvalue error|")
    axes[0].legend(frameon=False)
    name = save_as(figure, root, f"{preset}_sweep")
    return "\n\n".join([
        f"## Density sweep, {runs[0]['config']['sweep_neurons']} neurons (`--preset {preset}`)",
        f"Mean / largest absolute eigenvalue error, means over {len(runs)} networks.",
        markdown(columns),
        f"Unstable after pruning with the `original` diagonal: {at_rest('original')}.",
        "With `row_sum` no mode grows, but some no longer decay (an eigenvalue of 0 to rounding): "
        f"{at_rest('row_sum')}.",
        f"![Eigenvalue error against density, {preset}]({name})",
        origin(runs),
    ])  # fmt: skip


def directed(runs: Runs, root: pathlib.Path, preset: str) -> str:
    """Directed networks."""
    del root
    names = list(runs[0]["rows"])
    columns = {"rule / diagonal": names}
    for key in ("density", "largest eigenvalue", "propagator error"):
        columns[key] = [spread([run["rows"][name][key] for run in runs], 3) for name in names]
    config = runs[0]["config"]
    whole = spread([run["largest eigenvalue"] for run in runs], 3)
    seconds = np.mean([run["covariance seconds"] for run in runs])
    time = config["propagator_time"]
    return "\n\n".join([
        f"## Directed networks, {numbers(config['directed_sizes'])} neurons (`--preset {preset}`)",
        f"Largest real part of the eigenvalues (whole networks: {whole}) and relative error of "
        f"e^(A t) at t = {time:g}, mean ± standard deviation over {len(runs)} networks.",
        markdown(columns),
        f"Covariance in float64 on a machine with other work: {seconds:.1f} s on average.",
        origin(runs),
    ])  # fmt: skip


def local(runs: Runs, root: pathlib.Path, preset: str) -> str:
    """The local estimate's convergence."""
    counts = list(runs[0]["estimates"])
    rows = {
        **{f"{count} samples": [run["estimates"][count] for run in runs] for count in counts},
        "closed form": [run["exact"] for run in runs],
        "weights alone": [run["weight"] for run in runs],
    }
    columns = {"statistic from": list(rows)}
    columns["correlation with the closed form"] = [
        "" if name == "weights alone" else spread([row["correlation"] for row in each], 3)
        for name, each in rows.items()
    ]
    for key in ("mean", "max"):
        columns[f"{key} eigenvalue error"] = [
            spread([row[key] for row in each], 3) for each in rows.values()
        ]
    figure, axes = canvas(1, 2)
    samples = [int(count) for count in counts]
    for panel, key in zip(axes, ("correlation", "mean"), strict=True):
        band(panel, samples, [[r["estimates"][c][key] for r in runs] for c in counts], "noise")
        panel.set(xscale="log", xlabel="samples, half a unit of time apart")
    axes[0].set_ylabel("correlation of the local estimate with D")
    axes[1].set_ylabel("mean |eigenvalue error| after pruning")
    for name, style in (("exact", "-"), ("weight", ":")):
        level = float(np.mean([run[name]["mean"] for run in runs]))
        axes[1].axhline(
            level,
            color="black",
            ls=style,
            lw=1,
            label={"exact": "closed form"}.get(name, "weights"),
        )
    axes[1].legend(frameon=False)
    name = save_as(figure, root, f"{preset}_local")
    config = runs[0]["config"]
    return "\n\n".join([
        f"## The local estimate, {numbers(config['local_sizes'])} neurons (`--preset {preset}`)",
        f"Density {config['density']:g}, `row_sum`; five prunings of each of {len(runs)} networks, "
        "mean ± standard deviation over networks.",
        markdown(columns),
        f"![Convergence of the local estimate, {preset}]({name})",
        origin(runs),
    ])  # fmt: skip


PARTS: dict[str, Callable[[Runs, pathlib.Path, str], str]] = {
    "clustered": clustered,
    "sweep": sweep,
    "directed": directed,
    "local": local,
}


# Trained recurrent networks


def recurrent(cells: dict[str, Runs], root: pathlib.Path) -> str:
    """Errors of pruned recurrent networks, as they are and fine-tuned, with verdicts."""
    figure, axes = canvas(len(cells), 2)
    text = ["## Trained recurrent networks, MNIST by rows"]
    for panels, (cell, runs) in zip(np.reshape(axes, (len(cells), 2)), cells.items(), strict=True):
        config = runs[0]["config"]
        text += [
            f"### {cell.upper() if cell == 'gru' else 'Elman'}",
            f"{config['hidden']} units, {config['epochs']} epochs, then "
            f"{config['fine_tuning_steps']} steps of fine-tuning. Test error in percent, mean ± "
            f"standard deviation over {len(runs)} seeds. Whole network: "
            f"{spread([run['error'] for run in runs], 2)}, after the same further steps "
            f"{spread([run['fine-tuned error'] for run in runs], 2)}. Shift s of the probed "
            f"operator: {shifts(runs)}.",
        ]
        for panel, key in zip(panels, ("error", "fine-tuned error"), strict=True):
            text += [f"*{'Pruned' if key == 'error' else 'Pruned and fine-tuned'}:*",
                     recurrent_table(runs, key, panel)]  # fmt: skip
            panel.set(xscale="log", title=f"{cell}, {key}")
            density_axis(panel, config["densities"])
        text.append(origin(runs))
    axes = np.reshape(axes, -1)
    axes[0].set_ylabel("test error (%)")
    axes[0].legend(frameon=False, fontsize=7)
    name = save_as(figure, root, "rnn")
    text.insert(1, VERDICT)
    return "\n\n".join([*text, f"![Test error of pruned recurrent networks]({name})"])


VERDICT = (
    "Verdicts compare with magnitude pruning, paired by seed: **better** or **worse** where the "
    "95 % interval of the difference (Student's t) excludes zero, otherwise none. Nothing corrects "
    "for the number of comparisons."
)


def recurrent_table(runs: Runs, key: str, panel: Any) -> str:
    """Densities down, methods across."""
    densities = sorted({row["density"] for row in runs[0]["rows"]}, reverse=True)
    methods = list(dict.fromkeys(row["method"] for row in runs[0]["rows"]))

    def values(density: float, method: str) -> list[float]:
        return [
            row[key] for run in runs for row in run["rows"]
            if row["density"] == density and row["method"] == method
        ]  # fmt: skip

    columns: dict[str, list[str]] = {"density": [f"{density:g}" for density in densities]}
    for method in methods:
        columns[method] = [
            spread(values(density, method), 2)
            + verdict(values(density, method), values(density, BASELINE), method)
            for density in densities
        ]
        band(panel, densities, [values(density, method) for density in densities], method)
    whole = float(np.mean([run[key] for run in runs]))
    panel.axhline(whole, color="black", lw=1, label="whole network")
    return markdown(columns)


def verdict(values: Sequence[float], baseline: Sequence[float], method: str) -> str:
    """What the interval of the paired difference says."""
    if method == BASELINE or len(values) < 2:
        return ""
    difference: Estimate = estimate([a - b for a, b in zip(values, baseline, strict=True)])
    assert difference.low is not None and difference.high is not None
    if difference.high < 0:
        return " **better**"
    return " **worse**" if difference.low > 0 else ""


def shifts(runs: Runs) -> str:
    """The shifts of each recurrent kernel, over all seeds."""
    found: dict[str, set[float]] = {}
    for run in runs:
        for row in run["rows"]:
            if row["method"].startswith("noise"):
                for name, shift in row["shift"].items():
                    found.setdefault(name.rsplit("/", 1)[-1], set()).add(shift)
    return ", ".join(
        f"`{name}` {' or '.join(f'{shift:g}' for shift in sorted(each))}"
        for name, each in found.items()
    )


# Words


def numbers(sizes: Sequence[int]) -> str:
    """The clusters of a network."""
    return f"{sum(sizes)} = " + " + ".join(str(size) for size in sizes)


def origin(runs: Runs) -> str:
    """Where the numbers come from."""
    run = runs[0]
    commits = ", ".join(sorted({str(run["commit"]) for run in runs}))
    minutes = sum(run["seconds"] for run in runs) / 60
    seeds = ", ".join(str(run["seed"]) for run in runs)
    command, version = run["command"].split(" --output")[0], run["versions"]["jax"]
    return (
        f"Seeds {seeds}; `python experiments/{command}`; commit {commits}; jax {version}, "
        f"{run['cpu']}; {minutes:.0f} minutes beside other work."
    )


if __name__ == "__main__":
    print(write(tyro.cli(tyro.conf.Positional[pathlib.Path])))
