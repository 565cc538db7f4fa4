"""One compiled trainer for every way of learning: by gradient, by feedback, by local rules."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from synscale_jax.adapters.linen import apply_collecting
from synscale_jax.models.feedback_alignment import FEEDBACK, alignment_angles, exact_feedback
from synscale_jax.plasticity import local_learning, power_loss, power_readout
from synscale_jax.scaling import synscaw
from synscale_jax.scaling._layers import Layer
from synscale_jax.training.plasticity_learner import Learner

_INIT, _SHUFFLE, _DROPOUT = range(3)  # streams of random numbers of a run


class Examples(NamedTuple):
    """What is trained or tested on.

    Attributes:
      inputs: (examples, ...), uint8 images or float32 features.
      labels: (examples,), int32.
    """

    inputs: Any
    labels: Any


class View(NamedTuple):
    """How a network sees its inputs: ``scale · x − shift``, in float32."""

    scale: float = 1.0
    shift: Any = 0.0


class LearnerState(NamedTuple):
    """Everything that changes during training, and the fixed feedback weights."""

    step: Array  # shape=(), dtype=int32: steps done
    params: Any
    fixed: Any  # collections that are never trained: {"feedback": ...} or {}
    gradient: Any  # state of the optimizer
    local: Any  # state of the local rules and of SynScaW


class ChunkMetrics(NamedTuple):
    """Of the steps of one compiled call."""

    loss: Array  # shape=(), float32: mean over the steps
    correct: Array  # shape=(), int32: training examples classified correctly
    finite: Array  # shape=(), bool: whether loss and parameters are finite


class LearnerProgram:
    """Training and evaluation of one learner on one data set, compiled once.

    Args:
      learner: what learns, and how.
      train: training examples.
      test: test examples.
      view: how inputs are seen.
      start: leaves to begin with in place of drawn ones, by module name.
    """

    def __init__(
        self,
        learner: Learner,
        train: Examples,
        test: Examples,
        view: View = View(),  # noqa: B008
        start: Mapping[str, Any] | None = None,
    ) -> None:
        config = learner.config
        if config.batch > len(train.labels):
            raise ValueError(
                f"batch={config.batch} is larger than the {len(train.labels)} training examples: "
                f"use at most {len(train.labels)}."
            )
        self.learner, self.view, self.start = (
            learner,
            View(view.scale, jnp.asarray(view.shift)),
            start,
        )
        self.train, self.test = (Examples(*map(jnp.asarray, part)) for part in (train, test))
        self.steps_per_epoch = len(train.labels) // config.batch
        needs_layers = learner.rules or learner.scaling_rate is not None
        self._layers: tuple[Layer, ...] = learner.model.layer_table() if needs_layers else ()
        self._optimizer = self._make_optimizer()
        self._local = self._make_local()
        self._chunk = jax.jit(self._run_chunk, static_argnums=(5, 6), donate_argnums=(0,))
        self._evaluate = jax.jit(self._run_evaluation)
        self._angles = jax.jit(self._run_angles)

    @property
    def local_steps(self) -> int:
        """Steps of local rules alone at the beginning."""
        return self.learner.config.local_epochs * self.steps_per_epoch

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.local_steps + self.learner.config.epochs * self.steps_per_epoch

    def boundaries(self) -> list[int]:
        """The steps after which the test examples are classified."""
        count, per_epoch = self.learner.config.evaluations, self.steps_per_epoch
        marks = [round(per_epoch * (part + 1) / count) for part in range(count)]
        epochs = range(self.learner.config.local_epochs + self.learner.config.epochs)
        return [epoch * per_epoch + mark for epoch in epochs for mark in marks]

    def init(self, key: Array) -> LearnerState:
        """The state before the first step."""
        return jax.jit(self._initial_state)(key)

    def chunk(
        self, state: LearnerState, key: Array, steps: int
    ) -> tuple[LearnerState, ChunkMetrics]:
        """Train so many steps of one epoch, in one compiled call; the state is used up."""
        step, limit = int(state.step), self.learner.config.dropout_epochs
        dropout = limit is None or step < limit * self.steps_per_epoch
        return self._chunk(
            state, key, np.int32(steps), self.train, self.view, dropout, step < self.local_steps
        )

    def evaluate(self, params: Any, fixed: Any) -> tuple[float, np.ndarray]:
        """Mean loss on the test examples, and which are classified correctly."""
        loss, correct = jax.device_get(self._evaluate(params, fixed, self.test, self.view))
        return float(loss), correct

    def angles(self, params: Any, fixed: Any) -> dict[str, float]:
        """Layer -> angle in degrees between its update by feedback alignment and by backprop.

        Of the gradient over the first 1000 training examples, without dropout. Empty for models
        without :class:`~synscale_jax.models.feedback_alignment.FeedbackDense` or its convolution.
        """
        try:
            exact = exact_feedback({"params": params, **fixed})
        except ValueError:  # backprop or direct feedback
            return {}
        angles = self._angles(params, fixed, exact[FEEDBACK], self.train, self.view)
        return {name: float(angle) for name, angle in jax.device_get(angles).items()}

    def _make_optimizer(self) -> optax.GradientTransformation:
        config = self.learner.config
        rate: Any = config.learning_rate
        if config.optimizer == "adam_cosine":
            rate = optax.cosine_decay_schedule(rate, config.epochs * self.steps_per_epoch)
        optimizer = optax.sgd(rate) if config.optimizer == "sgd" else optax.adam(rate)
        still = {*self.learner.frozen, *self.learner.rules}

        def kinds(params: Any) -> Any:
            return {
                name: jax.tree.map(lambda _, n=name: "still" if n in still else "learned", part)
                for name, part in params.items()
            }

        return optax.partition({"learned": optimizer, "still": optax.set_to_zero()}, kinds)

    def _make_local(self) -> optax.GradientTransformationExtraArgs:
        learner, per_epoch = self.learner, self.steps_per_epoch
        parts: list[Any] = []
        if learner.rules:
            once = learner.config.schedule == "first_batch_per_epoch"
            when = (lambda count: count % per_epoch == 0) if once else None
            parts.append(local_learning(learner.rules, layers=self._layers, when=when))
        if learner.scaling_rate is not None:
            trained = [layer for layer in self._layers if layer.path[0] not in learner.frozen]
            parts.append(synscaw(learner.scaling_rate, layers=trained))
        return optax.with_extra_args_support(optax.chain(*parts) if parts else optax.identity())

    def _initial_state(self, key: Array) -> LearnerState:
        x = self._seen(self.train.inputs[:1], self.view)
        variables = dict(self.learner.model.init(jax.random.fold_in(key, _INIT), x))
        params = variables.pop("params")
        for name, leaves in (self.start or {}).items():
            params[name] = {**params[name], **leaves}
        step = jnp.zeros([], jnp.int32)
        return LearnerState(
            step, params, variables, self._optimizer.init(params), self._local.init(params)
        )

    def _run_chunk(
        self,
        state: LearnerState,
        key: Array,
        steps: Array,
        train: Examples,
        view: View,
        dropout: bool,
        local_only: bool,
    ) -> tuple[LearnerState, ChunkMetrics]:
        epoch_key = jax.random.fold_in(
            jax.random.fold_in(key, _SHUFFLE), state.step // self.steps_per_epoch
        )
        order = jax.random.permutation(epoch_key, len(train.labels))
        step = partial(self._step, key, train, view, order, dropout, local_only)
        start = (state, jnp.zeros([]), jnp.zeros([], jnp.int32))
        state, loss, correct = jax.lax.fori_loop(0, steps, step, start)
        leaves = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(state.params)]
        finite = jnp.isfinite(loss) & jnp.all(jnp.stack(leaves))
        return state, ChunkMetrics(loss / steps, correct, finite)

    def _step(
        self,
        key: Array,
        train: Examples,
        view: View,
        order: Array,
        dropout: bool,
        local_only: bool,
        index: Array,
        carry: tuple[LearnerState, Array, Array],
    ) -> tuple[LearnerState, Array, Array]:
        """One step; adds its loss and its correct answers to those of the chunk."""
        del index
        (state, loss_sum, correct_sum), size = carry, self.learner.config.batch
        first = (state.step % self.steps_per_epoch) * size
        chosen = jax.lax.dynamic_slice_in_dim(order, first, size)
        x, labels = self._seen(train.inputs[chosen], view), train.labels[chosen]
        step_key = jax.random.fold_in(jax.random.fold_in(key, _DROPOUT), state.step)

        def loss_fn(params: Any) -> tuple[Array, Any]:
            u, seen = self._forward(params, state.fixed, x, dropout, step_key)
            correct = jnp.sum(self.scores(u).argmax(-1) == labels)
            return self.losses(u, labels).mean(), (correct, seen)

        if local_only:
            loss, (correct, seen) = loss_fn(state.params)
            updates: Any = optax.tree.zeros_like(state.params)
            gradient = state.gradient
        else:
            (loss, (correct, seen)), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
            updates, gradient = self._optimizer.update(grads, state.gradient, state.params)
        updates, local = self._local.update(updates, state.local, state.params, **seen)
        if self.learner.config.schedule == "two_phase":  # the rules' layers, then all others
            updates = {
                name: part
                if (name in self.learner.rules) == local_only
                else optax.tree.zeros_like(part)
                for name, part in updates.items()
            }
        params = optax.apply_updates(state.params, updates)
        state = LearnerState(state.step + 1, params, state.fixed, gradient, local)
        return state, loss_sum + loss, correct_sum + correct

    def _forward(
        self, params: Any, fixed: Any, x: Array, dropout: bool, key: Array
    ) -> tuple[Array, dict[str, Any]]:
        """The output, and what local rules and SynScaW need of the layers."""
        variables, model = {"params": params, **fixed}, self.learner.model
        kwargs = {"train": dropout, "rngs": {"dropout": key}}
        if not self._layers:
            return model.apply(variables, x, **kwargs), {}
        u, _, seen = apply_collecting(
            model, variables, x, layers=self._layers, presynaptic=True, postsynaptic=True, **kwargs
        )
        return u, seen._asdict()

    def scores(self, u: Array) -> Array:
        """What the largest of decides: the output, saturated where the objective is."""
        config = self.learner.config
        return power_readout(u, config.slope) if config.objective.startswith("tanh") else u

    def losses(self, u: Array, labels: Array) -> Array:
        """The objective of each example."""
        config, scores = self.learner.config, self.scores(u)
        match config.objective:
            case "likelihood":
                return -jnp.take_along_axis(u, labels[:, None], 1)[:, 0]
            case "tanh_power":
                return power_loss(scores, labels, config.loss_power)
            case "tanh_log_power":
                return power_loss(jax.nn.log_softmax(scores), labels, config.loss_power)
            case _:
                return optax.softmax_cross_entropy_with_integer_labels(scores, labels)

    def _run_evaluation(
        self, params: Any, fixed: Any, test: Examples, view: View
    ) -> tuple[Array, Array]:
        count, size = len(test.labels), min(1000, len(test.labels))
        batches = -(-count // size)
        index = jnp.minimum(jnp.arange(batches * size), count - 1).reshape(batches, size)

        def evaluate(chosen: Array) -> tuple[Array, Array]:
            x, labels = self._seen(test.inputs[chosen], view), test.labels[chosen]
            u = self.learner.model.apply({"params": params, **fixed}, x, train=False)
            return self.losses(u, labels), self.scores(u).argmax(-1) == labels

        loss, correct = jax.lax.map(evaluate, index)
        return loss.reshape(-1)[:count].mean(), correct.reshape(-1)[:count]

    def _run_angles(
        self, params: Any, fixed: Any, exact: Any, train: Examples, view: View
    ) -> dict[str, Array]:
        x, labels = self._seen(train.inputs[:1000], view), train.labels[:1000]

        def gradient(feedback: Any) -> Any:
            def loss_fn(params: Any) -> Array:
                variables = {"params": params, **fixed, FEEDBACK: feedback}
                u: Any = self.learner.model.apply(variables, x, train=False)
                return self.losses(u, labels).mean()

            return jax.grad(loss_fn)(params)

        return alignment_angles(gradient(fixed[FEEDBACK]), gradient(exact))

    @staticmethod
    def _seen(x: Array, view: View) -> Array:
        shift = view.shift[None] if jnp.ndim(view.shift) else view.shift
        return view.scale * x.astype(jnp.float32) - shift
