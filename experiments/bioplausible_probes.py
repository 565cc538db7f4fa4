"""What the comparison's learners do under attack, what their hidden layers hold, and homeostasis.

    python experiments/bioplausible_probes.py --preset smoke    # after the comparison's own smoke
    python experiments/bioplausible_probes.py                   # after bioplausible.py

Needs the runs of ``experiments/bioplausible.py`` (``--runs``). Four probes:

attack   accuracy against ε of x + ε sign(∂L/∂x), for the CNN, for competing units as published
         and with the slips mended, which are attacked before tanh; and the share of images whose
         gradient is exactly zero: such an image is never attacked, however weak the network.
tsne     test images: pixels, the hidden layer of the CNN, the competing units.
filters  how selective for a class the competing units are, beside random ones and backprop's, and
         which pixels a decision hangs on.
synscaw  SynScaW on top of each rule where a layer has an activity to regulate: does homeostasis
         help local learning?

Give the command again to go on after an interruption.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any, Literal

import bioplausible
import bioplausible_filters
import bioplausible_report
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from synscale_jax.models.convnet import SIMPLE, SIMPLE_CIFAR, DropoutCNN
from synscale_jax.plasticity import power_activation, power_readout
from synscale_jax.report.plots import save
from synscale_jax.report.statistics import spread
from synscale_jax.report.tables import markdown
from synscale_jax.training.command_line import check_seeds, run_experiment
from synscale_jax.training.plasticity_jobs import (
    Study,
    random_units,
    responses,
    root_mean_square,
    run_study,
    units_folder,
)
from synscale_jax.training.plasticity_runs import load_arrays, load_variables
from synscale_jax.training.plasticity_studies import with_scaling
from synscale_jax.training.provenance import provenance, write_json, write_text
from synscale_jax.training.runs import RunError

EPSILONS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)
POWER = 4.5  # of the units' response
PRINTED = {
    "CNN": (97.82, 92.75, 80.82, 61.05, 35.91, 15.50, 5.66),
    "competing units as published": (96.64, 71.78, 32.14, 26.22, 26.09, 26.09, 26.09),
}
PLATEAU = 2.0  # points that a plateau may still fall
PERPLEXITY = 30  # of t-SNE
SCALED = ("units_3fc", "units_3fa", "cnn", "fcn_relu", "oja_clean", "hebb_clean", "gupta_clean",
          "mlp_backprop", "mlp_alignment", "mlp_direct")  # fmt: skip
Attacked = tuple[Callable[[Array], Array], Callable[[Array], Array]]
"""Pixels -> scores that decide, and pixels -> what the loss is taken of."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Probe what the comparison has trained."""

    preset: Literal["smoke", "laptop", "paper"] = "laptop"
    """Which runs: those of the comparison's preset."""
    data: Literal["mnist", "cifar10"] = "mnist"
    """Image set."""
    probes: tuple[Literal["attack", "tsne", "filters", "synscaw"], ...] = (
        "attack",
        "tsne",
        "filters",
        "synscaw",
    )
    """Which probes."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the runs."""
    scaling_rate: float = 0.01
    """γ of SynScaW."""
    images: int = 10000
    """Test images attacked."""
    points: int = 500
    """Test images in the t-SNE."""
    runs: pathlib.Path | None = None
    """Folder of the comparison's runs; by default where it puts them."""

    def __post_init__(self) -> None:
        if self.images < 1:
            raise ValueError(f"images={self.images} attacks nothing: use 1 or more.")
        if self.points <= PERPLEXITY:
            raise ValueError(
                f"points={self.points} are too few for a perplexity of {PERPLEXITY}: use "
                f"{PERPLEXITY + 1} or more."
            )
        check_seeds(self.seeds)
        if not 0 < self.scaling_rate < float("inf"):
            raise ValueError(f"scaling_rate={self.scaling_rate} scales nothing: use e.g. 0.01.")


PRESETS = {
    "smoke": Config(preset="smoke", seeds=(0,), images=200),
    "laptop": Config(),
    "paper": Config(preset="paper", seeds=(0, 1, 2, 3, 4)),
}


