"""Train several methods under identical seeds and report them side by side."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from flax import linen as nn

from synscale_jax.data import DataNotAvailable, ImageSet, load_images
from synscale_jax.data.imagenet import StreamedSet
from synscale_jax.report import tables
from synscale_jax.report.plots import learning_curves
from synscale_jax.training.loop import NOTHING_ELSE, Measures, train
from synscale_jax.training.methods import Method
from synscale_jax.training.program import BaseProgram, Program, split_data
from synscale_jax.training.provenance import write_text
from synscale_jax.training.published import NOT_SAID, Published
from synscale_jax.training.runs import RunError
from synscale_jax.training.settings import ComparisonConfig, MethodsConfig, SynScaWSettings


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

    Raises:
      RunError: in one sentence, for what is impossible, before anything is compiled; for a folder
        that cannot be written, then or later.
    """
    folder = config.output or pathlib.Path("runs") / experiment
    refuse_unwritable(folder)
    data = load_or_fall_back(data_name, config.fallback)
    if data.name != data_name:
        experiment = experiment.replace(data_name, data.name)
        folder = config.output / data.name if config.output else folder.with_name(experiment)
        published = Published(f"nothing for {data.name}", {}, {})
        config = _for_digits(config, data)
    with _refusals():
        split_data(data, config.train)
        model = make_model(data.num_classes)
    results = train_methods(
        config, lambda method: Program(model, method, config.train, data), folder
    )
    write_report(
        config, results, folder, experiment, data, published, _settings(config, data, ours)
    )
    return results


def train_methods(
    config: MethodsConfig,
    make_program: Callable[[Method], BaseProgram],
    folder: pathlib.Path,
    measures: Measures = NOTHING_ELSE,
) -> dict[str, list[dict[str, Any]]]:
    """Train every method with every seed, each in ``<folder>/<method>/seed<k>``.

    Args:
      config: methods, seeds, and whether to begin anew.
      make_program: what is trained with a method.
      folder: of the runs.
      measures: what else is to be kept.

    Returns:
      Method name -> result JSONs, one a seed.

    Raises:
      RunError: if the settings are impossible, before that method is compiled, or a folder cannot
        be used.
    """
    results: dict[str, list[dict[str, Any]]] = {}
    for method in config.chosen_methods():
        with _refusals():
            program = make_program(method)
        results[method.name] = [
            train(
                program,
                seed,
                folder / method.name / f"seed{seed}",
                measures=measures,
                restart=config.restart,
            )
            for seed in config.seeds
        ]
    return results


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """What settings lead to before training is the user's to mend; later it would be a bug."""
    try:
        yield
    except ValueError as error:
        raise RunError(str(error)) from error


def refuse_unwritable(folder: pathlib.Path) -> None:
    """Refuse a folder that could not be made, without making it."""
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        reason = "may not be written" if there.is_dir() else "is no folder"
        raise RunError(
            f"cannot write to {folder} ({there} {reason}): choose another folder with --output."
        )


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


def _for_digits(config: ComparisonConfig, data: ImageSet) -> ComparisonConfig:
    """The settings, without those subsets and splits that are too large for the digits."""
    settings = config.train
    validation = min(settings.validation_examples, 200)
    train, test = len(data.train.labels) - validation, len(data.test.labels)

    def fitting(wanted: int | None, there: int) -> int | None:
        return wanted if wanted is not None and wanted <= there else None

    smaller = dataclasses.replace(
        settings,
        validation_examples=validation,
        train_examples=fitting(settings.train_examples, train),
        test_examples=fitting(settings.test_examples, test),
    )
    return dataclasses.replace(config, train=smaller)


def _settings(config: ComparisonConfig, data: ImageSet, ours: Mapping[str, Any]) -> dict[str, Any]:
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
        **scaling_settings(config),
        **ours,
    }


def scaling_settings(config: MethodsConfig) -> dict[str, Any]:
    """Settings of SynScaW and SynScaL under the names that protocols use."""
    return {
        "SynScaW γ": config.synscaw.scaling_rate,
        "SynScaW reading": _reading(config.synscaw),
        "SynScaL γ": config.synscal.scaling_rate,
        "SynScaL reading": config.synscal.reading,
    }


