"""Training on images that are read while it goes on, by the protocol of ResNet50 on ImageNet."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh

from synscale_jax.data.imagenet import (
    DEVIATION,
    MEAN,
    Source,
    Spread,
    StreamedBatch,
    StreamedSet,
    test_batches,
    training_batches,
)
from synscale_jax.training.devices import data_mesh, split_batch
from synscale_jax.training.loop import Measures
from synscale_jax.training.methods import Method
from synscale_jax.training.program import (
    BaseProgram,
    ChunkMetrics,
    Evaluation,
    TrainState,
    all_finite,
)

_SHUFFLE = 1  # stream of random numbers, as in synscale_jax.training.program
_AHEAD = 2  # steps handed to the device before the oldest must be done


@dataclasses.dataclass(frozen=True)
class StreamConfig:
    """Settings of one training run on streamed images; the defaults are the paper's or ours.

    The paper follows He et al. with SGD, momentum 0.9, weight decay 1e-4, a rate of 0.1 that is
    divided by 10 where the error reaches a plateau, and 600 000 iterations. It does not print the
    batch, nor what a plateau is: those are ours.

    Raises:
      ValueError: at once, if a value is impossible; the message shows it and what would do.
    """

    steps: int = 600_000
    """Optimizer steps."""
    epoch_steps: int = 5000
    """Steps that make what results call an epoch: after each the test set is evaluated and a
    checkpoint written. One pass over ImageNet has 5004 of 256 images."""
    batch: int = 256
    """Examples a step (He et al.'s; the paper prints none for ResNet50)."""
    learning_rate: float = 0.1
    """At the start."""
    momentum: float = 0.9
    """Of SGD."""
    weight_decay: float = 1e-4
    """Times every parameter, added to its gradient."""
    plateau_epochs: int = 5
    """Epochs without a better training error, after which the learning rate is divided by 10."""
    plateau_threshold: float = 0.01
    """Relative decrease below which an error is no better."""
    least_rate: float = 1e-4
    """Where the learning rate stays: below it scaling would go on without learning."""
    crop: int = 224
    """Height and width of the images that the network sees."""
    test_examples: int | None = None
    """Test on so many examples, evenly spread; None: on all."""
    chunk_steps: int = 50
    """Steps between two looks at signals and at whether the loss is finite."""

    def __post_init__(self) -> None:
        for name in ("steps", "epoch_steps", "batch", "plateau_epochs", "crop", "chunk_steps"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"{name}={value} is not possible: use 1 or more.")
        if self.test_examples is not None and self.test_examples < 1:
            raise ValueError(
                f"test_examples={self.test_examples} is not possible: use 1 or more, or None for "
                "all."
            )
        if self.steps % self.epoch_steps:
            raise ValueError(
                f"steps={self.steps} are no whole number of epochs of epoch_steps="
                f"{self.epoch_steps}, so that the last would not be evaluated: use "
                f"{-(-self.steps // self.epoch_steps) * self.epoch_steps} steps."
            )
        if not 0 < self.least_rate <= self.learning_rate < float("inf"):
            raise ValueError(
                f"learning_rate={self.learning_rate} cannot fall to least_rate={self.least_rate}: "
                "use e.g. 0.1 and 1e-4."
            )
        if not 0 <= self.momentum < 1 or not 0 <= self.weight_decay < float("inf"):
            raise ValueError(
                f"momentum={self.momentum} or weight_decay={self.weight_decay} is not possible: "
                "use e.g. 0.9 and 1e-4."
            )
        if not 0 < self.plateau_threshold < 1:
            raise ValueError(
                f"plateau_threshold={self.plateau_threshold} is no relative decrease: use a number "
                "between 0 and 1, e.g. 0.01."
            )

    @property
    def epochs(self) -> int:
        """How often the run is evaluated."""
        return self.steps // self.epoch_steps


def plateau_sgd(config: StreamConfig) -> optax.GradientTransformation:
    """SGD with momentum whose rate is divided by 10 when the training error stops falling.

    The error is the mean over the batches of an epoch, handed to ``update`` as ``value``. Nothing
    of the test set goes into it. All that it remembers is part of the optimizer's state.
    """
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay),
        optax.sgd(config.learning_rate, momentum=config.momentum),
        optax.contrib.reduce_on_plateau(
            factor=0.1,
            patience=config.plateau_epochs,
            rtol=config.plateau_threshold,
            accumulation_size=config.epoch_steps,
            min_scale=config.least_rate / config.learning_rate,
        ),
    )


def learning_rate(program: BaseProgram, state: TrainState) -> Mapping[str, Any]:
    """The rate that the next step would have, for an epoch's line."""
    opt_state: Any = state.opt_state
    return {"learning_rate": program.config.learning_rate * float(opt_state[0][-1].scale)}


LEARNING_RATE = Measures(each_epoch=learning_rate)
"""Keeps the learning rate in each epoch's line."""


class StreamSplits(NamedTuple):
    """Sources of training and test examples; there is no validation split."""

    train: Source
    validation: None
    test: Source