def comparison_of(config: Config) -> bioplausible.Config:
    """The comparison whose runs are probed."""
    return dataclasses.replace(
        bioplausible.PRESETS[config.preset],
        data=config.data,
        seeds=config.seeds,
        output=config.runs,
    )


def trained_cnn(study: Study, seed: int) -> tuple[DropoutCNN, dict[str, Any], bool]:
    """The CNN trained by Adam, or by SGD where that is all there is, which sees [−1, 1]."""
    name, signed = "simple_cnn_adam", False
    if not (study.folder / name / f"seed{seed}" / "params.npz").exists():
        name, signed = "simple_cnn", True
    variables = load_variables(_needed(study, study.folder / name / f"seed{seed}"))
    model = DropoutCNN(SIMPLE if study.data == "mnist" else SIMPLE_CIFAR, study.size.classes)
    return model, variables, signed


def cnn(study: Study, seed: int) -> Attacked:
    """The CNN and its likelihood."""
    model, variables, signed = trained_cnn(study, seed)

    def scores(pixels: Array) -> Array:
        return jnp.asarray(model.apply(variables, 2 * pixels - 1 if signed else pixels))

    return scores, lambda pixels: jax.nn.log_softmax(scores(pixels))


def power_units(study: Study, seed: int, *, published: bool) -> Attacked:
    """Competing units and their readout.

    ``published``: the original's network, attacked through its tanh; otherwise the mended one,
    attacked before it.
    """
    weights = load_arrays(_needed(study, units_folder(study, seed)) / "weights.npz")["weights"]
    name = "units_power_v2_long" if published else "units_clean"
    folder = _needed(study, study.folder / name / f"seed{seed}", f" --groups units --only {name}")
    units = jnp.asarray(weights)
    slope = json.loads((folder / "result.json").read_text())["config"]["slope"]
    if not published:  # its readout learned from responses of scale 1
        slope /= root_mean_square(responses(units, study.images.train.images, "scaled", POWER))
    kernel = slope * jnp.asarray(load_variables(folder)["params"]["head"]["kernel"])

    def drive(pixels: Array) -> Array:
        return power_activation(pixels.reshape(len(pixels), -1) @ units, POWER) @ kernel

    if published:  # the likelihood of a tanh, which has no logarithm
        return drive, lambda pixels: power_readout(drive(pixels), 1.0)
    return drive, lambda pixels: jax.nn.log_softmax(drive(pixels))


def _needed(study: Study, folder: pathlib.Path, options: str = "") -> pathlib.Path:
    if not (folder / "result.json").exists():
        raise RunError(
            f"{folder} is not finished: run experiments/bioplausible.py --data {study.data}"
            f"{options} first, with the same preset."
        )
    return folder


def attack(attacked: Attacked, images: np.ndarray, labels: np.ndarray) -> dict[str, list[float]]:
    """Accuracy in % under each ε, and the share of images whose gradient is exactly zero."""
    scores, losses = attacked

    @jax.jit
    def one(pixels: Array, labels: Array) -> tuple[Array, Array]:
        def loss(pixels: Array) -> Array:
            return -jnp.take_along_axis(losses(pixels), labels[:, None], 1).sum()

        slope = jax.grad(loss)(pixels)
        right = [
            scores(jnp.clip(pixels + epsilon * jnp.sign(slope), 0, 1)).argmax(-1) == labels
            for epsilon in EPSILONS
        ]
        # Only what is right at first is attacked, as published.
        kept = jnp.stack([each & right[0] for each in right])
        return kept, ~jnp.any(slope.reshape(len(pixels), -1) != 0, -1)

    parts = [
        one(jnp.asarray(images[i : i + 500], jnp.float32) / 255, jnp.asarray(labels[i : i + 500]))
        for i in range(0, len(images), 500)
    ]
    kept = np.concatenate([np.asarray(part[0]) for part in parts], 1)
    zero = np.concatenate([np.asarray(part[1]) for part in parts])
    return {"accuracy": (100 * kept.mean(1)).tolist(), "zero_gradients": [float(zero.mean())]}