def _reading(settings: SynScaWSettings) -> str:
    """The target, and what else is not as in the paper's text."""
    plain = SynScaWSettings(restore_norm=False, scale_output=True)  # as the text has it
    others = [
        f"{field.name} {getattr(settings, field.name)}"
        for field in dataclasses.fields(settings)
        if field.name not in ("scaling_rate", "target")
        and getattr(settings, field.name) != getattr(plain, field.name)
    ]
    return ", ".join([f"target {settings.target}", *others])


def write_report(
    config: MethodsConfig,
    results: Mapping[str, list[dict[str, Any]]],
    folder: pathlib.Path,
    experiment: str,
    data: ImageSet | StreamedSet,
    published: Published,
    settings: Mapping[str, Any],
) -> None:
    """Write table and figure below ``folder`` and print the table.

    Args:
      config: the methods.
      results: from :func:`train_methods`.
      folder: where the files go.
      experiment: what they and titles are called.
      data: the images.
      published: the figures and settings to stand beside.
      settings: ours, under the names of ``published.protocol``.

    Raises:
      RunError: if the folder cannot be written.
    """
    labels = {method.name: method.label for method in config.chosen_methods()}
    try:
        _report(results, labels, folder, experiment, data, published, settings)
    except OSError as error:
        raise RunError(
            f"cannot write the table and figure to {folder} ({error.strerror}): mend that and give "
            "the same command again, the runs are kept."
        ) from error


def _report(
    results: Mapping[str, list[dict[str, Any]]],
    labels: Mapping[str, str],
    folder: pathlib.Path,
    experiment: str,
    data: ImageSet | StreamedSet,
    published: Published,
    settings: Mapping[str, Any],
) -> None:
    rows = tables.method_rows(results, labels, published.errors)
    everything = [run for runs in results.values() for run in runs]
    table = tables.columns(rows, _chosen_on(everything[0]))
    protocol = [
        (name, str(theirs), str(settings.get(name, NOT_SAID)))
        for name, theirs in published.protocol.items()
    ]
    text = (
        f"# {experiment}\n\n{tables.markdown(table)}\n"
        f"{_reading_aid(results)} Published: {published.source}. Data: {data.name} "
        f"({data.data_hash[:12]}). {tables.origin(*everything)}\n\n"
    )
    if protocol:
        text += "| setting | published | here | |\n| --- | --- | --- | --- |\n" + "".join(
            f"| {name} | {theirs} | {ours} | {_verdict(theirs, ours)} |\n"
            for name, theirs, ours in protocol
        )
    else:
        text += "| setting | here |\n| --- | --- |\n" + "".join(
            f"| {name} | {ours} |\n" for name, ours in settings.items()
        )
    write_text(folder / f"{experiment}.md", text)
    write_text(folder / f"{experiment}.csv", tables.as_csv(rows))
    figure = folder / f"{experiment}.png"
    title = experiment if data.name in experiment else f"{experiment} ({data.name})"
    learning_curves(results, labels, title, figure)

    print(f"\n{experiment}\n{tables.plain(table)}\n{_reading_aid(results)}")
    print(f"Published: {published.source}.")
    deviations = [row for row in protocol if _verdict(*row[1:]) == "deviates"]
    if protocol:
        print(f"{len(deviations)} settings deviate from the published protocol:")
    for name, theirs, ours in deviations:
        print(f"  {name}: {ours} (published: {theirs})")
    print(f"Table and figure: {figure.with_suffix('.md')}, .csv and .png")


def _verdict(published: str, ours: str) -> str:
    if published == NOT_SAID:
        return "our choice"
    return "" if published == ours else "deviates"


def _chosen_on(run: Mapping[str, Any]) -> str:
    return "validation" if run["config"].get("validation_examples") else "test"


def _reading_aid(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """What the table's numbers are; says outright what one seed cannot tell."""
    if max(map(len, results.values())) == 1:
        return "Test error in percent. One seed a method: the differences may be chance."
    return (
        "Test error in percent, mean ± standard deviation over seeds; Δ with its 95 % interval "
        "(Student's t, runs paired by seed)."
    )
