"""The paper's search for learning rate and scaling rate, for every method on equal terms.

The paper: "a parameter search trained on a 20% split of the MNIST training set while validating on
the remaining 80%", with a learning rate of 0.0005 and γ of 0.01 (SynScaW) and 1.0 (SynScaL) as its
result. It prints neither trials nor ranges: those here are ours, the same number for every method,
drawn at random on a logarithmic scale; the combinations search γ with β = 1. The test set is not
looked at.

    python experiments/hyperparameters.py                 # 10 trials a method
    python experiments/hyperparameters.py --draw          # only the table of what is there

About a minute a trial on one core of 2; start it twice to use both cores.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import numpy as np

from synscale_jax.data import DataNotAvailable, load_images
from synscale_jax.models import MLP
from synscale_jax.report import tables
from synscale_jax.report.collect import collect, finished
from synscale_jax.training import methods
from synscale_jax.training.command_line import check_seeds, run_experiment
from synscale_jax.training.config import TrainConfig
from synscale_jax.training.methods import Method
from synscale_jax.training.program import Program
from synscale_jax.training.provenance import write_text
from synscale_jax.training.runs import RunError
from synscale_jax.training.sweep import Job, run_jobs

LEARNING_RATES = (1e-4, 5e-3)
STRENGTHS: Mapping[str, tuple[str, tuple[float, float], Callable[[float], Method]]] = {
    "baseline": ("", (1.0, 1.0), lambda _: methods.baseline()),
    "dropout": ("hidden rate", (0.05, 0.7), lambda rate: methods.dropout(0.4 * rate, rate)),
    "confidence_penalty": ("β", (0.01, 3.0), methods.confidence_penalty),
    "bottleneck": ("β", (1e-5, 0.1), methods.bottleneck),
    "synscaw": ("γ", (1e-3, 1.0), methods.synscaw),
    "synscal": ("γ", (0.03, 10.0), methods.synscal),
    "synscaw_confidence_penalty": (
        "γ",
        (1e-3, 1.0),
        lambda rate: methods.combined(methods.synscaw(rate), methods.confidence_penalty()),
    ),
    "synscal_confidence_penalty": (
        "γ",
        (0.03, 10.0),
        lambda rate: methods.combined(methods.synscal(rate), methods.confidence_penalty()),
    ),
}
"""Method -> what is searched for, between which ends, and the method with that strength; the
combinations keep β at 1."""

TRAINED = 12_000  # 20 % of MNIST's training set; the other 48 000 validate


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """Search learning rate and strength of each method on 20 % of MNIST."""

    preset: Literal["smoke", "laptop"] = "laptop"
    """smoke: 2 trials of 1 epoch; laptop: 10 trials of 20 epochs."""
    methods: tuple[str, ...] = tuple(STRENGTHS)
    """Which methods to search for."""
    trials: int = 10
    """Random trials, the same number for every method."""
    epochs: int = 20
    """Passes over the 12 000 training images."""
    seed: int = 0
    """Of the trials, and of every network's initial weights."""
    output: pathlib.Path = pathlib.Path("runs/hyperparameters")
    """Folder of runs and table."""
    draw: bool = False
    """Only draw the table of what is there."""
    restart: bool = False
    """Begin anew; earlier runs are kept aside."""

    def __post_init__(self) -> None:
        if unknown := [name for name in self.methods if name not in STRENGTHS]:
            raise ValueError(f"no search for {unknown[0]!r}: use {', '.join(STRENGTHS)}.")
        check_seeds([self.seed])
        for name in ("trials", "epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is no search: use 1 or more.")


def trial(config: SearchConfig, method: str, number: int) -> tuple[float, float]:
    """Learning rate and strength of a trial; the learning rate is the same for every method."""
    key = jax.random.fold_in(jax.random.key(config.seed), number)
    where = np.asarray(jax.random.uniform(key, (2,)), float)
    ends = np.log([LEARNING_RATES, STRENGTHS[method][1]])
    rate, strength = np.exp(ends[:, 0] + where * (ends[:, 1] - ends[:, 0]))
    return float(f"{rate:.3g}"), float(f"{strength:.3g}")