def attack_all(config: Config, study: Study) -> str:
    """Attack each network with each seed; write and return the table."""
    victims = {
        "CNN": cnn,
        "competing units as published": lambda s, k: power_units(s, k, published=True),
        "competing units, mended, before tanh": lambda s, k: power_units(s, k, published=False),
    }
    test = study.images.test
    images, labels = test.images[: config.images], test.labels[: config.images]
    results = {
        name: [attack(make(study, seed), images, labels) for seed in config.seeds]
        for name, make in victims.items()
    }
    folder = study.folder / "probes"
    write_json(folder / "attack.json", {"results": results, "epsilons": EPSILONS, **provenance()})
    columns: dict[str, list[str]] = {"network": [], "": []}
    columns |= {f"ε = {epsilon:g}": [] for epsilon in EPSILONS}
    columns |= {"zero gradients": [], "asked for": []}
    for name, runs in results.items():
        ours = np.array([run["accuracy"] for run in runs])
        zero = np.mean([run["zero_gradients"] for run in runs])
        judged = study.data == "mnist" and config.preset != "smoke"
        asked = verdict(name, ours.mean(0)) if judged else ""
        _line(columns, name, "ours", [spread(c) for c in ours.T], f"{zero:.1%}", asked)
        if study.data == "mnist" and name in PRINTED:
            _line(columns, name, "printed", [f"{value:.2f}" for value in PRINTED[name]], "", "")
    attack_figure(results, folder / "attack.png")
    table = markdown({name: column for name, column in columns.items() if any(column)})
    return f"## Accuracy in % under attack\n\n{table}\n\n![Attack](attack.png)\n"


def verdict(name: str, accuracy: np.ndarray) -> str:
    """What is asked of a network under attack, and whether its mean accuracies (%) are so.

    Args:
      name: as in :data:`PRINTED`; nothing is asked of others.
      accuracy: one for each of :data:`EPSILONS`.

    Returns:
      A cell of the table.
    """
    at = dict(zip(EPSILONS, accuracy, strict=True))
    if name == "CNN":
        falls = bool(np.all(np.diff(accuracy) <= 0)) and at[0.3] < 15
        return f"falls below 15 at ε = 0.3: {'yes' if falls else 'no'}"
    if name == "competing units as published":
        flat = at[0.1] < 50 and at[0.2] - at[0.3] <= PLATEAU
        return f"below 50 at ε = 0.1, then a plateau: {'yes' if flat else 'no'}"
    return ""


def _line(
    columns: dict[str, list[str]], name: str, whose: str, cells: list[str], zero: str, asked: str
) -> None:
    for column, value in zip(columns.values(), [name, whose, *cells, zero, asked], strict=True):
        column.append(value)


def attack_figure(results: dict[str, list[dict[str, Any]]], path: pathlib.Path) -> None:
    """Accuracy against ε."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, runs in results.items():
        values = np.array([run["accuracy"] for run in runs])
        (line,) = axes.plot(EPSILONS, values.mean(0), "o-", label=name)
        axes.fill_between(
            EPSILONS, values.min(0), values.max(0), color=line.get_color(), alpha=0.15
        )
    axes.set_xlabel("ε")
    axes.set_ylabel("test accuracy (%)")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="upper right")
    save(figure, path)


def tsne_figure(config: Config, study: Study) -> str:
    """t-SNE of test images: pixels, the CNN's hidden layer, the response of competing units."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from sklearn.manifold import TSNE

    seed = config.seeds[0]
    weights = load_arrays(_needed(study, units_folder(study, seed)) / "weights.npz")["weights"]
    test = study.images.test
    images, labels = test.images[: config.points], test.labels[: config.points]
    model, variables, signed = trained_cnn(study, seed)
    seen: Any = model.apply(
        variables,
        jnp.asarray(images, jnp.float32) / 255 * (2 if signed else 1) - signed,
        capture_intermediates=True,
        mutable=["intermediates"],
    )[1]
    hidden = np.asarray(seen["intermediates"]["dense0"]["__call__"][0])
    pixels = images.reshape(len(images), -1) / 255
    layers = {
        "pixels": pixels,
        "hidden layer of the CNN": np.maximum(hidden, 0),
        "competing units": np.maximum(pixels @ weights, 0),
    }
    figure = Figure(figsize=(14, 5), layout="constrained")
    for axes, (name, values) in zip(figure.subplots(1, 3), layers.items(), strict=True):
        points = TSNE(perplexity=PERPLEXITY, init="pca", random_state=0).fit_transform(values)
        axes.scatter(*points.T, s=0)
        for point, label in zip(points, labels, strict=True):
            color = colormaps["rainbow"](label / 9)
            axes.text(*point, str(label), color=color, fontsize=7, ha="center", va="center")
        axes.set_title(name)
        axes.set_axis_off()
    save(figure, study.folder / "probes" / "tsne.png")
    return f"## t-SNE of {len(labels)} test images\n\n![t-SNE](tsne.png)\n"


