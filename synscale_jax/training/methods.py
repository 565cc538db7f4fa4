"""The methods that are compared: what each adds to the loss, the optimizer and the model."""

from __future__ import annotations

import dataclasses
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import optax
from jax import Array

from synscale_jax import regularizers
from synscale_jax.scaling import Layer, synscal_regression
from synscale_jax.scaling import synscal as synscal_term
from synscale_jax.scaling import synscaw as synscaw_transform

EVERY_EPOCH = "epoch"

# Readings are recorded whether given or not: a default may change, what was run does not.
_DEFAULT_READING = {
    name: parameter.default
    for name, parameter in inspect.signature(synscaw_transform).parameters.items()
    if name
    in (
        "target",
        "measured_on",
        "granularity",
        "norm_reading",
        "clip",
        "max_relative_change",
        "restore_norm",
        "skip_silent_inputs",
    )
} | {"scale_output": False}  # every model here has a table that marks its output


def _nothing(logits: Array, labels: Array) -> Array:
    del labels
    return jnp.zeros([], logits.dtype)


def _nothing_pulled(predictions: Array, target_mean: Array) -> Array:
    del target_mean
    return jnp.zeros([], predictions.dtype)


def _nothing_sown(logits: Array, labels: Array, sown: Mapping[str, Any]) -> Array:
    del labels, sown
    return jnp.zeros([], logits.dtype)


def _identity(layers: Sequence[Layer], steps_per_epoch: int) -> optax.GradientTransformation:
    del layers, steps_per_epoch
    return optax.identity()


def _same(model: Any) -> Any:
    return model


@dataclasses.dataclass(frozen=True)
class Method:
    """A regularizer, as what it adds to training.

    Attributes:
      name: short, for files and the command line: ``"synscaw"``.
      label: for tables and figures: ``"SynScaW"``.
      settings: everything that was chosen, written into each result. ``ours`` lists those settings
        for which the paper's tables I to III print no value.
      loss: added to the cross-entropy: ``(logits, labels) -> per example or scalar``.
      after_optimizer: a transform that comes last in the chain, made from the layer table and the
        number of steps in an epoch.
      norm_reading: where the activity of normalised layers is read.
      model: makes the model that is trained from the one that was given.
      sown_loss: added to the cross-entropy, too: ``(logits, labels, sown) -> per example or
        scalar``, with what the model sows into the collection ``"regularizers"`` in training.
      regression_loss: added to the squared error of a regression: ``(predictions, mean of the
        training targets) -> per example or scalar``.
    """

    name: str
    label: str
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    loss: Callable[[Array, Array], Array] = _nothing
    after_optimizer: Callable[[Sequence[Layer], int], optax.GradientTransformation] = _identity
    norm_reading: str = "pre_norm"
    model: Callable[[Any], Any] = _same
    sown_loss: Callable[[Array, Array, Mapping[str, Any]], Array] = _nothing_sown
    regression_loss: Callable[[Array, Array], Array] = _nothing_pulled


def baseline() -> Method:
    """Cross-entropy alone."""
    return Method("baseline", "baseline")


def synscaw(scaling_rate: float = 0.01, *, every_k: int | str = 1, **reading: Any) -> Method:
    """SynScaW after every optimizer step, with the arguments of :func:`synscale_jax.synscaw`.

    ``every_k="epoch"`` scales once after each epoch, as the authors' notebook does.

    Raises:
      ValueError: if an argument has a value that ``synscaw`` refuses, or the rate is a schedule,
        which the settings of a run cannot hold; at once.
    """
    if callable(scaling_rate):
        raise ValueError(
            "scaling_rate is a schedule, which a run's settings cannot hold: write a Method of "
            "your own, whose settings say in numbers what after_optimizer does."
        )
    chosen = {**_DEFAULT_READING, **reading}

    def after_optimizer(
        layers: Sequence[Layer], steps_per_epoch: int
    ) -> optax.GradientTransformation:
        steps: Any = steps_per_epoch if every_k == EVERY_EPOCH else every_k
        return synscaw_transform(scaling_rate, every_k=steps, layers=layers, **chosen)

    after_optimizer((Layer(("dense0",)), Layer(("head",), output=True)), 1)  # refuses bad settings
    return Method(
        "synscaw",
        "SynScaW",
        {"scaling_rate": scaling_rate, "every_k": every_k, **chosen},
        after_optimizer=after_optimizer,
        norm_reading=chosen["norm_reading"],
    )


