"""The paper's tabular sets, their folds, and what is fitted to a training fold alone."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int
from numpy import ndarray

from synscale_jax.data._readers import READERS

TABLES = tuple(READERS)
"""The names that :func:`load_table` knows."""

WIDTH_FACTOR = 10  # hidden units a layer for each input and class


@dataclasses.dataclass(frozen=True)
class Table:
    """A tabular set as it was published: nothing is filled in, coded or scaled.

    Attributes:
      name: the name it was loaded by.
      scalars: float64 array (rows, scalars), NaN where a value is missing.
      categories: int32 array (rows, categories), codes from 0; a code of ``levels`` has no input.
      levels: how many levels each category has, one input each.
      columns: names of the columns, scalars first.
      target: int32 labels (rows,) from 0, or float64 values (rows,).
      class_names: one name a class; empty for regression.
      groups: int32 array (rows,): rows that belong together, or None.
      group_name: what a group is: ``"subject"``, ``"country"``, ``"sample id"``.
      unit: of the target of a regression.
    """

    name: str
    scalars: ndarray = dataclasses.field(repr=False)
    categories: ndarray = dataclasses.field(repr=False)
    levels: tuple[int, ...]
    columns: tuple[str, ...]
    target: ndarray = dataclasses.field(repr=False)
    class_names: tuple[str, ...]
    groups: ndarray | None = dataclasses.field(repr=False)
    group_name: str
    unit: str

    @property
    def num_classes(self) -> int:
        """How many classes there are; 0 for regression."""
        return len(self.class_names)

    @property
    def num_inputs(self) -> int:
        """How many inputs a network has, the scalars and one for each level of a category."""
        return self.scalars.shape[1] + sum(self.levels)

    @property
    def width(self) -> int:
        """How many hidden units a layer has, ten an input, times the number of classes."""
        return WIDTH_FACTOR * self.num_inputs * max(1, self.num_classes)

    @functools.cached_property
    def data_hash(self) -> str:
        """SHA-256 in hex over shapes and bytes of columns and target."""
        digest = hashlib.sha256()
        for array in (self.scalars, self.categories, self.target):
            digest.update(f"{array.shape}{array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


class Fold(NamedTuple):
    """One fold of a cross-validation, as row numbers.

    Attributes:
      train: int array, the rows to train on.
      validation: int array, held out of the training part; empty if none were asked for.
      test: int array, the rows of the fold.
    """

    train: ndarray
    validation: ndarray
    test: ndarray


class Prepared(NamedTuple):
    """A table as a network sees it in one fold; everything is fitted to ``fold.train`` alone.

    Attributes:
      inputs: float32 array (rows, inputs), of all rows.
      targets: int32 labels, or float32 values scaled so that training targets span [0, 1].
      class_weights: float32 array (classes,), rows / (classes × rows of the class).
      target_low: the smallest training target; 0 for classification.
      target_range: largest minus smallest training target; 1 for classification.
      target_mean: mean of the scaled training targets; 0 for classification.
    """

    inputs: Float32[ndarray, "rows inputs"]
    targets: ndarray
    class_weights: Float32[ndarray, " classes"]
    target_low: float
    target_range: float
    target_mean: float


def load_table(name: str) -> Table:
    """Loads one of the paper's tabular sets.

    Files are fetched once from their public addresses, with a hash that is checked each time, into
    ``$SYNSCALE_DATA_DIR`` or ``~/.cache/synscale_jax``. ``life_expectancy`` has no address that a
    program may read and has to be put there; ``diabetes`` comes with scikit-learn.

    ``breast_cancer`` has tumor size as a scalar and eight attributes one-hot with '?' as a level,
    the paper's 1 + 32 inputs; ``breast_cancer_41`` has all nine one-hot. ``mesothelioma`` has the
    column ``diagnosis method``, which is the label; ``mesothelioma_blind`` has it not.

    Args:
      name: one of :data:`TABLES`.

    Returns:
      A :class:`Table`.

    Raises:
      ValueError: if no such set is known.
      DataNotAvailable: if its file cannot be had, or is another one than is expected.

    Examples:
      >>> from synscale_jax.data import load_table
      >>> table = load_table("diabetes")
      >>> table.scalars.shape, table.num_inputs, table.width
      ((442, 10), 10, 100)

    References:
      The UCI machine learning repository; Efron et al., Least angle regression, 2004 (diabetes).
    """
    if name not in READERS:
        raise ValueError(f"There is no table {name!r}: choose one of {', '.join(READERS)}.")
    return Table(name, *READERS[name]())


def make_folds(
    table: Table, seed: int, *, count: int = 10, validation: float = 0.1, grouped: bool = False
) -> list[Fold]:
    """Cuts a table into folds, and a validation part off each training part.

    Args:
      table: the rows to divide.
      seed: of the partition.
      count: how many folds, 2 or more.
      validation: share of the training part that is held out to choose an epoch by; 0: none.
      grouped: whether rows of a group stay together, in folds of about equal size, and in the
        validation part as well; otherwise rows are drawn at random, as the paper does.

    Returns:
      One :class:`Fold` a fold; their test rows are all rows, each once.

    Raises:
      ValueError: if there are fewer rows or groups than folds, or the table has no groups.

    Examples:
      >>> from synscale_jax.data import load_table, make_folds
      >>> folds = make_folds(load_table("diabetes"), seed=0)
      >>> len(folds), len(folds[0].train), len(folds[0].validation), len(folds[0].test)
      (10, 358, 39, 45)
    """
    rows = len(table.target)
    if grouped and table.groups is None:
        raise ValueError(f"{table.name} has no groups: leave grouped=True out.")
    groups = table.groups if grouped and table.groups is not None else np.arange(rows)
    most = len(np.unique(groups))
    if not 2 <= count <= most:
        raise ValueError(f"count={count} folds of {table.name} cannot be: use 2 to {most}.")
    if not 0 <= validation < 1:
        raise ValueError(f"validation={validation} is no share: use 0 or more, below 1.")
    generator = np.random.default_rng([seed, count])
    parts = _divide(groups, count, generator)
    return [_fold(parts, index, groups, validation, generator) for index in range(count)]


def _divide(groups: ndarray, count: int, generator: np.random.Generator) -> list[ndarray]:
    """Rows in parts of about equal size; the largest groups are dealt first."""
    names, sizes = np.unique(groups, return_counts=True)
    order = generator.permutation(len(names))
    order = order[np.argsort(-sizes[order], kind="stable")]
    held, part_of = np.zeros(count, int), np.zeros(len(names), int)
    for group in order:
        part_of[group] = np.argmin(held)
        held[part_of[group]] += sizes[group]
    part_of_row = part_of[np.searchsorted(names, groups)]
    return [np.flatnonzero(part_of_row == part) for part in range(count)]


def _fold(
    parts: Sequence[ndarray],
    index: int,
    groups: ndarray,
    validation: float,
    generator: np.random.Generator,
) -> Fold:
    train = np.sort(np.concatenate([part for i, part in enumerate(parts) if i != index]))
    names = generator.permutation(np.unique(groups[train]))
    sizes = np.cumsum([np.sum(groups[train] == name) for name in names]) if validation else [0]
    held = names[: int(np.searchsorted(sizes, validation * len(train), side="right"))]
    out = np.isin(groups[train], held) if validation else np.zeros(len(train), bool)
    return Fold(train[~out], train[out], parts[index])


def prepare(table: Table, train: Int[ndarray, " rows"]) -> Prepared:
    """Fills in, codes and scales a table by the statistics of some of its rows.

    A missing scalar becomes the mean, scalars get mean 0 and deviation 1 (a constant one becomes
    0), a category one input a level. Which levels there are is the table's own statement, no
    statistic. Targets of a regression are scaled by their smallest and largest value.

    Args:
      table: the set.
      train: row numbers that statistics may be taken from.

    Returns:
      A :class:`Prepared`, of all rows.

    Raises:
      ValueError: if a class is not among the training rows, or all targets are equal.
    """
    with np.errstate(invalid="ignore"):
        known = np.isfinite(table.scalars[train])
        count = np.maximum(known.sum(0), 1)
        mean = np.where(known, table.scalars[train], 0).sum(0) / count
        spread = np.sqrt((np.where(known, table.scalars[train] - mean, 0) ** 2).sum(0) / count)
    varies = spread > 1e-12 * np.abs(mean)
    filled = np.where(np.isfinite(table.scalars), table.scalars, mean)
    scaled = np.where(varies, (filled - mean) / np.where(varies, spread, 1), 0)
    coded = [
        (table.categories[:, column, None] == np.arange(levels))
        for column, levels in enumerate(table.levels)
    ]
    inputs = np.concatenate([scaled, *coded], 1).astype(np.float32)
    if table.num_classes:
        counts = np.bincount(table.target[train], minlength=table.num_classes)
        if not counts.all():
            raise ValueError(
                f"class {table.class_names[int(np.argmin(counts))]!r} of {table.name} is not among "
                f"the {len(train)} training rows: use more folds or another seed."
            )
        weights = (len(train) / (table.num_classes * counts)).astype(np.float32)
        return Prepared(inputs, table.target, weights, 0.0, 1.0, 0.0)
    low, high = float(table.target[train].min()), float(table.target[train].max())
    if low == high:
        raise ValueError(f"all training targets of {table.name} are {low}: nothing to learn.")
    targets = ((table.target - low) / (high - low)).astype(np.float32)
    none = np.zeros(0, np.float32)
    return Prepared(inputs, targets, none, low, high - low, float(targets[train].mean()))


def leaking_columns(table: Table, *, above: float = 0.99) -> list[str]:
    """Names columns that alone tell the class: labels in disguise.

    A column leaks if answering, for each of its values, with the value's most frequent class is
    right in more than ``above`` of all rows. Columns of many values (more than a tenth of the rows)
    are cut at every possible threshold instead, with one class on each side.

    Args:
      table: a classification.
      above: share of right answers.

    Returns:
      Names of columns, in their order; an empty list for regression.

    Raises:
      ValueError: if ``above`` is no share.

    Examples:
      >>> from synscale_jax.data.tables import leaking_columns, load_table
      >>> leaking_columns(load_table("diabetes"))
      []
    """
    if not 0 < above < 1:
        raise ValueError(f"above={above} is no share: use a number in (0, 1), e.g. 0.99.")
    if not table.num_classes:
        return []
    columns = [*table.scalars.T, *table.categories.T]
    return [
        name
        for name, values in zip(table.columns, columns, strict=True)
        if _answers(np.asarray(values), table.target, table.num_classes) > above
    ]


def _answers(values: ndarray, labels: ndarray, classes: int) -> float:
    """Share of rows that the best answer by this column gets right."""
    _, codes = np.unique(values, return_inverse=True)
    counts = np.zeros((codes.max() + 1, classes), int)
    np.add.at(counts, (codes, labels), 1)
    if len(counts) <= max(2, len(labels) / 10):
        return counts.max(1).sum() / len(labels)
    below = np.cumsum(counts, 0)
    return float((below.max(1) + (below[-1] - below).max(1)).max() / len(labels))


def overview(names: Sequence[str] = TABLES) -> dict[str, list[str]]:
    """What every row of the table is made of, by column.

    Args:
      names: which tables.

    Returns:
      Heading -> one cell a table, for :func:`synscale_jax.report.tables.markdown`.
    """
    columns: dict[str, list[str]] = {
        heading: []
        for heading in (
            "row", "rows", "inputs", "width", "classes", "class weights", "loss", "groups",
            "label in disguise",
        )
    }  # fmt: skip
    for table in map(load_table, names):
        weights = prepare(table, np.arange(len(table.target))).class_weights
        cells = (
            table.name,
            str(len(table.target)),
            str(table.num_inputs),
            str(table.width),
            str(table.num_classes or ""),
            ", ".join(f"{weight:.3g}" for weight in weights),
            "weighted cross-entropy" if table.num_classes else f"squared error ({table.unit})",
            "" if table.groups is None else f"{len(np.unique(table.groups))} × {table.group_name}",
            ", ".join(leaking_columns(table)),
        )
        for column, cell in zip(columns.values(), cells, strict=True):
            column.append(cell)
    return columns