def filters(config: Config, study: Study) -> str:
    """Class selectivity of units that compete, are random or learned by backprop; saliency."""
    seed, folder = config.seeds[0], study.folder / "probes"
    test = study.images.test
    images, labels = test.images[: config.images], test.labels[: config.images]
    competing = load_arrays(_needed(study, units_folder(study, seed)) / "weights.npz")["weights"]
    layers = {
        "competing units": (competing, 0.0),
        "random units": (random_units(seed, competing.shape), 0.0),
    }
    backprop = study.folder / "units_backprop" / f"seed{seed}"
    if (backprop / "result.json").exists():
        hidden = load_variables(backprop)["params"]["dense0"]
        layers["backprop"] = (hidden["kernel"], hidden["bias"])
    pixels = images.reshape(len(images), -1).astype(np.float32) / 255
    answers = {name: np.maximum(pixels @ w + b, 0) for name, (w, b) in layers.items()}
    for name in ("competing units", "random units"):
        answers[f"{name}, power"] = answers[name] ** POWER
    table = bioplausible_filters.selectivity_figure(answers, labels, folder / "selectivity.png")
    networks = {
        "CNN": cnn(study, seed)[0],
        "competing units, mended": power_units(study, seed, published=False)[0],
    }
    bioplausible_filters.saliency_figure(networks, images, labels, folder / "saliency.png")
    return (
        f"## Class selectivity of {len(images)} test images' answers\n\n{table}\n\n"
        "![Class selectivity](selectivity.png)\n\n## Pixels that the winning score hangs on\n\n"
        "![Saliency](saliency.png)\n"
    )


def scaling_table(config: Config, study: Study) -> str:
    """Every rule with SynScaW on top beside the same without."""
    first = f"seed{config.seeds[0]}"
    rows = [
        row
        for row in comparison_of(config).rows()  # with the learning rates that were tried there
        if row.name in SCALED and (study.folder / row.name / first / "result.json").exists()
    ]
    run_study(study, rows, lambda learner: with_scaling(learner, config.scaling_rate))
    table = bioplausible_report.scaled(rows, study.folder)
    note = (
        f"γ = {config.scaling_rate:g}, norms restored, the output layer left out; "
        "± is the deviation over seeds, differences by seed.\n"
    )
    return f"## SynScaW on top of each rule\n\n{table}\n\n{note}"


PROBES: dict[str, Callable[[Config, Study], str]] = {
    "attack": attack_all,
    "tsne": tsne_figure,
    "filters": filters,
    "synscaw": scaling_table,
}


def main(config: Config) -> None:
    """Probe, and write and print what this and earlier calls found."""
    study = comparison_of(config).study()
    folder = study.folder / "probes"
    for probe in config.probes:
        write_text(folder / f"{probe}.md", PROBES[probe](config, study))
    found = [folder / f"{probe}.md" for probe in PROBES]
    parts = [path.read_text() for path in found if path.exists()]
    text = "\n".join([f"# Probes, {study.data}\n", *parts])
    write_text(folder / "README.md", text)
    print(text)
    print(json.dumps(provenance()["versions"]))


if __name__ == "__main__":
    run_experiment(main, Config, PRESETS)
