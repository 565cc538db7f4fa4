"""Figure 3 of the paper: positive weights of trained networks against the log-normal.

The paper shows VGG19, ResNet152 and Inception V4, trained on ImageNet, as "almost" log-normal.
Their weights are not shipped; name them with --files (safetensors) where you have them. By default
a small network is trained: 784-1024-1024-10 on MNIST for 3 epochs, with and without SynScaW. Each
panel has the histogram over log w, the fitted log-normal, half-normal and gamma, and, for our runs,
the same network before training, whose weights are normal: expect the half-normal to fit that one.

    python experiments/figure3.py
    python experiments/figure3.py --files vgg19.safetensors
    python experiments/figure3.py --runs runs/tables/laptop/mnist-mlp/baseline/seed0
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from synscale_jax.analysis.lognormal import (
    Tally,
    density,
    fit,
    held_out_likelihood,
    merge,
    tally_all,
)
from synscale_jax.report import tables
from synscale_jax.report.plots import save
from synscale_jax.training import methods
from synscale_jax.training.cells import cells_named
from synscale_jax.training.command_line import run_experiment
from synscale_jax.training.config import TrainConfig
from synscale_jax.training.provenance import provenance, write_json, write_text
from synscale_jax.training.stored_weights import run_kernels, safetensors_kernels
from synscale_jax.training.sweep import run_cells

NOT_RUN = {name: "weights not reachable" for name in ("VGG19", "ResNet152", "Inception V4")}
FITS = {  # name -> label, colour, line
    "lognormal": ("log-normal", "#D55E00", "-"),
    "half_normal": ("half-normal", "#009E73", "--"),
    "gamma": ("gamma", "#CC79A7", ":"),
}
SETTINGS = {
    "smoke": TrainConfig(epochs=1, train_examples=1000, test_examples=300, chunk_steps=10),
    "laptop": TrainConfig(epochs=3),
}


@dataclasses.dataclass(frozen=True)
class Figure3Config:
    """Draw the distribution of positive weights of networks, and what fits it."""

    preset: Literal["smoke", "laptop"] = "laptop"
    """smoke: 1000 images; laptop: 3 epochs of all. Only where neither runs nor files are named."""
    runs: tuple[pathlib.Path, ...] = ()
    """Folders of runs, <cell>/<method>/seed<k>, with their checkpoints."""
    files: tuple[pathlib.Path, ...] = ()
    """Weights of other networks, safetensors."""
    output: pathlib.Path = pathlib.Path("runs/figure3")
    """Folder of figure, table and numbers, and of what is trained."""
    restart: bool = False
    """Train anew; earlier runs are kept aside."""

    def __post_init__(self) -> None:
        for path in (*self.runs, *self.files):
            if not path.exists():
                raise ValueError(f"{path} does not exist: name a run's folder or a file.")


def main(config: Figure3Config) -> None:
    """Train if nothing is named, then fit and draw."""
    runs = config.runs
    if not runs and not config.files:
        runs = _trained(config)
    found = {}
    for folder in runs:
        trained, initial = run_kernels(folder)
        found["/".join(folder.absolute().parts[-3:])] = network(trained, initial)
    for path in config.files:
        found[path.name] = network(safetensors_kernels(path))
    draw(found, config.output / "figure3.png")
    write_json(
        config.output / "figure3.json", {"networks": found, "not run": NOT_RUN, **provenance()}
    )
    text = f"# Figure 3: positive weights against the log-normal\n\n{table(found)}"
    write_text(config.output / "figure3.md", text)
    print(text)


def _trained(config: Figure3Config) -> tuple[pathlib.Path, ...]:
    (cell,) = cells_named(["mnist-mlp"])
    chosen = [methods.baseline(), methods.synscaw()]
    folder = config.output / config.preset
    run_cells(
        folder, [cell], chosen, (0,), lambda _: SETTINGS[config.preset], restart=config.restart
    )
    return tuple(folder / cell.name / method.name / "seed0" for method in chosen)


def network(trained: Mapping[str, Any], initial: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A network's fits and curves as JSON has them, trained and, where known, initial."""
    shown = {"trained": weights(trained)}
    return shown if initial is None else {**shown, "initial": weights(initial)}


def weights(kernels: Mapping[str, Any]) -> dict[str, Any]:
    """Pooled positive weights of all kernels: fit, held-out likelihood and curves over log w."""
    halves = [_half(kernels, start) for start in (0, 1)]
    counted = merge(*halves)
    shown = density(counted)
    return {
        "kernels": len(kernels),
        "fit": fit(counted)._asdict(),
        "likelihood": held_out_likelihood(*halves),
        "log_w": _short(shown.log_x),
        "observed": _short(shown.observed),
        "fitted": {name: _short(values) for name, values in shown.fitted.items()},
    }