def synscal(scaling_rate: float = 1.0, *, reading: str = "per_example") -> Method:
    """SynScaL added to the cross-entropy, with the arguments of :func:`synscale_jax.synscal`.

    In a regression it is :func:`synscale_jax.synscal_regression`, which has one reading.

    Raises:
      ValueError: if the reading is unknown or the rate negative; at once.
    """

    def loss(logits: Array, labels: Array) -> Array:
        del labels
        return synscal_term(logits, scaling_rate=scaling_rate, reading=reading)

    def regression_loss(predictions: Array, target_mean: Array) -> Array:
        return synscal_regression(predictions, target_mean, scaling_rate=scaling_rate)

    loss(jnp.zeros((1, 2)), jnp.zeros(1, jnp.int32))  # refuses bad settings now
    return Method(
        "synscal",
        "SynScaL",
        {"scaling_rate": scaling_rate, "reading": reading},
        loss=loss,
        regression_loss=regression_loss,
    )


def dropout(input_rate: float = 0.2, hidden_rate: float = 0.5) -> Method:
    """Dropout of inputs and hidden units, in a model with a field ``dropout``.

    The rates are the paper's for table V; it prints none for tables I to III. On a model with
    batch norm it warns, as the paper leaves those cells out.

    Raises:
      ValueError: if a rate is outside [0, 1); at once. With a model that has no such field, when
        the program is made.
    """
    rates = (input_rate, hidden_rate)
    if not all(0 <= rate < 1 for rate in rates):
        raise ValueError(
            f"input_rate={input_rate}, hidden_rate={hidden_rate} are no rates of dropout: use "
            "numbers in [0, 1), e.g. 0.2 and 0.5."
        )

    def with_dropout(model: Any) -> Any:
        changed = _with_field(model, "dropout", rates)
        if any(layer.norm for layer in changed.layer_table()):
            warnings.warn(
                f"dropout before the batch norms of a {type(model).__name__} shifts the variance "
                "they see between training and evaluation (Li et al., 2019), which is why the "
                "paper leaves dropout out for ResNets: expect a larger error.",
                stacklevel=2,
            )
        return changed

    settings = {"input_rate": input_rate, "hidden_rate": hidden_rate}
    return Method("dropout", "dropout", _all_ours(settings), model=with_dropout)


def confidence_penalty(strength: float = 1.0) -> Method:
    """The confidence penalty, −β times the entropy of the output (eq. 7).

    β is what Pereyra et al. found best on MNIST and what the paper uses in table V; it prints none
    for tables I to III.

    Raises:
      ValueError: if β is negative; at once.
    """

    def loss(logits: Array, labels: Array) -> Array:
        del labels
        return regularizers.confidence_penalty(logits, strength=strength)

    loss(jnp.zeros((1, 2)), jnp.zeros(1, jnp.int32))  # refuses bad settings now
    return Method(
        "confidence_penalty", "confidence penalty", _all_ours({"strength": strength}), loss=loss
    )


def label_smoothing(smoothing: float = 0.1) -> Method:
    """Cross-entropy with smoothed labels; the paper describes it and has no table with it.

    Pereyra et al. found 0.1 best on MNIST.

    Raises:
      ValueError: if the smoothing is outside [0, 1]; at once.
    """

    def loss(logits: Array, labels: Array) -> Array:
        plain = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return regularizers.smoothed_cross_entropy(logits, labels, smoothing=smoothing) - plain

    loss(jnp.zeros((1, 2)), jnp.zeros(1, jnp.int32))  # refuses bad settings now
    return Method(
        "label_smoothing", "label smoothing", _all_ours({"smoothing": smoothing}), loss=loss
    )


