"""The comparison's runs as jobs that several processes share."""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from synscale_jax.data import (
    DataNotAvailable,
    ImageSet,
    Split,
    load_images,
    split_validation,
    subset,
)
from synscale_jax.plasticity import power_activation
from synscale_jax.training.plasticity import Examples, LearnerProgram, View
from synscale_jax.training.plasticity_learner import Learner
from synscale_jax.training.plasticity_rows import Row, Size
from synscale_jax.training.plasticity_runs import (
    NotYet,
    load_arrays,
    load_variables,
    share_jobs,
    train_learner,
)
from synscale_jax.training.plasticity_units import UnitsConfig, train_units
from synscale_jax.training.runs import RunError

VALIDATION = 5000  # examples, held out while a learning rate is chosen


@dataclasses.dataclass(frozen=True)
class Study:
    """A comparison on one data set.

    Attributes:
      folder: of all runs: ``<row>/seed<k>``, ``units/seed<k>``, ``tuning/<row>/<rate>/seed0``.
      data: ``"mnist"`` or ``"cifar10"``.
      seeds: every row is trained with each.
      units: the unsupervised phase.
      train_examples: the first so many, or None for all.
      test_examples: likewise.
      shrink: what widths are divided by, for trials.
      most_epochs: cap on epochs, for trials.
      restart: begin runs anew and keep earlier ones aside.
    """

    folder: pathlib.Path
    data: str = "mnist"
    seeds: tuple[int, ...] = (0, 1, 2)
    units: UnitsConfig = dataclasses.field(default_factory=UnitsConfig)
    train_examples: int | None = None
    test_examples: int | None = None
    shrink: int = 1
    most_epochs: int | None = None
    restart: bool = False

    @functools.cached_property
    def images(self) -> ImageSet:
        """The data, cut as asked.

        Raises:
          RunError: if they cannot be had.
        """
        try:
            images = load_images(self.data)
        except DataNotAvailable as error:
            raise RunError(str(error)) from error
        train, test = images.train, images.test
        if self.train_examples is not None:
            train = subset(train, self.train_examples)
        if self.test_examples is not None:
            test = subset(test, self.test_examples)
        return dataclasses.replace(images, train=train, test=test)

    @functools.cached_property
    def size(self) -> Size:
        """What learners need to know of the data."""
        inputs = int(np.prod(self.images.image_shape))
        return Size(self.data, self.images.num_classes, inputs, self.shrink, self.most_epochs)

    @property
    def data_settings(self) -> dict[str, Any]:
        """The data in a run's identity."""
        return {
            "name": self.data,
            "hash": self.images.data_hash,
            "train_examples": len(self.images.train.labels),
            "test_examples": len(self.images.test.labels),
        }


def run_study(
    study: Study,
    rows: Sequence[Row],
    change: Callable[[Learner], Learner] | None = None,
) -> int:
    """Train all rows with all seeds; finished runs are not run again, interrupted ones go on.

    Started in several processes at once, they share the runs.

    Args:
      study: data, seeds and sizes.
      rows: what to train.
      change: makes the learner that is trained from a row's.

    Returns:
      How many runs other processes were doing.
    """
    jobs: list[Callable[[], Any]] = []
    if any(row.units == "competing" for row in rows):
        jobs += [functools.partial(_train_units, study, seed) for seed in study.seeds]
    jobs += [functools.partial(_tune, study, row, r) for row in rows for r in row.rates]
    features = Features(study)
    jobs += [
        functools.partial(train_row, study, row, seed, features, change)
        for seed in study.seeds
        for row in sorted(rows, key=_by_features)  # features of units are kept until others come
    ]
    return share_jobs(jobs)


def _by_features(row: Row) -> tuple[str, str, float]:
    return (row.units or "", row.source, row.power) if row.units else ("", "", 0.0)


def units_folder(study: Study, seed: int) -> pathlib.Path:
    """Where a seed's competing units are."""
    return study.folder / "units" / f"seed{seed}"


def _train_units(study: Study, seed: int) -> None:
    data = {name: str(value) for name, value in study.data_settings.items()}
    folder, images = units_folder(study, seed), study.images.train.images
    train_units(images, study.units, data, seed, folder, restart=study.restart)


