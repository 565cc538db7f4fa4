"""The compiled side of training: pure functions of a state, a key and arrays on the device."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh

from synscale_jax.adapters._collected import Collected
from synscale_jax.adapters.linen import apply_collecting
from synscale_jax.data import ImageSet, Split, augment, split_validation, subset
from synscale_jax.regularizers.bottleneck import REGULARIZERS
from synscale_jax.scaling import Layer
from synscale_jax.training.config import TrainConfig, make_optimizer
from synscale_jax.training.devices import data_mesh, replicated, split_batch
from synscale_jax.training.methods import Method

# Streams of random numbers of a run.
_INIT, _SHUFFLE, _STEP = range(3)
# Streams of one step.
_AUGMENT, _DROPOUT = range(2)


class TrainState(NamedTuple):
    """Everything that changes during training; keys are derived from the step."""

    step: Array  # shape=(), dtype=int32: optimizer steps done
    params: Any
    batch_stats: Any  # running statistics, {} without normalisation
    opt_state: optax.OptState


class ChunkMetrics(NamedTuple):
    """One value a step, before the step's update; and whether the chunk ended well."""

    loss: Array  # shape=(chunk_steps,), float32: cross-entropy and what the method adds
    entropy: Array  # shape=(chunk_steps,), float32: cross-entropy alone
    correct: Array  # shape=(chunk_steps,), int32: examples classified correctly
    finite: Array  # shape=(), bool: whether all parameters are finite after the last step


class Evaluation(NamedTuple):
    """A whole split, evaluated."""

    loss: float  # mean cross-entropy, without what the method adds
    accuracy: float  # share in [0, 1]
    correct: np.ndarray  # shape=(examples,), bool


class Splits(NamedTuple):
    """Training, validation and test examples; validation may be None."""

    train: Split
    validation: Split | None
    test: Split


def split_data(data: ImageSet, config: TrainConfig) -> Splits:
    """Cut a data set as the config says: validation from the tail, subsets from the head.

    Raises:
      ValueError: if the config asks for more examples than there are.
    """
    train, validation, test = data.train, None, data.test
    if config.validation_examples:
        train, validation = split_validation(train, config.validation_examples)
    if config.train_examples is not None:
        train = subset(train, config.train_examples)
    if config.test_examples is not None:
        test = subset(test, config.test_examples)
    if config.batch > len(train.labels):
        raise ValueError(
            f"batch={config.batch} is larger than the {len(train.labels)} training examples of "
            f"{data.name}: use at most {len(train.labels)}."
        )
    return Splits(train, validation, test)