def bottleneck(strength: float = 1e-3, *, features: int = 256, samples: int = 12) -> Method:
    """The variational information bottleneck (eq. 13), in a model with that field.

    ``strength`` β weighs the KL; ``features`` is N. The paper gives the 12 samples only; β and N
    are Alemi et al.'s for MNIST. The objective is the mean of the samples' cross-entropies; the
    cross-entropy and accuracy that are reported are those of the mean prediction.

    Raises:
      ValueError: if β is negative, N or the number of samples below 1; at once. With a model that
        has no field ``information_bottleneck``, when the program is made.
    """
    regularizers.Bottleneck(features, 2, samples)  # refuses bad settings now
    if not 0 <= strength < float("inf"):
        raise ValueError(
            f"strength={strength} is no weight of the KL: use a number of 0 or more, e.g. 1e-3."
        )

    def sown_loss(logits: Array, labels: Array, sown: Mapping[str, Any]) -> Array:
        plain = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return regularizers.bottleneck_loss(sown, labels, strength=strength) - plain

    return Method(
        "bottleneck",
        "information bottleneck",
        {
            "strength": strength,
            "features": features,
            "samples": samples,
            "ours": ("strength", "features"),
        },
        model=lambda model: _with_field(model, "information_bottleneck", (features, samples)),
        sown_loss=sown_loss,
    )


def combined(first: Method, second: Method) -> Method:
    """Two methods at once: both losses, both transforms, both changes of the model.

    The paper's are SynScaW or SynScaL with the confidence penalty.

    Raises:
      ValueError: if both are the same method, or read normalised layers at different places.
    """
    if first.name == second.name:
        raise ValueError(
            f"{first.name} with itself is no combination: combine two different methods."
        )
    readings = {first.norm_reading, second.norm_reading} - {Method.norm_reading}
    if len(readings) > 1:
        raise ValueError(
            f"{first.name} and {second.name} read normalised layers at different places "
            f"({', '.join(sorted(readings))}): give both the same norm_reading."
        )

    def after_optimizer(
        layers: Sequence[Layer], steps_per_epoch: int
    ) -> optax.GradientTransformation:
        return optax.chain(
            first.after_optimizer(layers, steps_per_epoch),
            second.after_optimizer(layers, steps_per_epoch),
        )

    return Method(
        f"{first.name}_{second.name}",
        f"{first.label} + {second.label}",
        {first.name: dict(first.settings), second.name: dict(second.settings)},
        loss=_sum_of(first.loss, second.loss, Method.loss),
        regression_loss=Method.regression_loss
        if _for_classes_only(first) or _for_classes_only(second)
        else _sum_of(first.regression_loss, second.regression_loss, Method.regression_loss),
        after_optimizer=after_optimizer,
        norm_reading=readings.pop() if readings else Method.norm_reading,
        model=lambda model: second.model(first.model(model)),
        sown_loss=_sum_of(first.sown_loss, second.sown_loss, Method.sown_loss),
    )


def _for_classes_only(method: Method) -> bool:
    """Whether a method has a loss of logits, and none of a regression's predictions."""
    alone = method.regression_loss is Method.regression_loss
    return method.loss is not Method.loss and alone


def _sum_of(first: Callable, second: Callable, nothing: Callable) -> Callable:
    """Both terms; where one adds nothing the other alone, so that it can be told what there is."""
    if first is nothing:
        return second
    return first if second is nothing else lambda *seen: first(*seen) + second(*seen)


def _all_ours(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings none of which the paper prints for tables I to III."""
    return {**settings, "ours": tuple(settings)}


def _with_field(model: Any, name: str, value: Any) -> Any:
    """A copy of a linen module with a field set."""
    if name not in {field.name for field in dataclasses.fields(model)}:
        raise ValueError(
            f"{type(model).__name__} has no field {name!r}: use synscale_jax.models.MLP or ResNet, "
            "or give your module that field."
        )
    return model.clone(**{name: value})
