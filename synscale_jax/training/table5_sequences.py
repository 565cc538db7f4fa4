"""Table V's rows of sequences: IMDB and sequential MNIST with GRU and LSTM, and the Bonn EEG."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from synscale_jax.analysis.significance import Interval, verdict
from synscale_jax.data import DataNotAvailable, ImageSet, Split, load_images, load_imdb
from synscale_jax.data.eeg import evaluation_windows, load_eeg, standardised, training_windows
from synscale_jax.models import FrequencyDecompositionNetwork, RecurrentClassifier
from synscale_jax.report.collect import Results, collect, finished
from synscale_jax.report.plots import Dot
from synscale_jax.report.statistics import Estimate, estimate, spread
from synscale_jax.training.config import TrainConfig
from synscale_jax.training.folds import FoldConfig
from synscale_jax.training.program import Program
from synscale_jax.training.runs import RunError
from synscale_jax.training.sweep import Job, run_jobs
from synscale_jax.training.table5 import METHODS, table5_methods
from synscale_jax.training.table5_report import LABELS, READING_LABELS, TIE, judged

EEG = "epileptic_seizure"
EEG_FOLDS = 10
FAR = 10.0  # points; a published difference beyond is a triangle at the figure's edge
PAPER_BEST_EPOCH = 5  # the latest mean epoch that the paper prints for the recurrent rows


@dataclasses.dataclass(frozen=True)
class SequenceSettings:
    """What the paper does not print about its recurrent networks; all of it is ours."""

    hidden: int = 128
    """Units of a recurrent layer."""
    layers: int = 1
    """Recurrent layers."""
    embedding: int = 128
    """Width of the embedding of words."""
    vocabulary: int = 20_000
    """Words that have a number, the most frequent first."""
    length: int = 200
    """Words of a review that are read, its first ones."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 1:
                raise ValueError(f"{field.name}={getattr(self, field.name)}: use 1 or more.")


class SequenceRow(NamedTuple):
    """A row of sequences.

    Attributes:
      label: what the paper calls it.
      data: ``"imdb"``, ``"mnist"`` or ``"epileptic_seizure"``.
      cell: of the recurrent network; empty for the EEG, which has a network of its own.
      published: method -> the paper's accuracy in percent.
      inputs: pixels that a step reads, where the data are images.
    """

    label: str
    data: str
    cell: str
    published: Mapping[str, float]
    inputs: int = 1


def _published(*accuracies: float) -> Mapping[str, float]:
    return MappingProxyType(dict(zip(METHODS, accuracies, strict=True)))


_MNIST_GRU = _published(98.32, 97.62, 98.14, 98.49, 98.37)
_MNIST_LSTM = _published(98.83, 98.53, 98.91, 98.90, 98.83)
SEQUENCE_ROWS: Mapping[str, SequenceRow] = MappingProxyType(
    {
        "imdb_gru": SequenceRow(
            "IMDB GRU", "imdb", "gru", _published(82.26, 80.76, 82.76, 82.98, 82.32)
        ),
        "imdb_lstm": SequenceRow(
            "IMDB LSTM", "imdb", "lstm", _published(87.57, 84.39, 86.01, 88.05, 87.60)
        ),
        "mnist_gru": SequenceRow("seq. MNIST GRU", "mnist", "gru", _MNIST_GRU),
        "mnist_lstm": SequenceRow("seq. MNIST LSTM", "mnist", "lstm", _MNIST_LSTM),
        # The paper does not say whether a step reads a pixel or a row of the image.
        "mnist_rows_gru": SequenceRow("seq. MNIST GRU, by rows", "mnist", "gru", _MNIST_GRU, 28),
        "mnist_rows_lstm": SequenceRow(
            "seq. MNIST LSTM, by rows", "mnist", "lstm", _MNIST_LSTM, 28
        ),
        EEG: SequenceRow(
            "Epileptic seizure", EEG, "", _published(89.55, 38.50, 89.45, 90.00, 89.70)
        ),
    }
)
"""Row name -> the row."""


def sequence_data(row: SequenceRow, settings: SequenceSettings) -> ImageSet:
    """The sequences of a row, in the form that the trainer of images takes.

    Raises:
      RunError: in one sentence, if they cannot be had.
    """
    try:
        if row.data == EEG:
            return eeg_fold(0)
        if row.data == "imdb":
            return load_imdb(vocabulary=settings.vocabulary, length=settings.length)
        return load_images(row.data)
    except DataNotAvailable as error:
        raise RunError(str(error)) from error