def main(config: SearchConfig) -> None:
    """Train what is missing, then write and print the table."""
    folder = config.output / config.preset / f"search{config.seed}"
    if not config.draw:
        run(config, folder)
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in config.methods}
    runs = []
    for method in config.methods:
        names = {f"{method}-{number}": number for number in range(config.trials)}
        for name, number in names.items():
            results = collect(folder / name, ["mnist-mlp"], [name])["mnist-mlp"][name]
            runs += results
            for result in finished(results).values():
                error = tables.error(result["final"]["validation_accuracy"])
                found[method].append((error, *trial(config, method, number)))
    if not any(found.values()):
        raise RunError(f"there is no result below {folder}: leave out --draw to train.")
    epochs = runs[0]["config"]["epochs"]
    text = (
        f"# Search for learning rate and strength\n\n{table(found, config, epochs)}\n"
        f"{tables.origin(*runs)}\n"
    )
    write_text(folder / "hyperparameters.md", text)
    print(text)


def run(config: SearchConfig, folder: pathlib.Path) -> None:
    """Train every trial; each has a cell of its own, since its training settings are its own."""
    try:
        data = load_images("mnist")
    except DataNotAvailable as error:
        raise RunError(str(error)) from error
    programs: dict[str, Callable[[], Program]] = {}
    jobs = []
    for number in range(config.trials):
        for method in config.methods:
            name = f"{method}-{number}"
            programs[name] = lambda method=method, number=number, name=name: program(
                config, data, method, number, name
            )
            jobs.append(Job(name, config.seed, _place(folder, name, config.seed)))
    run_jobs(jobs, programs, restart=config.restart)


def _place(folder: pathlib.Path, name: str, seed: int) -> pathlib.Path:
    return folder / name / "mnist-mlp" / name / f"seed{seed}"


def program(config: SearchConfig, data: Any, method: str, number: int, name: str) -> Program:
    """The network, method and settings of a trial."""
    rate, strength = trial(config, method, number)
    made = dataclasses.replace(STRENGTHS[method][2](strength), name=name, label=name)
    settings = TrainConfig(
        epochs=config.epochs,
        learning_rate=rate,
        validation_examples=len(data.train.labels) - TRAINED,
        test_examples=300,
    )
    return Program(MLP((1024, 1024), 10), made, settings, data)


def table(
    found: Mapping[str, list[tuple[float, float, float]]], config: SearchConfig, epochs: int
) -> str:
    """The best trial of each method, and how many there were that neither diverged nor stopped."""
    best = {method: min(trials) for method, trials in found.items() if trials}
    columns = {
        "method": list(best),
        "finished trials": [f"{len(found[method])} of {config.trials}" for method in best],
        "least validation error %": [f"{error:.2f}" for error, _, _ in best.values()],
        "median validation error %": [f"{np.median(found[m], 0)[0]:.2f}" for m in best],
        "learning rate": [f"{rate:g}" for _, rate, _ in best.values()],
        "strength": [
            f"{STRENGTHS[method][0]} = {strength:g}" if STRENGTHS[method][0] else ""
            for method, (_, _, strength) in best.items()
        ],
    }
    missing = [method for method, trials in found.items() if not trials]
    return (
        f"MNIST, 784-1024-1024-10, {TRAINED} training images, {epochs} epochs, validated on "
        "the other 48 000, last epoch, one seed. The best of several trials on one split is "
        "optimistic, and differences of a few tenths are chance.\n\n"
        + tables.markdown(columns)
        + (f"\nNot run: {', '.join(missing)}.\n" if missing else "")
    )


if __name__ == "__main__":
    presets = {
        "smoke": SearchConfig(preset="smoke", trials=2, epochs=1),
        "laptop": SearchConfig(preset="laptop"),
    }
    run_experiment(main, SearchConfig, presets)
