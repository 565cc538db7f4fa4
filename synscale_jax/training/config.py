"""How a network is trained: the settings that, with model, data and method, make up a run."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import optax

ADAM_RESTART_FIRST, ADAM_RESTART_EVERY = 4, 5  # epochs, as the PyTorch port does it

OptimizerName = Literal["adam", "adam_restarted", "sgd"]


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Settings of one training run.

    Raises:
      ValueError: at once, if a value is impossible; the message shows it and what would do.
    """

    epochs: int = 200
    """Passes over the training examples."""
    batch: int = 100
    """Examples a step; what is left at the end of an epoch is dropped."""
    optimizer: OptimizerName = "adam"
    """adam_restarted: a fresh Adam with each decay of the rate, after epochs 4, 9, 14, … as in the
    PyTorch port; sgd: momentum 0.9, weight decay 1e-4."""
    learning_rate: float = 5e-4
    """At the start."""
    decay: float = 0.94
    """What the learning rate is multiplied by every decay_epochs."""
    decay_epochs: int = 5
    """Epochs between two decays."""
    train_examples: int | None = None
    """Train on the first so many examples of the canonical order; None: on all."""
    validation_examples: int = 0
    """Held out from training to choose checkpoints by; 0: there are none, and what is chosen is
    called best_on_test."""
    test_examples: int | None = None
    """Test on the first so many examples; None: on all."""
    augment: bool = False
    """Random crops and flips inside the compiled step (the paper uses none)."""
    normalization: tuple[float, float] | None = None
    """Mean and deviation of pixels in [0, 1] (the port: 0.1307 and 0.3081); None: [0, 1]."""
    chunk_steps: int = 100
    """Steps in one compiled call; between calls the program answers and saves."""
    eval_batch: int = 500
    """Examples at once in evaluation."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "decay_epochs", "chunk_steps", "eval_batch"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"{name}={value} is not possible: use 1 or more.")
        for name in ("train_examples", "test_examples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} is not possible: use 1 or more, or None for all.")
        if self.validation_examples < 0:
            raise ValueError(
                f"validation_examples={self.validation_examples} is not possible: use 0 or more."
            )
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate={self.learning_rate} trains nothing: use e.g. 5e-4.")
        if not 0 < self.decay <= 1:
            raise ValueError(f"decay={self.decay} is no decay: use a factor in (0, 1].")
        if self.optimizer not in get_args(OptimizerName):
            raise ValueError(
                f"optimizer={self.optimizer!r} is unknown: use one of "
                f"{', '.join(get_args(OptimizerName))}."
            )
        if self.optimizer == "adam_restarted" and self.decay_epochs != ADAM_RESTART_EVERY:
            raise ValueError(
                f"decay_epochs={self.decay_epochs} does not go with adam_restarted, which restarts "
                f"every {ADAM_RESTART_EVERY} epochs: leave it at {ADAM_RESTART_EVERY}, or use adam."
            )
        if self.normalization is not None:
            mean, deviation = self.normalization
            if not abs(mean) < float("inf") or not 0 < deviation < float("inf"):
                raise ValueError(
                    f"normalization={self.normalization} is not possible: give the mean and a "
                    "deviation above 0, or None."
                )


def make_optimizer(config: TrainConfig, steps_per_epoch: int) -> optax.GradientTransformation:
    """The optimizer of a config, its learning rate decayed in steps of ``decay_epochs``."""
    schedule = optax.exponential_decay(
        config.learning_rate, config.decay_epochs * steps_per_epoch, config.decay, staircase=True
    )
    if config.optimizer == "sgd":
        return optax.chain(optax.add_decayed_weights(1e-4), optax.sgd(schedule, momentum=0.9))
    if config.optimizer == "adam":
        return optax.adam(schedule)
    return _adam_restarted(config, steps_per_epoch)


def _adam_restarted(config: TrainConfig, steps_per_epoch: int) -> optax.GradientTransformation:
    """Adam as the PyTorch port makes it: a new one with less rate after epochs 4, 9, 14 and on."""
    first, every = ADAM_RESTART_FIRST * steps_per_epoch, ADAM_RESTART_EVERY * steps_per_epoch
    adam = optax.scale_by_adam()

    def init_fn(params: optax.Params) -> tuple:
        return jnp.zeros([], jnp.int32), adam.init(params)

    def update_fn(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        count, inner = state
        restart = (count >= first) & ((count - first) % every == 0)
        inner = jax.tree.map(lambda leaf: jnp.where(restart, jnp.zeros_like(leaf), leaf), inner)
        updates, inner = adam.update(updates, inner, params)
        restarts = jnp.where(count >= first, 1 + (count - first) // every, 0)
        rate = config.learning_rate * config.decay**restarts
        return jax.tree.map(lambda u: -rate * u, updates), (count + 1, inner)

    return optax.GradientTransformation(init_fn, update_fn)