def eeg_fold(fold: int, *, seed: int = 0) -> ImageSet:
    """A fold of the EEG by segment: overlapping windows to train on, four windows a test segment.

    No window straddles segments, and no segment is on both sides. The training windows of another
    tenth of the segments come last, 2850 of them: held out to choose an epoch by, they share no
    segment with the windows before. Signals are scaled by mean and deviation of the training
    windows.

    Args:
      fold: which of the ten.
      seed: of the partition.
    """
    segments = load_eeg()
    order = np.random.default_rng(seed).permutation(len(segments.labels))
    parts = np.array_split(order, EEG_FOLDS)
    held, last = np.sort(parts[fold]), parts[fold - 1]
    train = training_windows(segments, np.setdiff1d(order, held))
    test = evaluation_windows(segments, held)
    mixed = np.random.default_rng(seed).permutation(len(train.labels))
    mixed = mixed[np.argsort(np.isin(train.segment[mixed], last), kind="stable")]
    splits = (
        Split(standardised(train.inputs, train.inputs)[mixed], train.labels[mixed]),
        Split(standardised(test.inputs, train.inputs), test.labels),
    )
    digest = hashlib.sha256(b"".join(array.tobytes() for split in splits for array in split))
    return ImageSet(f"{EEG}-fold{fold}", *splits, segments.class_names, digest.hexdigest())


def sequence_model(row: SequenceRow, settings: SequenceSettings, classes: int) -> Any:
    """The network of a row."""
    if row.data == EEG:
        return FrequencyDecompositionNetwork(classes)
    # Numbers below 2 are padding and unknown words.
    words = settings.vocabulary + 2 if row.data == "imdb" else None
    return RecurrentClassifier(
        row.cell,  # pyright: ignore[reportArgumentType]
        classes,
        hidden=settings.hidden,
        layers=settings.layers,
        vocabulary=words,
        embedding=settings.embedding,
        inputs=row.inputs,
    )


def run_sequences(
    folder: pathlib.Path,
    rows: Sequence[str],
    names: Sequence[str],
    seeds: Sequence[int],
    train: TrainConfig,
    settings: SequenceSettings,
    *,
    restart: bool = False,
) -> list[Job]:
    """Train every row with every method and seed in ``<folder>/<row>/<method>/seed<k>``.

    Returns:
      What other processes were doing, see :func:`~synscale_jax.training.sweep.run_jobs`.

    Raises:
      RunError: if data cannot be had or a run cannot be done.
    """
    decays = FoldConfig(
        learning_rate=train.learning_rate, decay=train.decay, decay_epochs=train.decay_epochs
    )
    programs: dict[str, Callable[[], Program]] = {}
    jobs = []
    for name in rows:
        row = SEQUENCE_ROWS[name]
        data = functools.cache(functools.partial(sequence_data, row, settings))
        for method in table5_methods(decays, names):
            programs[f"{name}/{method.name}"] = functools.partial(
                _program, row, method, train, settings, data
            )
        jobs += [
            Job(f"{name}/{method}", seed, folder / name / method / f"seed{seed}")
            for seed in seeds
            for method in names
        ]
    return run_jobs(jobs, programs, restart=restart)


def _program(
    row: SequenceRow,
    method: Any,
    train: TrainConfig,
    settings: SequenceSettings,
    data: Callable[[], ImageSet],
) -> Program:
    found = data()
    model = sequence_model(row, settings, found.num_classes)
    try:
        return Program(model, method, train, found)
    except ValueError as error:
        raise RunError(f"{row.label}, {method.label}: {error}") from error


def sequence_table(name: str, column: Mapping[str, Sequence[dict[str, Any]]]) -> dict[str, Any]:
    """One row of sequences: heading -> one cell a method; empty columns are left out.

    The difference and the verdict are of the best epoch on the test set, as the paper's figure is.
    Runs that are shorter or on less data, by their own record, get no verdict, nor does the EEG.
    """
    published = SEQUENCE_ROWS[name].published
    comparable = all(_whole(run["config"]) for runs in column.values() for run in runs)
    lines = []
    for method, runs in column.items():
        done = finished(runs)
        if not runs:
            continue
        line = {
            "method": LABELS[method],
            "seeds": str(len(done)),
            "diverged": str(len(runs) - len(done) or ""),
            READING_LABELS["final"]: _spread([_last(run) for run in done.values()]),
            READING_LABELS["best_on_validation"]: _spread(
                [_best(run, "validation", "test") for run in done.values()]
            ),
            READING_LABELS["best_on_test"]: _spread(
                [_best(run, "test", "test") for run in done.values()]
            ),
            "published": f"{published[method]:.2f}",
        }
        if method != "baseline":
            gap = _gap(column, method)
            printed = published[method] - published["baseline"]
            line["Δ best on test [95 %]"] = _interval(gap)
            line["published Δ"] = f"{printed:+.2f}"
            line["verdict"] = _verdict(name, gap, printed, comparable)
        lines.append(line)
    headings = list(dict.fromkeys(heading for line in lines for heading in line))
    columns = {heading: [line.get(heading, "") for line in lines] for heading in headings}
    return {heading: cells for heading, cells in columns.items() if any(cells)}


