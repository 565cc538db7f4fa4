"""Cross-validation of a network on a table: all folds, and every method, in one program."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from synscale_jax.adapters._collected import Collected
from synscale_jax.adapters.linen import apply_collecting
from synscale_jax.data.tables import Fold, Table, make_folds, prepare
from synscale_jax.models import MLP
from synscale_jax.training.methods import Method

HIDDEN_LAYERS = 4
FLOP_A_CALL = 4e11  # a compiled call lasts a few seconds, so that signals are answered
TOGETHER_UP_TO = 3_000_000  # weights of the networks that are trained side by side

# Streams of random numbers of a run.
_INIT, _SHUFFLE, _DROPOUT = range(3)


@dataclasses.dataclass(frozen=True)
class FoldConfig:
    """How a row of table V is trained; the paper's settings, or ours where it names none.

    Raises:
      ValueError: at once, if a value is impossible; the message shows it and what would do.
    """

    epochs: int = 100
    """Passes over the training rows."""
    batch: int = 100
    """Rows a step; the last one of an epoch may have fewer (ours)."""
    learning_rate: float = 0.01
    """Of Adam, at the start."""
    decay: float = 0.9
    """What the learning rate is multiplied by every decay_epochs."""
    decay_epochs: int = 40
    """Epochs between two decays."""
    folds: int = 10
    """Of the cross-validation; the seed redraws them."""
    validation: float = 0.1
    """Share of each training part that an epoch is chosen on (ours)."""
    grouped: bool = False
    """Keep subjects, countries or repeated samples in one fold."""
    loss: Literal["squared", "absolute"] = "squared"
    """Of a regression."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "decay_epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is not possible: use 1 or more.")
        if self.folds < 2:
            raise ValueError(f"folds={self.folds} is no cross-validation: use 2 or more.")
        if self.loss not in ("squared", "absolute"):
            raise ValueError(f"loss={self.loss!r} is unknown: use 'squared' or 'absolute'.")
        if not 0 <= self.validation < 1:
            raise ValueError(f"validation={self.validation} is no share: use 0 to below 1.")
        if not 0 < self.learning_rate < float("inf") or not 0 < self.decay <= 1:
            raise ValueError(
                f"learning_rate={self.learning_rate}, decay={self.decay} are not possible: use a "
                "rate above 0 and a factor in (0, 1]."
            )


class Rows(NamedTuple):
    """Row numbers of one part of each fold, padded to one length."""

    index: Array  # shape=(folds, most rows), dtype=int32; padding is 0
    count: Array  # shape=(folds,), dtype=int32


class FoldData(NamedTuple):
    """A table in each of its folds; what is fitted is fitted to the fold's training rows."""

    inputs: Array  # shape=(folds, rows, inputs), float32
    targets: Array  # shape=(folds, rows), int32 labels or scaled float32 targets
    class_weights: Array  # shape=(folds, classes), float32
    target_mean: Array  # shape=(folds,), float32, of the scaled training targets
    train: Rows
    validation: Rows
    test: Rows


class FoldState(NamedTuple):
    """What changes during training, for each fold."""

    step: Array  # shape=(folds,), dtype=int32: optimizer steps done
    params: Any  # leaves of shape (folds, ...)
    adam: Any  # optax's state
    scaling: tuple[Any, ...]  # one state a method, of what comes after Adam


class EpochMetrics(NamedTuple):
    """One number an epoch and fold; errors of a regression are in units of the target's range."""

    train_loss: Array  # shape=(epochs, folds): mean over steps of the loss without additions
    validation: Array  # shape=(epochs, folds): accuracy, or mean absolute error
    validation_loss: Array  # shape=(epochs, folds)
    test: Array  # shape=(epochs, folds): accuracy, or mean absolute error


