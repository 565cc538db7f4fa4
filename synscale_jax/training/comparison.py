"""Train several methods under identical seeds and report them side by side."""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import tyro
from flax import linen as nn

from synscale_jax.data import DataNotAvailable, ImageSet, load_images
from synscale_jax.report import tables
from synscale_jax.report.plots import learning_curves
from synscale_jax.training import methods
from synscale_jax.training.config import TrainConfig
from synscale_jax.training.loop import train
from synscale_jax.training.program import Program, split_data
from synscale_jax.training.runs import RunError

MethodName = Literal["baseline", "synscaw", "synscal"]


@dataclasses.dataclass(frozen=True)
class SynScaWSettings:
    """SynScaW; see ``synscale_jax.synscaw`` for what each reading means."""

    scaling_rate: float = 0.01
    """γ."""
    target: Literal["layer_noise", "layer_noise_sampled", "uniform"] | float = "layer_noise"
    """Target activity, by name or a constant."""
    measured_on: Literal["batch", "noise"] = "batch"
    """Where the activity is measured."""
    granularity: Literal["neuron", "layer"] = "neuron"
    """One gap a neuron or one a layer."""
    norm_reading: Literal["pre_norm", "batch_norm", "running_norm"] = "pre_norm"
    """Where normalised layers are read."""
    every_k: int | Literal["epoch"] = 1
    """Scale after every so many optimizer steps, or after each epoch."""
    clip: float | None = None
    """Bound on abs(w² ẑ)."""
    max_relative_change: float | None = None
    """Bound on a step's relative change of a weight."""
    restore_norm: bool = False
    """Restore each neuron's weight norm after scaling."""
    skip_silent_inputs: bool = False
    """Leave out synapses whose input was silent throughout the batch."""
    scale_output: bool = True
    """Scale the output layer, too."""

    def method(self) -> methods.Method:
        """The method with these settings."""
        return methods.synscaw(**dataclasses.asdict(self))


@dataclasses.dataclass(frozen=True)
class SynScaLSettings:
    """SynScaL; see ``synscale_jax.synscal``."""

    scaling_rate: float = 1.0
    """γ."""
    reading: Literal["per_example", "per_example_mean", "batch_mean", "mean_logit"] = "per_example"
    """Which mean of which activity."""

    def method(self) -> methods.Method:
        """The method with these settings."""
        return methods.synscal(**dataclasses.asdict(self))


@dataclasses.dataclass(frozen=True)
class ComparisonConfig:
    """Settings of a comparison; each can be overridden on the command line."""

    train: Annotated[TrainConfig, tyro.conf.arg(name="")] = TrainConfig()
    """How each network is trained."""
    synscaw: SynScaWSettings = SynScaWSettings()
    """SynScaW."""
    synscal: SynScaLSettings = SynScaLSettings()
    """SynScaL."""
    methods: tuple[MethodName, ...] = ("baseline", "synscaw", "synscal")
    """What to compare."""
    seeds: tuple[int, ...] = (0,)
    """Every method is trained with each of these seeds."""
    output: pathlib.Path | None = None
    """Folder of runs, table and figure; by default runs/<experiment>-<preset>."""
    restart: bool = False
    """Begin anew; earlier runs are kept aside."""
    fallback: bool = True
    """Where the images cannot be had, go on with scikit-learn's digits (and say so everywhere)."""

    def __post_init__(self) -> None:
        for name, value in (("methods", self.methods), ("seeds", self.seeds)):
            if not value or len(set(value)) != len(value):
                raise ValueError(f"{name}={value} is empty or repeats itself: name each one once.")
        if min(self.seeds) < 0:
            raise ValueError(f"seeds={self.seeds} has a negative seed: use 0 or more.")
        self.chosen_methods()

    def chosen_methods(self) -> list[methods.Method]:
        """The methods to compare; refuses impossible settings."""
        made = {
            "baseline": methods.baseline(),
            "synscaw": self.synscaw.method(),
            "synscal": self.synscal.method(),
        }
        return [made[name] for name in self.methods]


@dataclasses.dataclass(frozen=True)
class Published:
    """What the paper (or the port) printed for this comparison.

    Attributes:
      source: where, e.g. ``"paper, table I"``.
      errors: method name -> test error in percent.
      protocol: the settings it was obtained with, by name, beside which ours are printed.
    """

    source: str
    errors: Mapping[str, float]
    protocol: Mapping[str, Any]


def compare(
    config: ComparisonConfig,
    data_name: str,
    experiment: str,
    make_model: Callable[[int], nn.Module],
    published: Published,
    ours: Mapping[str, Any],
) -> dict[str, list[dict[str, Any]]]:
    """Train all methods and seeds, then write and print table and figure.

    Args:
      config: the settings.
      data_name: the image set.
      experiment: what files and titles are called, e.g. ``"cifar100_resnet20"``.
      make_model: number of classes -> model.
      published: the figures and settings to stand beside.
      ours: our settings under the names of ``published.protocol``, where the config does not
        say them.

    Returns:
      Method name -> result JSONs, one a seed.
    """
    data = load_or_fall_back(data_name, config.fallback)
    if data.name != data_name:
        experiment = experiment.replace(data_name, data.name)
        config = _for_digits(config)
        published = dataclasses.replace(published, errors={})
    split_data(data, config.train)  # refuses impossible splits before anything is compiled
    folder = config.output or pathlib.Path("runs") / experiment
    if data.name not in str(folder) and data.name != data_name:
        folder = folder / data.name
    model = make_model(data.num_classes)
    results: dict[str, list[dict[str, Any]]] = {}
    labels = {method.name: method.label for method in config.chosen_methods()}
    for method in config.chosen_methods():
        program = Program(model, method, config.train, data)
        results[method.name] = [
            train(program, seed, folder / method.name / f"seed{seed}", restart=config.restart)
            for seed in config.seeds
        ]
    _report(results, labels, folder, experiment, data, published, _settings(config, data, ours))
    return results