class BaseProgram(abc.ABC):
    """What a step does with a batch, wherever that comes from: one model, method and optimizer.

    Attributes:
      config: the settings; with ``batch``, ``epochs`` and ``chunk_steps``.
      splits: what :meth:`evaluate` takes, as ``test`` and ``validation`` (or None).

    Args:
      model: a linen module called with ``train=``, with a ``layer_table``.
      method: what is added to loss, optimizer and model.
      config: the settings.
      mesh: the devices.
      data: name and hash of the data.
      steps_per_epoch: steps between two evaluations.
      optimizer: what the method's own transform comes after.
    """

    config: Any
    splits: Any

    def __init__(
        self,
        model: Any,
        method: Method,
        config: Any,
        mesh: Mesh,
        data: tuple[str, str],
        steps_per_epoch: int,
        optimizer: optax.GradientTransformation,
    ) -> None:
        self.model, self.method, self.config = method.model(model), method, config
        self.mesh = mesh
        self.data_name, self.data_hash = data
        self.layers: tuple[Layer, ...] = self.model.layer_table()
        self.steps_per_epoch = steps_per_epoch
        self.optimizer = optax.chain(
            optimizer, method.after_optimizer(self.layers, steps_per_epoch)
        )
        self._init = self._compiled(self._initial_state)

    @abc.abstractmethod
    def chunk(self, state: TrainState, key: Array, steps: int) -> tuple[TrainState, ChunkMetrics]:
        """Train ``steps`` (at most ``chunk_steps``) steps of one epoch."""

    @abc.abstractmethod
    def evaluate(self, state: TrainState, split: Any) -> Evaluation:
        """Evaluate a split with running statistics."""

    @abc.abstractmethod
    def activity(self, state: TrainState, key: Array) -> dict[str, Any]:
        """The mean activities that the state's next step would see."""

    @abc.abstractmethod
    def pixels(self, images: Any) -> Array:
        """Examples as the network sees them."""

    @abc.abstractmethod
    def _one_image(self) -> Any:
        """Any image, shape=(1, height, width, channels), uint8."""

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.config.epochs * self.steps_per_epoch

    def init(self, key: Array) -> TrainState:
        """The state before the first step."""
        return self._init(key)

    def abstract_state(self) -> TrainState:
        """Shapes, dtypes and shardings of the state, to restore a checkpoint into."""
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=replicated(self.mesh)
            ),
            jax.eval_shape(self._initial_state, jax.random.key(0)),
        )

    def _compiled(self, function: Callable) -> Callable:
        # On all devices: a state that came back otherwise would compile again.
        return jax.jit(function, out_shardings=replicated(self.mesh))

    def _initial_state(self, key: Array) -> TrainState:
        image = self._one_image()
        variables = self.model.init(jax.random.fold_in(key, _INIT), self.pixels(image), train=False)
        if others := sorted(set(variables) - {"params", "batch_stats"}):
            raise ValueError(
                f"a {type(self.model).__name__} has variables {', '.join(others)}, which this "
                "trainer does not keep: synscale_jax.training.plasticity.LearnerProgram does."
            )
        params = variables["params"]
        stats = variables.get("batch_stats", {})
        return TrainState(jnp.zeros([], jnp.int32), params, stats, self.optimizer.init(params))

    def _step_key(self, state: TrainState, key: Array) -> Array:
        return jax.random.fold_in(jax.random.fold_in(key, _STEP), state.step)

    def _forward(
        self, params: Any, state: TrainState, images: Array, step_key: Array
    ) -> tuple[Array, Any, Any, Collected]:
        """Logits, running statistics, what modules sow for the loss, and what the layers did.

        XLA drops what is not used.
        """
        logits, changed, collected = apply_collecting(
            self.model,
            {"params": params, "batch_stats": state.batch_stats},
            self.pixels(images),
            layers=self.layers,
            norm_reading=self.method.norm_reading,
            presynaptic=True,
            mutable=("batch_stats", REGULARIZERS),
            rngs={"dropout": jax.random.fold_in(step_key, _DROPOUT)},
            train=True,
        )
        return logits, changed.get("batch_stats", {}), changed.get(REGULARIZERS, {}), collected

    def _update(
        self, state: TrainState, images: Array, labels: Array, step_key: Array
    ) -> tuple[TrainState, Array, Array, Array]:
        """One optimizer step; also its loss, its cross-entropy alone and its correct answers."""

        def loss_fn(params: Any):
            logits, stats, sown, collected = self._forward(params, state, images, step_key)
            entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            added = self.method.loss(logits, labels) + self.method.sown_loss(logits, labels, sown)
            loss = (entropy + added).mean()
            correct = jnp.sum(logits.argmax(-1) == labels)
            return loss, (stats, collected, entropy.mean(), correct)

        (loss, (stats, collected, entropy, correct)), grads = jax.value_and_grad(
            loss_fn, has_aux=True
        )(state.params)
        updates, opt_state = self.optimizer.update(
            grads,
            state.opt_state,
            state.params,
            activity=collected.activity,
            presynaptic=collected.presynaptic,
            batch_stats=state.batch_stats,
            value=1 - correct / len(labels),  # the error, for transforms that wait for a plateau
        )
        params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, params, stats, opt_state), loss, entropy, correct

    def _judge(self, state: TrainState, images: Array, labels: Array) -> tuple[Array, Array]:
        """Cross-entropy of each image, and whether it is classified correctly."""
        logits = self.model.apply(
            {"params": state.params, "batch_stats": state.batch_stats},
            self.pixels(images),
            train=False,
        )
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return entropy, logits.argmax(-1) == labels


def all_finite(params: Any) -> Array:
    """Whether every number in a tree is finite."""
    finite = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(params)]
    return jnp.all(jnp.stack(finite))