class StreamProgram(BaseProgram):
    """Training and evaluation of one model with one method on images that are streamed.

    The host decodes and augments, ahead of the device; a step and an evaluated batch are compiled
    once. Batch n of a seed is always the same, so that a run goes on to the bit where it stopped.
    :func:`synscale_jax.training.loop.train` trains it.

    Args:
      model: a linen module called with ``train=``, with a ``layer_table``.
      method: what is added to loss, optimizer and model.
      config: the settings.
      data: where the images are.
      mesh: the devices, or None for all local ones; the batch is spread over them.

    Raises:
      ValueError: if a batch is larger than the training set or does not divide evenly by the
        devices, or there are not as many test examples as the config asks for.
    """

    config: StreamConfig
    splits: StreamSplits

    def __init__(
        self,
        model: Any,
        method: Method,
        config: StreamConfig,
        data: StreamedSet,
        mesh: Mesh | None = None,
    ) -> None:
        mesh = mesh or data_mesh()
        if config.batch > len(data.train):
            raise ValueError(
                f"batch={config.batch} is larger than the {len(data.train)} training examples of "
                f"{data.name}: use at most {len(data.train)}."
            )
        if config.batch % mesh.size:
            raise ValueError(
                f"batch={config.batch} cannot be spread evenly over {mesh.size} devices: use a "
                f"multiple of {mesh.size}."
            )
        count = config.test_examples
        test = data.test if count is None else Spread(data.test, count)
        self.splits = StreamSplits(data.train, None, test)
        optimizer = plateau_sgd(config)
        source = (data.name, data.data_hash)
        super().__init__(model, method, config, mesh, source, config.epoch_steps, optimizer)
        self._train_step = self._compiled(self._step)
        self._test_step = self._compiled(self._judge)
        self._finite = self._compiled(all_finite)
        self._reading: tuple[int, int, Iterator[StreamedBatch]] | None = None

    def chunk(self, state: TrainState, key: Array, steps: int) -> tuple[TrainState, ChunkMetrics]:
        """Train ``steps`` steps, from the batch that is the state's turn."""
        columns: list[tuple[Array, ...]] = []
        for images, labels in self._batches(key, int(state.step), steps):
            state, *values = self._train_step(state, key, images, labels)
            columns.append(tuple(values))
            if len(columns) > _AHEAD:  # else batches would pile up on the device
                columns[-1 - _AHEAD][0].block_until_ready()
        loss, entropy, correct = np.array(jax.device_get(columns), np.float32).reshape(-1, 3).T
        return state, ChunkMetrics(
            jnp.asarray(loss),
            jnp.asarray(entropy),
            jnp.asarray(correct, jnp.int32),
            self._finite(state.params),
        )

    def evaluate(self, state: TrainState, split: Source) -> Evaluation:
        """Evaluate all examples of a source with running statistics."""
        entropies, answers, count = [], [], 0
        for batch in test_batches(split, self.config.batch, self.config.crop):
            count += len(batch.labels)
            entropy, correct = self._test_step(
                state, *self._on_devices(_filled(batch, self.config))
            )
            entropies.append(entropy)
            answers.append(correct)
            if len(entropies) > _AHEAD:
                entropies[-1 - _AHEAD].block_until_ready()
        entropy, correct = (
            np.concatenate(jax.device_get(column))[:count] for column in (entropies, answers)
        )
        return Evaluation(float(entropy.mean(dtype=np.float64)), float(correct.mean()), correct)

    def activity(self, state: TrainState, key: Array) -> dict[str, Any]:
        """The mean activities that the state's next step would see."""

        def collect(state: TrainState, key: Array, images: Array) -> dict[str, Any]:
            step_key = self._step_key(state, key)
            return self._forward(state.params, state, images, step_key)[-1].activity

        ((images, _),) = self._batches(key, int(state.step), 1)
        return jax.jit(collect)(state, key, images)

    def pixels(self, images: Any) -> Array:
        """Images of uint8 as the network sees them: every colour less its mean, of deviation 1."""
        pixels = jnp.asarray(images).astype(jnp.float32) / 255
        return (pixels - np.array([[[MEAN]]], np.float32)) / np.array([[[DEVIATION]]], np.float32)

    def _one_image(self) -> Any:
        return np.zeros((1, self.config.crop, self.config.crop, 3), np.uint8)

    def _step(
        self, state: TrainState, key: Array, images: Array, labels: Array
    ) -> tuple[TrainState, Array, Array, Array]:
        return self._update(state, images, labels, self._step_key(state, key))

    def _batches(self, key: Array, start: int, steps: int) -> Iterator[tuple[Array, Array]]:
        """Batches on the devices, going on reading where the last call ended if it can."""
        seed = int(jax.random.bits(jax.random.fold_in(key, _SHUFFLE)))
        if self._reading is None or self._reading[:2] != (seed, start):
            config = self.config
            stream = training_batches(self.splits.train, config.batch, config.crop, seed, start)
            self._reading = (seed, start, stream)
        stream = self._reading[2]
        for step in range(start, start + steps):
            batch = next(stream)
            self._reading = (seed, step + 1, stream)
            yield self._on_devices(batch)

    def _on_devices(self, batch: StreamedBatch) -> tuple[Array, Array]:
        return jax.device_put(tuple(batch), split_batch(self.mesh))


def _filled(batch: StreamedBatch, config: StreamConfig) -> StreamedBatch:
    """A batch of full length, the last example repeated: a shorter one would compile again."""
    missing = config.batch - len(batch.labels)
    return StreamedBatch(
        *(np.concatenate([part, np.repeat(part[-1:], missing, 0)]) for part in batch)
    )