def load_or_fall_back(name: str, fallback: bool) -> ImageSet:
    """Load an image set; where it cannot be had, digits under a loud banner, or an exit."""
    try:
        return load_images(name)
    except DataNotAvailable as error:
        if not fallback:
            raise SystemExit(f"{error} (--no-fallback: stopping here)") from None
        line = "!" * 78
        print(
            f"{line}\n{error}\nGOING ON WITH scikit-learn's DIGITS INSTEAD: every number, file and "
            f"plot below is about digits, not {name}.\n{line}",
            file=sys.stderr,
        )
        return load_images("digits")


def _for_digits(config: ComparisonConfig) -> ComparisonConfig:
    """The settings with splits that the 1437 training digits can bear."""
    validation = min(config.train.validation_examples, 200)
    smaller = dataclasses.replace(
        config.train, train_examples=None, test_examples=None, validation_examples=validation
    )
    return dataclasses.replace(config, train=smaller)


def _settings(
    config: ComparisonConfig, data: ImageSet, ours: Mapping[str, Any]
) -> dict[str, Any]:
    """Our settings under the names that protocols use."""
    splits, settings = split_data(data, config.train), config.train
    return {
        "data": data.name,
        "training images": len(splits.train.labels),
        "test images": len(splits.test.labels),
        "checkpoint chosen on": "test" if splits.validation is None else "validation",
        "epochs": settings.epochs,
        "batch": settings.batch,
        "optimizer": settings.optimizer,
        "learning rate": settings.learning_rate,
        "decay": f"× {settings.decay} every {settings.decay_epochs} epochs",
        "augmentation": "crops and flips" if settings.augment else "none",
        "normalization": settings.normalization or "none",
        "SynScaW γ": config.synscaw.scaling_rate,
        "SynScaL γ": config.synscal.scaling_rate,
        **ours,
    }


def _report(
    results: Mapping[str, list[dict[str, Any]]],
    labels: Mapping[str, str],
    folder: pathlib.Path,
    experiment: str,
    data: ImageSet,
    published: Published,
    settings: Mapping[str, Any],
) -> None:
    """Write table and figure below ``folder`` and print the table."""
    rows = tables.method_rows(results, labels, published.errors)
    protocol = [
        f"| {name} | {theirs} | {settings.get(name, 'not said')} | "
        + ("" if str(settings.get(name)) == str(theirs) else "deviates")
        + " |"
        for name, theirs in published.protocol.items()
    ]
    run = next(runs[0] for runs in results.values())
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    text = (
        f"# {experiment}\n\n{tables.markdown(rows)}\n"
        f"Test error in percent, mean ± standard deviation over seeds; Δ with its 95 % interval "
        f"(Student's t, runs paired by seed). Beside it: {published.source}. Data: {data.name} "
        f"({data.data_hash[:12]}). {versions}; {run['device']}, {run['cpu']}; convolutions "
        f"{run['convolution']}; commit {run['commit']}. `{run['command']}`\n\n"
        "| setting | published | here | |\n| --- | --- | --- | --- |\n" + "\n".join(protocol) + "\n"
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{experiment}.md").write_text(text)
    (folder / f"{experiment}.csv").write_text(tables.as_csv(rows))
    figure = folder / f"{experiment}.png"
    learning_curves(results, labels, f"{experiment} ({data.name})", figure)
    deviations = [line for line in protocol if "deviates" in line]
    print(f"\n{experiment}\n{tables.plain(rows)}\nbeside it: {published.source}")
    print(f"{len(deviations)} settings deviate from the published protocol:")
    print(*(line.replace("| deviates |", "").strip("| ") for line in deviations), sep="\n")
    print(f"\ntable and figure: {figure.with_suffix('.md')}, .csv, .png")


def run_experiment(main: Callable[[Any], Any], config_type: type, presets: Mapping[str, Any]) -> None:
    """Parse the command line over a preset, run, and turn refusals into one sentence.

    ``--preset NAME`` gives the defaults that every other option overrides.

    Args:
      main: takes the resolved config.
      config_type: a frozen dataclass with a field ``preset``.
      presets: name -> config.
    """
    try:
        main(resolve(config_type, presets, sys.argv[1:]))
    except (ValueError, RunError) as error:
        raise SystemExit(f"error: {error}") from None


def resolve(config_type: type, presets: Mapping[str, Any], arguments: list[str]) -> Any:
    """The config that a command line asks for."""
    name = default_preset()
    for index, argument in enumerate(arguments):
        if argument == "--preset" and index + 1 < len(arguments):
            name = arguments[index + 1]
        elif argument.startswith("--preset="):
            name = argument.removeprefix("--preset=")
    if name not in presets:
        raise ValueError(f"--preset {name} is unknown: use one of {', '.join(presets)}.")
    return tyro.cli(config_type, default=presets[name], args=arguments)


def default_preset() -> str:
    """``"paper"`` where an accelerator is found, else ``"laptop"``."""
    import jax

    return "laptop" if jax.default_backend() == "cpu" else "paper"