class Program(BaseProgram):
    """Training and evaluation of one model with one method on one data set, compiled once.

    Several seeds can use one program: the key is an argument of its functions.

    Args:
      model: a linen module called with ``train=``, with a ``layer_table``.
      method: what is added to loss, optimizer and model.
      config: the settings.
      data: the images; the config says how they are split, and they are put on the device once.
      mesh: the devices, or None for all local ones.
    """

    config: TrainConfig
    splits: Splits

    def __init__(
        self,
        model: Any,
        method: Method,
        config: TrainConfig,
        data: ImageSet,
        mesh: Mesh | None = None,
    ) -> None:
        mesh = mesh or data_mesh()
        self.splits = jax.device_put(split_data(data, config), replicated(mesh))
        steps = len(self.splits.train.labels) // config.batch
        optimizer = make_optimizer(config, steps)
        super().__init__(model, method, config, mesh, (data.name, data.data_hash), steps, optimizer)
        self._chunk = self._compiled(self._run_chunk)
        self._evaluate = self._compiled(self._run_evaluation)

    def chunk(self, state: TrainState, key: Array, steps: int) -> tuple[TrainState, ChunkMetrics]:
        """Train ``steps`` (at most ``chunk_steps``) steps of one epoch, in one compiled call."""
        count = jax.device_put(np.int32(steps), replicated(self.mesh))
        return self._chunk(state, key, count, self.splits.train)

    def evaluate(self, state: TrainState, split: Split) -> Evaluation:
        """Evaluate a split with running statistics, in one compiled call a split size."""
        loss, correct = jax.device_get(self._evaluate(state, split))
        return Evaluation(float(loss), float(correct.mean()), correct)

    def activity(self, state: TrainState, key: Array) -> dict[str, Any]:
        """The mean activities that the state's next step would see."""

        def collect(state: TrainState, key: Array, train: Split) -> dict[str, Any]:
            images, _, step_key = self._batch(state, key, train, self._order(state, key, train))
            return self._forward(state.params, state, images, step_key)[-1].activity

        return jax.jit(collect)(state, key, self.splits.train)

    def _one_image(self) -> Any:
        return self.splits.train.images[:1]

    def _run_chunk(
        self, state: TrainState, key: Array, steps: Array, train: Split
    ) -> tuple[TrainState, ChunkMetrics]:
        order = self._order(state, key, train)

        def body(index: Array, carry: tuple[TrainState, tuple[Array, ...]]):
            state, columns = carry
            state, *values = self._step(state, key, train, order)
            pairs = zip(columns, values, strict=True)
            return state, tuple(column.at[index].set(value) for column, value in pairs)

        length = self.config.chunk_steps
        columns = tuple(jnp.zeros(length, kind) for kind in (jnp.float32, jnp.float32, jnp.int32))
        state, columns = jax.lax.fori_loop(0, steps, body, (state, columns))
        loss, entropy, correct = columns
        return state, ChunkMetrics(loss, entropy, correct, all_finite(state.params))

    def _order(self, state: TrainState, key: Array, train: Split) -> Array:
        """The examples in the order of the state's epoch."""
        epoch_key = jax.random.fold_in(
            jax.random.fold_in(key, _SHUFFLE), state.step // self.steps_per_epoch
        )
        return jax.random.permutation(epoch_key, len(train.labels))

    def _batch(
        self, state: TrainState, key: Array, train: Split, order: Array
    ) -> tuple[Array, Array, Array]:
        """Images and labels of the state's next step, spread over the devices, and its key."""
        start = (state.step % self.steps_per_epoch) * self.config.batch
        batch = jax.lax.dynamic_slice_in_dim(order, start, self.config.batch)
        spread = split_batch(self.mesh)
        images = jax.lax.with_sharding_constraint(train.images[batch], spread)
        labels = jax.lax.with_sharding_constraint(train.labels[batch], spread)
        step_key = self._step_key(state, key)
        if self.config.augment:
            images = augment(jax.random.fold_in(step_key, _AUGMENT), images)
        return images, labels, step_key

    def _step(
        self, state: TrainState, key: Array, train: Split, order: Array
    ) -> tuple[TrainState, Array, Array, Array]:
        """One step on the batch that is the state's turn."""
        return self._update(state, *self._batch(state, key, train, order))

    def _run_evaluation(self, state: TrainState, split: Split) -> tuple[Array, Array]:
        count, size = len(split.labels), min(self.config.eval_batch, len(split.labels))
        batches = -(-count // size)
        index = jnp.minimum(jnp.arange(batches * size), count - 1).reshape(batches, size)

        def evaluate(batch: Array) -> tuple[Array, Array]:
            spread = split_batch(self.mesh)
            images = jax.lax.with_sharding_constraint(split.images[batch], spread)
            return self._judge(state, images, split.labels[batch])

        entropy, correct = jax.lax.map(evaluate, index)
        return entropy.reshape(-1)[:count].mean(), correct.reshape(-1)[:count]

    def pixels(self, images: Any) -> Array:
        """Images of uint8 in [0, 1], normalised if the config says so; words and signals as is."""
        if images.dtype != np.uint8:
            return jnp.asarray(images)
        pixels = jnp.asarray(images).astype(jnp.float32) / 255
        if self.config.normalization is not None:
            mean, deviation = self.config.normalization
            pixels = (pixels - mean) / deviation
        return pixels