def fold_data(
    table: Table, folds: Sequence[Fold], lengths: Sequence[int] = (1, 1, 1)
) -> tuple[FoldData, np.ndarray]:
    """Prepare a table for each fold and stack.

    Args:
      table: the rows.
      folds: their numbers, fold by fold.
      lengths: what training, validation and test part are padded to, at least.

    Returns:
      The arrays, and the range of the training targets in each fold (1 for classification).
    """
    prepared = [prepare(table, fold.train) for fold in folds]
    parts = [_padded([fold[part] for fold in folds], length) for part, length in enumerate(lengths)]
    data = FoldData(
        jnp.asarray(np.stack([one.inputs for one in prepared])),
        jnp.asarray(np.stack([one.targets for one in prepared])),
        jnp.asarray(np.stack([one.class_weights for one in prepared])),
        jnp.asarray([one.target_mean for one in prepared], jnp.float32),
        parts[0],
        parts[1],
        parts[2],
    )
    return data, np.array([one.target_range for one in prepared])


def _padded(parts: Sequence[np.ndarray], length: int) -> Rows:
    index = np.zeros((len(parts), max(length, *map(len, parts))), np.int32)
    for row, part in zip(index, parts, strict=True):
        row[: len(part)] = part
    return Rows(jnp.asarray(index), jnp.asarray([len(part) for part in parts], jnp.int32))


def table_model(table: Table) -> MLP:
    """The paper's network: four hidden layers, Leaky ReLU, as wide as the table says."""
    return MLP((table.width,) * HIDDEN_LAYERS, max(1, table.num_classes), activation="leaky_relu")