def _tune(study: Study, row: Row, rate: float) -> None:
    learner = row.learner(study.size, rate)
    held_out = min(VALIDATION, len(study.images.train.labels) // 5)
    train, validation = split_validation(study.images.train, held_out)
    settings = {**learner.settings, "data": {**study.data_settings, "validation": held_out}}
    train_learner(
        lambda: LearnerProgram(
            learner, _examples(train), _examples(validation), view_of(row, study.images)
        ),
        settings,
        0,
        _tuning_folder(study, row, rate),
        restart=study.restart,
    )


def _tuning_folder(study: Study, row: Row, rate: float) -> pathlib.Path:
    return study.folder / "tuning" / row.name / f"{rate:g}" / "seed0"


def best_rate(study: Study, row: Row) -> float | None:
    """The learning rate with the largest final validation accuracy, None for rows with one.

    Raises:
      NotYet: if a trial is not finished.
    """
    if not row.rates:
        return None
    accuracy = {}
    for rate in row.rates:
        path = _tuning_folder(study, row, rate) / "result.json"
        if not path.exists():
            raise NotYet(path.parent)
        result = json.loads(path.read_text())
        if result["status"] == "finished":
            accuracy[rate] = result["final"]["test_accuracy"]
    if not accuracy:
        raise RunError(f"{row.name} diverged at all of {row.rates}: give it smaller rates.")
    return max(accuracy, key=lambda rate: accuracy[rate])


def train_row(
    study: Study,
    row: Row,
    seed: int,
    features: Features,
    change: Callable[[Learner], Learner] | None = None,
) -> dict[str, Any]:
    """One row with one seed.

    Raises:
      NotYet: if what it starts from is not finished.
    """
    learner = row.learner(study.size, best_rate(study, row))
    learner = learner if change is None else change(learner)
    settings = {**learner.settings, "data": {**study.data_settings, "source": row.source}}
    if row.units is not None:
        settings["units"] = {
            "kind": row.units,
            "power": row.power,
            **dataclasses.asdict(study.units),
        }
    start = None
    if row.start_from is not None:
        earlier = study.folder / row.start_from / f"seed{seed}"
        if not (earlier / "result.json").exists():
            raise NotYet(earlier)
        settings["start"] = {"from": row.start_from, "leaves": list(row.start_leaves)}
        start = functools.partial(_convolutions, earlier, row.start_leaves)

    def program() -> LearnerProgram:
        if row.units is None:
            train, test = _examples(study.images.train), _examples(study.images.test)
            return LearnerProgram(
                learner, train, test, view_of(row, study.images), start() if start else None
            )
        return LearnerProgram(learner, *features.of(row, seed))

    units = units_folder(study, seed)
    if row.units == "competing" and not (units / "result.json").exists():
        raise NotYet(units)
    folder = study.folder / learner.name / f"seed{seed}"
    return train_learner(program, settings, seed, folder, restart=study.restart)


def _convolutions(folder: pathlib.Path, leaves: Sequence[str]) -> dict[str, Any]:
    """The convolutions of a trained network; leaves that are not copied are drawn anew."""
    params = load_variables(folder)["params"]
    return {
        name: {leaf: jnp.asarray(part[leaf]) for leaf in leaves}
        for name, part in params.items()
        if name.startswith("conv")
    }


def _examples(split: Split) -> Examples:
    return Examples(split.images, split.labels)


def view_of(row: Row, images: ImageSet) -> View:
    """How a row sees pixels."""
    if row.source == "signed":
        return View(2 / 255, 1.0)
    if row.source == "centred":
        return View(1 / 255, images.train.images.mean(0, dtype=np.float64).astype(np.float32) / 255)
    return View(1 / 255)


class Features:
    """What fixed units make of the images; the last asked for is kept."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._kept: tuple[Any, tuple[Examples, Examples]] | None = None

    def of(self, row: Row, seed: int) -> tuple[Examples, Examples]:
        """Training and test examples of a row with units."""
        key = (row.units, row.source, row.power, seed)
        if self._kept is None or self._kept[0] != key:
            self._kept = None  # before the next is made: each may take half a gigabyte
            self._kept = (key, self._made(row, seed))
        return self._kept[1]

    def _made(self, row: Row, seed: int) -> tuple[Examples, Examples]:
        weights = self._weights(row, seed)
        made = []
        for split in (self._study.images.train, self._study.images.test):
            inputs = responses(weights, split.images, row.source, row.power)
            made.append(Examples(jnp.asarray(inputs), jnp.asarray(split.labels)))
        if row.source == "scaled":
            scale = root_mean_square(made[0].inputs)
            made = [Examples(part.inputs / scale, part.labels) for part in made]
        if row.source == "standard":
            mean = made[0].inputs.mean(0, keepdims=True)
            deviation = made[0].inputs.std(0, keepdims=True) + 1e-6
            made = [Examples((part.inputs - mean) / deviation, part.labels) for part in made]
        return made[0], made[1]

    def _weights(self, row: Row, seed: int) -> Array:
        if row.units == "competing":
            # Without the folder's lock, which another reader may hold.
            path = units_folder(self._study, seed) / "weights.npz"
            return jnp.asarray(load_arrays(path)["weights"])
        return random_units(seed, (self._study.size.inputs, self._study.units.units))


def random_units(seed: int, shape: tuple[int, int]) -> Array:
    """Units (inputs, units) of length 1 that learned nothing."""
    weights = jax.random.normal(jax.random.fold_in(jax.random.key(seed), 1), shape)
    return weights / jnp.linalg.norm(weights, axis=0, keepdims=True)


def root_mean_square(inputs: Any) -> float:
    """Of everything in an array; what ``"scaled"`` responses are divided by."""
    return float(jnp.linalg.norm(jnp.ravel(inputs)) / inputs.size**0.5)


def responses(
    weights: Array | np.ndarray, images: np.ndarray, source: str, power: float
) -> np.ndarray:
    """What units put out for images in [0, 1].

    Args:
      weights: (inputs, units).
      images: (examples, ...), uint8.
      source: ``"drive"`` for the bare product; its power for others.
      power: n of the response.

    Returns:
      (examples, units), float32.
    """

    @jax.jit
    def respond(weights: Any, part: Any) -> Array:
        drive = (part.reshape(len(part), -1).astype(jnp.float32) / 255) @ weights
        return drive if source == "drive" else power_activation(drive, power)

    out = np.empty((len(images), weights.shape[1]), np.float32)
    for start in range(0, len(images), 5000):
        out[start : start + 5000] = respond(weights, images[start : start + 5000])
    return out