def _half(kernels: Mapping[str, Any], start: int) -> Tally:
    return merge(*(tally_all(np.ravel(kernel)[start::2]) for kernel in kernels.values()))


def _short(values: np.ndarray) -> list[float]:
    return [float(f"{value:.6g}") for value in values]


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Fits in Markdown, the paper's networks below."""
    rows = [(name, when, part) for name, parts in found.items() for when, part in parts.items()]
    likelihoods = [part["likelihood"] for _, _, part in rows]
    columns = {
        "network": [name for name, _, _ in rows],
        "weights": [when for _, when, _ in rows],
        "positive": [str(part["fit"]["positive"]) for _, _, part in rows],
        "μ": [f"{part['fit']['mu']:.3f}" for _, _, part in rows],
        "σ": [f"{part['fit']['sigma']:.3f}" for _, _, part in rows],
        "JS, nats": [f"{part['fit']['divergence']:.4f}" for _, _, part in rows],
        "of a log-normal sample": [f"{part['fit']['sampling']:.1e}" for _, _, part in rows],
        "KS": [f"{part['fit']['ks']:.3f}" for _, _, part in rows],
        "best fit, held out": [FITS[max(scores, key=scores.get)][0] for scores in likelihoods],
    } | {
        f"{label}, nats a weight": [f"{scores[name]:.4f}" for scores in likelihoods]
        for name, (label, _, _) in FITS.items()
    }
    for name, why in NOT_RUN.items():
        for column, text in zip(columns.values(), (name, f"not run: {why}"), strict=False):
            column.append(text)
        for column in list(columns.values())[2:]:
            column.append("")
    return (
        tables.markdown(columns)
        + "\nAll kernels of a network together. Fitted to every second weight, likelihood of the "
        "others; JS and KS of all positive ones against the fitted log-normal.\n"
    )


def draw(found: Mapping[str, Mapping[str, Any]], path: pathlib.Path) -> Any:
    """One panel a network, see :func:`panel`; returns the figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(found), 3.8), layout="constrained")
    shown = [_range(part) for parts in found.values() for part in parts.values()]
    left, right = min(low for low, _ in shown), max(high for _, high in shown)
    for axes, (name, parts) in zip(
        figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True
    ):
        panel(axes, name, parts)
        axes.set_xlim(left, right)
        if (below := _share_below(parts["trained"], left)) > 0.005:
            axes.text(
                0.02,
                0.5,
                f"{below:.0%} of the\nweights are\nsmaller",
                fontsize=8,
                transform=axes.transAxes,
            )
    figure.axes[0].set_ylabel("density of ln w")
    figure.axes[0].legend(frameon=False, fontsize=8)
    save(figure, path)
    return figure


def _range(part: Mapping[str, Any]) -> tuple[float, float]:
    """Where the weights are: nearly all of them, but no more than four decades below the median."""
    shares = np.cumsum(part["observed"]) / np.sum(part["observed"])
    least, middle, most = np.exp(np.interp((1e-3, 0.5, 1 - 1e-5), shares, part["log_w"]))
    return max(least, 1e-4 * middle), 2 * most


def _share_below(part: Mapping[str, Any], w: float) -> float:
    shares = np.cumsum(part["observed"]) / np.sum(part["observed"])
    return float(np.interp(np.log(w), part["log_w"], shares, left=0.0))


def panel(axes: Any, name: str, parts: Mapping[str, Any]) -> None:
    """Histogram of a network, what was fitted to it, and the histogram before training."""
    trained = parts["trained"]
    x = np.exp(trained["log_w"])
    axes.fill_between(x, trained["observed"], step="mid", color="#c8d7e6", label="trained")
    for fitted, (label, color, line) in FITS.items():
        axes.plot(x, trained["fitted"][fitted], line, color=color, lw=1.5, label=label)
    if "initial" in parts:
        initial = parts["initial"]
        axes.step(
            np.exp(initial["log_w"]),
            initial["observed"],
            where="mid",
            color="#444444",
            lw=1,
            label="before training",
        )
    axes.set_xscale("log")
    axes.set(xlabel="positive weight w", title=name)
    axes.title.set_fontsize(9)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    presets = {
        "smoke": Figure3Config(preset="smoke"),
        "laptop": Figure3Config(),
    }
    run_experiment(main, Figure3Config, presets)
