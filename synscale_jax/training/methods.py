"""The methods that are compared: what each adds to the loss and to the optimizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import optax
from jax import Array

from synscale_jax.scaling import Layer
from synscale_jax.scaling import synscal as synscal_term
from synscale_jax.scaling import synscaw as synscaw_transform

EVERY_EPOCH = "epoch"


def _nothing(logits: Array, labels: Array) -> Array:
    del labels
    return jnp.zeros([], logits.dtype)


def _identity(layers: Sequence[Layer], steps_per_epoch: int) -> optax.GradientTransformation:
    del layers, steps_per_epoch
    return optax.identity()


@dataclasses.dataclass(frozen=True)
class Method:
    """A regularizer, as what it adds to training.

    Attributes:
      name: short, for files and the command line: ``"synscaw"``.
      label: for tables and figures: ``"SynScaW"``.
      settings: everything that was chosen, written into each result.
      loss: added to the cross-entropy: ``(logits, labels) -> per example or scalar``.
      after_optimizer: a transform that comes last in the chain, made from the layer table and the
        number of steps in an epoch.
      norm_reading: where the activity of normalised layers is read.
    """

    name: str
    label: str
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    loss: Callable[[Array, Array], Array] = _nothing
    after_optimizer: Callable[[Sequence[Layer], int], optax.GradientTransformation] = _identity
    norm_reading: str = "pre_norm"


def baseline() -> Method:
    """Cross-entropy alone."""
    return Method("baseline", "baseline")


def synscaw(scaling_rate: float = 0.01, *, every_k: int | str = 1, **reading: Any) -> Method:
    """SynScaW after every optimizer step, with the arguments of :func:`synscale_jax.synscaw`.

    ``every_k="epoch"`` scales once after each epoch, as the authors' notebook does.

    Raises:
      ValueError: if an argument is none that ``synscaw`` takes; at once.
    """

    def after_optimizer(
        layers: Sequence[Layer], steps_per_epoch: int
    ) -> optax.GradientTransformation:
        steps: Any = steps_per_epoch if every_k == EVERY_EPOCH else every_k
        return synscaw_transform(scaling_rate, every_k=steps, layers=layers, **reading)

    after_optimizer((Layer(("head",), output=True),), 1)  # refuses bad settings now
    return Method(
        "synscaw",
        "SynScaW",
        {"scaling_rate": scaling_rate, "every_k": every_k, **reading},
        after_optimizer=after_optimizer,
        norm_reading=reading.get("norm_reading", "pre_norm"),
    )


def synscal(scaling_rate: float = 1.0, *, reading: str = "per_example") -> Method:
    """SynScaL added to the cross-entropy, with the arguments of :func:`synscale_jax.synscal`.

    Raises:
      ValueError: if the reading is unknown or the rate negative; at once.
    """

    def loss(logits: Array, labels: Array) -> Array:
        del labels
        return synscal_term(logits, scaling_rate=scaling_rate, reading=reading)

    loss(jnp.zeros((1, 2)), jnp.zeros(1, jnp.int32))  # refuses bad settings now
    return Method(
        "synscal", "SynScaL", {"scaling_rate": scaling_rate, "reading": reading}, loss=loss
    )