class FoldProgram:
    """Training of a table's folds with any of several methods, compiled once.

    The methods are branches of one compiled function; the folds are mapped side by side where the
    networks are small, and one after the other, each staying in the processor's cache, where they
    are wide. Every method sees the same folds, initial weights and batches.

    Args:
      table: the rows.
      methods: what may be trained.
      config: the settings.
      together: how many folds are mapped side by side; None: as many as suit the width.
    """

    def __init__(
        self,
        table: Table,
        methods: Sequence[Method],
        config: FoldConfig,
        *,
        together: int | None = None,
    ) -> None:
        self.table, self.methods, self.config = table, tuple(methods), config
        for method in methods:
            if method.sown_loss is not Method.sown_loss:
                raise ValueError(
                    f"{method.label} takes its loss from within the network, which folds do not "
                    "hand on: leave it out."
                )
            pulls = method.regression_loss is not Method.regression_loss
            if not table.num_classes and method.loss is not Method.loss and not pulls:
                raise ValueError(
                    f"{method.label} is a loss of logits, of which a regression has none: leave it "
                    "out, or give the method a regression_loss."
                )
        self.model = table_model(table)
        self.layers = self.model.layer_table()
        self._models = [method.model(self.model) for method in methods]
        example = make_folds(table, 0, **self._partition)
        sizes = [len(fold.train) for fold in example]
        most, self._lengths = max(sizes), (1, 1, 1)
        if config.grouped:
            # How large groups fall differs from seed to seed; the sizes of the test parts do not.
            most = len(table.target)
            self._lengths = (most, max(1, int(config.validation * most)), 1)
        self.steps_per_epoch = -(-most // config.batch)
        self._ragged = config.grouped or -(-min(sizes) // config.batch) < self.steps_per_epoch
        self.adam = optax.adam(decayed(config, self.steps_per_epoch))
        self._after = [
            method.after_optimizer(self.layers, self.steps_per_epoch) for method in methods
        ]
        weights = sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(self._params)))
        self.epochs_a_call = _divisor(config.epochs, FLOP_A_CALL / (6 * weights * sum(sizes)))
        self.together = together or _divisor(config.folds, TOGETHER_UP_TO / weights)
        self._run = jax.jit(self._some_epochs)
        self._start = jax.jit(self._initial)

    @property
    def _partition(self) -> dict[str, Any]:
        config = self.config
        return {
            "count": config.folds,
            "validation": config.validation,
            "grouped": config.grouped,
        }

    def data(self, seed: int) -> tuple[FoldData, np.ndarray]:
        """The folds of a seed, see :func:`fold_data`."""
        folds = make_folds(self.table, seed, **self._partition)
        return fold_data(self.table, folds, self._lengths)

    def init(self, seed: int) -> FoldState:
        """The state before the first step."""
        return self._start(self.keys(seed))

    def keys(self, seed: int) -> Array:
        """A key for each fold."""
        folds = jnp.arange(self.config.folds)
        return jax.vmap(lambda fold: jax.random.fold_in(jax.random.key(seed), fold))(folds)

    def run(
        self, state: FoldState, data: FoldData, keys: Array, method: int, first_epoch: int
    ) -> tuple[FoldState, EpochMetrics]:
        """Train ``epochs_a_call`` epochs of one method, in one compiled call.

        Args:
          state: what :meth:`init` or an earlier call returned.
          data: the folds.
          keys: one a fold.
          method: its place among the program's methods.
          first_epoch: how many epochs are done.
        """
        return self._run(state, data, keys, np.int32(method), np.int32(first_epoch))

    def _params(self, key: Array | None = None) -> Any:
        key = jax.random.key(0) if key is None else key
        return self.model.init(key, jnp.zeros((1, self.table.num_inputs)))["params"]

    def _initial(self, keys: Array) -> FoldState:
        def one(key: Array) -> FoldState:
            params = self._params(jax.random.fold_in(key, _INIT))
            after = tuple(transform.init(params) for transform in self._after)
            return FoldState(jnp.zeros([], jnp.int32), params, self.adam.init(params), after)

        return jax.vmap(one)(keys)

    def _some_epochs(
        self, state: FoldState, data: FoldData, keys: Array, method: Array, first: Array
    ) -> tuple[FoldState, EpochMetrics]:
        def branch(number: int) -> Callable[..., tuple[FoldState, EpochMetrics]]:
            def train(state: FoldState, data: FoldData, keys: Array, first: Array):
                def fold(one: tuple[FoldState, FoldData, Array]):
                    return self._fold(number, one[0], one[1], one[2], first)

                return jax.lax.map(fold, (state, data, keys), batch_size=self.together)

            return train

        branches = [branch(number) for number in range(len(self.methods))]
        state, metrics = jax.lax.switch(method, branches, state, data, keys, first)
        return state, jax.tree.map(lambda leaf: leaf.T, metrics)

    def _fold(
        self, method: int, state: FoldState, data: FoldData, key: Array, first: Array
    ) -> tuple[FoldState, EpochMetrics]:
        """Some epochs of one fold."""

        def epoch(state: FoldState, number: Array) -> tuple[FoldState, EpochMetrics]:
            order = self._order(data.train, jax.random.fold_in(key, _SHUFFLE), number)
            positions = jnp.arange(order.size, dtype=jnp.int32).reshape(order.shape)
            if self._ragged:  # empty steps first: what is due at an epoch's end meets rows
                taken_steps = -(-data.train.count // self.config.batch)
                order, positions = (
                    jnp.roll(each, -taken_steps, axis=0) for each in (order, positions)
                )

            def step(state: FoldState, batch: tuple[Array, Array]):
                rows, position = batch
                return self._step(method, state, data, key, rows, position < data.train.count)

            state, losses = jax.lax.scan(step, state, (order, positions))
            taken = (positions[:, 0] < data.train.count).astype(losses.dtype)
            validation, validation_loss = self._evaluate(state.params, data, data.validation)
            test, _ = self._evaluate(state.params, data, data.test)
            train_loss = jnp.sum(losses * taken) / jnp.sum(taken)
            return state, EpochMetrics(train_loss, validation, validation_loss, test)

        return jax.lax.scan(epoch, state, first + jnp.arange(self.epochs_a_call))

    def _order(self, train: Rows, key: Array, epoch: Array) -> Array:
        """Training rows in the order of an epoch, padding last: (steps, batch)."""
        length = self.steps_per_epoch * self.config.batch
        rows = jnp.zeros(length, jnp.int32).at[: train.index.size].set(train.index[:length])
        draws = jax.random.uniform(jax.random.fold_in(key, epoch), (length,))
        draws = jnp.where(jnp.arange(length) < train.count, draws, 2.0)
        return rows[jnp.argsort(draws)].reshape(self.steps_per_epoch, -1)

    def _step(
        self,
        method: int,
        state: FoldState,
        data: FoldData,
        key: Array,
        rows: Array,
        counts: Array,
    ) -> tuple[FoldState, Array]:
        """One optimizer step on the rows that count; where none does, schedules go on alone."""
        inputs, targets = data.inputs[rows], data.targets[rows]
        drop_key = jax.random.fold_in(jax.random.fold_in(key, _DROPOUT), state.step)

        def loss_fn(params: Any) -> tuple[Array, tuple[Array, Collected]]:
            outputs, _, collected = apply_collecting(
                self._models[method],
                {"params": params},
                inputs,
                layers=self.layers,
                where=counts,
                presynaptic=True,
                rngs={"dropout": drop_key},
                train=True,
            )
            plain = self._loss(outputs, targets, counts, data.class_weights)
            if self.table.num_classes:
                added = self.methods[method].loss(outputs, targets)
            else:
                added = self.methods[method].regression_loss(outputs[:, 0], data.target_mean)
            if added.ndim:
                added = _mean(added, counts)
            return plain + added, (plain, collected)

        grads, (plain, collected) = jax.grad(loss_fn, has_aux=True)(state.params)
        updates, adam = self.adam.update(grads, state.adam, state.params)
        updates, after = optax.with_extra_args_support(self._after[method]).update(
            updates, state.scaling[method], state.params,
            activity=collected.activity, presynaptic=collected.presynaptic,
        )  # fmt: skip
        scaling = (*state.scaling[:method], after, *state.scaling[method + 1 :])
        params = optax.apply_updates(state.params, updates)
        new = FoldState(state.step + 1, params, adam, scaling)
        if self._ragged:  # folds differ in their number of steps
            idle = _idle(state, new)
            new = jax.tree.map(lambda a, b: jnp.where(counts.any(), a, b), new, idle)
        return new, plain

    def _loss(self, outputs: Array, targets: Array, counts: Array, class_weights: Array) -> Array:
        """Cross-entropy weighted as PyTorch does, or the error of a regression."""
        if not self.table.num_classes:
            error = outputs[:, 0] - targets
            each = jnp.square(error) if self.config.loss == "squared" else jnp.abs(error)
            return _mean(each, counts)
        entropy = optax.softmax_cross_entropy_with_integer_labels(outputs, targets)
        weights = jnp.where(counts, class_weights[targets], 0)
        return jnp.sum(weights * entropy) / jnp.maximum(jnp.sum(weights), 1e-9)

    def _evaluate(self, params: Any, data: FoldData, part: Rows) -> tuple[Array, Array]:
        """Accuracy or mean absolute error on a part, and its loss."""
        counts = jnp.arange(part.index.size) < part.count
        inputs = data.inputs[part.index]
        outputs: Any = self.model.apply({"params": params}, inputs, train=False)
        targets = data.targets[part.index]
        loss = self._loss(outputs, targets, counts, data.class_weights)
        if self.table.num_classes:
            # The largest of numbers that are none is the first: no answer, and never right.
            right = (outputs.argmax(-1) == targets) & jnp.isfinite(outputs).all(-1)
            return _mean(right.astype(jnp.float32), counts), loss
        return _mean(jnp.abs(outputs[:, 0] - targets), counts), loss


def decayed(config: FoldConfig, steps_per_epoch: int, start: float | None = None) -> optax.Schedule:
    """The learning rate's staircase from another start: SynScaW's rate decays with it."""
    return optax.exponential_decay(
        config.learning_rate if start is None else start,
        config.decay_epochs * steps_per_epoch,
        config.decay,
        staircase=True,
    )


def _idle(before: FoldState, after: FoldState) -> FoldState:
    """The state after a step without rows: as before, but for the counts that schedules go by.

    Schedules count the steps of epochs, and epochs have the same number of steps in every fold.
    Adam's own count, ``adam[0].count``, is of its moments, and stays.
    """
    counted = jax.tree.map(
        lambda a, b: b if jnp.issubdtype(b.dtype, jnp.integer) else a,
        before.scaling,
        after.scaling,
    )
    return before._replace(adam=(before.adam[0], after.adam[1]), scaling=counted)


def _mean(values: Array, counts: Array) -> Array:
    return jnp.sum(jnp.where(counts, values, 0)) / jnp.maximum(jnp.sum(counts), 1)


def _divisor(number: int, most: float) -> int:
    """The largest divisor of a number that is not above a bound, 1 at least."""
    return max((d for d in range(1, number + 1) if number % d == 0 and d <= most), default=1)