def sequence_dots(folder: pathlib.Path) -> dict[str, list[Dot]]:
    """Every row of sequences for table V's figure: difference to the baseline in points of error.

    Args:
      folder: of ``experiments/table5_sequences.py``.

    Returns:
      Label of a method -> a line a row, of which those not run, and the EEG, have the paper's
      difference alone; images by rows have a line once they are run. Empty where nothing was run.
    """
    results: Results = {}
    for preset in ("laptop", "mnist", "mnist_rows"):
        found = collect(folder / preset, tuple(SEQUENCE_ROWS), METHODS)
        results |= {name: column for name, column in found.items() if any(column.values())}
    if not results:
        return {}
    names = [name for name, row in SEQUENCE_ROWS.items() if row.inputs == 1 or name in results]
    return {
        LABELS[method]: [_line(name, results.get(name, {}), method) for name in names]
        for method in METHODS[1:]
    }


def _line(name: str, column: Mapping[str, Sequence[dict[str, Any]]], method: str) -> Dot:
    row, gap = SEQUENCE_ROWS[name], None if name == EEG else _gap(column, method)
    printed = row.published["baseline"] - row.published[method]
    # Dropout on the EEG: 51 points would leave no room for the rest.
    far = abs(printed) > FAR
    mark, direction = (None, int(np.sign(printed))) if far else (printed, 0)
    if gap is None:
        return Dot(row.label, None, None, None, mark, direction)
    found = _as_interval(gap)
    low, high = (None, None) if found is None else (-found.high, -found.low)
    return Dot(row.label, -gap.mean, low, high, mark, direction)


def _gap(column: Mapping[str, Sequence[dict[str, Any]]], method: str) -> Estimate | None:
    """Difference to the baseline in the paper's reading, in points of accuracy, over seeds."""
    ours, base = (finished(column.get(name, ())) for name in (method, "baseline"))
    gaps = [
        _best(ours[seed], "test", "test") - _best(base[seed], "test", "test")
        for seed in ours
        if seed in base
    ]
    return estimate(gaps) if gaps else None


def _whole(config: Mapping[str, Any]) -> bool:
    """Whether a run saw all data for as long as the paper's best took."""
    cut = config["train_examples"] is not None or config["test_examples"] is not None
    return not cut and config["epochs"] >= PAPER_BEST_EPOCH


def _verdict(name: str, gap: Estimate | None, printed: float, comparable: bool) -> str:
    if name == EEG:  # a part of one fold is not the row
        return verdict(None, printed, needs="an accelerator")
    if gap is None or gap.count < 2:
        return verdict(None, printed, comparable=comparable)
    return judged(_as_interval(gap), printed, comparable=comparable)


def _last(run: Mapping[str, Any]) -> float:
    return 100 * run["final"]["test_accuracy"]


def _best(run: Mapping[str, Any], chosen_on: str, of: str) -> float:
    """Accuracy in percent of the epoch that is best on a split; nan without that split."""
    key = f"{chosen_on}_accuracy"
    if key not in run["history"][0]:
        return float("nan")
    return 100 * max(run["history"], key=lambda line: line[key])[f"{of}_accuracy"]


def _spread(values: Sequence[float]) -> str:
    return "" if np.isnan(values).any() else spread(values)


def _interval(gap: Estimate | None) -> str:
    if gap is None:
        return ""
    found = _as_interval(gap)
    ends = "" if found is None else f" [{found.low:+.2f}, {found.high:+.2f}]"
    return f"{gap.mean:+.2f}{ends}"


def _as_interval(gap: Estimate | None) -> Interval | None:
    """None for one seed, and where all differences are equal, which says nothing of spread."""
    if gap is None or gap.low is None or gap.high is None or not round(gap.deviation or 0, TIE):
        return None
    return Interval(gap.mean, gap.low, gap.high)
