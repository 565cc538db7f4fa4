"""SynScaL: a loss term that holds outputs near their mean activity."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float

from synscale_jax.scaling._gap import Number

SYNSCAL_READINGS = ("per_example", "per_example_mean", "batch_mean", "mean_logit")


def synscal(
    logits: Float[Array, ...],
    *,
    scaling_rate: Number = 1.0,
    reading: str = "per_example",
    axis: int = -1,
    where: Bool[Array, ...] | None = None,
    axis_name: str | None = None,
) -> Float[Array, ...]:
    r"""SynScaL for classification: pull the output activity towards 1/K.

    With class probabilities :math:`p_{nk} = \mathrm{softmax}(a_n)_k`, K classes and N examples,
    the term is γ times

    .. math::
        \text{per\_example:} \; & \textstyle\sum_k (1/K - p_{nk})^2 \\
        \text{per\_example\_mean:} \; & \tfrac1K \textstyle\sum_k (1/K - p_{nk})^2 \\
        \text{batch\_mean:} \; & \textstyle\sum_k (1/K - \tfrac1N \sum_n p_{nk})^2 \\
        \text{mean\_logit:} \; & (1/K - \tfrac{1}{NK} \textstyle\sum_{nk} a_{nk})^2

    ``per_example`` is the paper's equation (18) as printed, ``batch_mean`` its abstract,
    ``mean_logit`` the authors' notebook and the PyTorch port. Since probabilities sum to one,
    ``per_example`` equals :math:`\sum_k p_{nk}^2 - 1/K`: a quadratic confidence penalty that needs
    no label.

    Args:
      logits: unnormalised scores, shape ``(..., K)`` (K on ``axis``), any float dtype.
      scaling_rate: γ, a number of 0 or more. The paper: 1.0 in tables I to III, 0.5 in table V.
      reading: one of the four names above.
      axis: the class axis.
      where: examples that count, of the shape of ``logits`` without ``axis``. Others add nothing to
        a batch reading and are 0 in a per-example one; average those with ``.mean(where=where)``.
      axis_name: mapped axis over which the batch is spread (``shard_map``, ``pmap``); matters to
        the batch readings only.

    Returns:
      For the per-example readings an array of the shape of ``logits`` without ``axis``, as optax's
      losses return; for the batch readings a scalar. In the dtype of ``logits``. Add either to the
      cross-entropy of the examples and take the mean.

    Raises:
      ValueError: if the reading is unknown, γ is negative, there is only one class (the term would
        be zero silently), the logits are no floats or ``where`` is of another shape.

    Examples:
      >>> import jax.numpy as jnp, synscale_jax as ss
      >>> logits = jnp.array([[2.0, 0.0], [0.0, 0.0]])
      >>> ss.synscal(logits, scaling_rate=1.0).tolist()
      [0.29001..., 0.0]
      >>> float(ss.synscal(logits, scaling_rate=1.0, reading="batch_mean"))
      0.0725...

    References:
      Hofmann and Mäder, `Synaptic Scaling: An Artificial Neural Network Regularization Inspired by
      Nature <https://doi.org/10.1109/TNNLS.2021.3050422>`_, IEEE TNNLS 33(7), 2022, eq. 17 and 18.
    """
    _refuse_bad_input(logits, scaling_rate, reading, axis)
    logits = jnp.moveaxis(logits, axis, -1)
    refuse_other_examples(where, logits.shape[:-1])
    if where is not None:  # what does not count may be anything, and adds no gradient either
        logits = jnp.where(where[..., None], logits, 0)
    classes = logits.shape[-1]
    if reading == "mean_logit":
        mean = _batch_mean(logits, where, axis_name).mean()
        return scaling_rate * jnp.square(1 / classes - mean)
    probabilities = jax.nn.softmax(logits)
    if reading == "batch_mean":
        mean = _batch_mean(probabilities, where, axis_name)
        return scaling_rate * jnp.sum(jnp.square(1 / classes - mean))
    term = jnp.sum(jnp.square(1 / classes - probabilities), -1)
    if reading == "per_example_mean":
        term = term / classes
    return scaling_rate * (term if where is None else jnp.where(where, term, 0))


def synscal_regression(
    predictions: Float[Array, ...],
    target_mean: Number,
    *,
    scaling_rate: Number = 0.5,
) -> Float[Array, ...]:
    r"""SynScaL for regression: pull predictions towards the mean target.

    .. math:: \gamma \, (\bar y - \hat y)^2

    Args:
      predictions: ŷ, any shape and float dtype, in the targets' units.
      target_mean: ȳ, the mean of the *training* targets, a number or one for each output
        (broadcast against the last axes of ``predictions``).
      scaling_rate: γ, a number of 0 or more (the paper's table V: 0.5).

    Returns:
      One term for each prediction, of their shape and dtype, in squared units.

    Raises:
      ValueError: if γ is negative, the predictions are no floats or the mean is of another shape.

    Examples:
      >>> import jax.numpy as jnp, synscale_jax as ss
      >>> print(ss.synscal_regression(jnp.array([1.0, 4.0]), 2.0, scaling_rate=0.5))
      [0.5 2. ]

    References:
      Hofmann and Mäder, IEEE TNNLS 33(7), 2022, eq. 18, regression case.
    """
    _refuse_bad_rate(scaling_rate)
    _refuse_no_floats("predictions", predictions)
    mean = jnp.asarray(target_mean, predictions.dtype)
    last = zip(reversed(mean.shape), reversed(predictions.shape), strict=False)
    if mean.ndim > predictions.ndim or any(ours not in (1, theirs) for ours, theirs in last):
        raise ValueError(
            f"target_mean of shape {mean.shape} does not go with predictions of shape "
            f"{predictions.shape}: give one number, or one for each output."
        )
    mean = mean.reshape((1,) * (predictions.ndim - mean.ndim) + mean.shape)
    return scaling_rate * jnp.square(mean - predictions)


def _batch_mean(values: Array, where: Array | None, axis_name: str | None) -> Array:
    """Mean (classes,) of values (..., classes) over the examples that count, on every device."""
    wide = np.promote_types(values.dtype, jnp.float32)  # float16 counts to 65 504
    rows = values.reshape(-1, values.shape[-1]).astype(wide)
    keep = jnp.ones(len(rows), wide) if where is None else where.reshape(-1).astype(wide)
    total, count = keep @ rows, keep.sum()
    if axis_name is not None:
        total, count = jax.lax.psum((total, count), axis_name)
    return (total / jnp.maximum(count, 1)).astype(values.dtype)


def _refuse_bad_input(logits: Array, scaling_rate: Number, reading: str, axis: int) -> None:
    if reading not in SYNSCAL_READINGS:
        raise ValueError(
            f"reading={reading!r} is no reading of SynScaL: use one of "
            f"{', '.join(SYNSCAL_READINGS)}."
        )
    _refuse_bad_rate(scaling_rate)
    _refuse_no_floats("logits", logits)
    if logits.ndim == 0 or logits.shape[axis] < 2:
        raise ValueError(
            f"logits of shape {logits.shape} have one class on axis {axis}, where SynScaL is zero "
            "whatever the network does: write a sigmoid head a as the two logits "
            "jnp.stack([jnp.zeros_like(a), a], -1)."
        )


def refuse_other_examples(where: Array | None, examples: tuple[int, ...]) -> None:
    """Refuse a ``where`` of another shape, which would be broadcast to a term too many."""
    if where is not None and where.shape != examples:
        raise ValueError(
            f"where has shape {where.shape}: give one flag an example, of shape {examples}."
        )


def _refuse_bad_rate(scaling_rate: Number) -> None:
    if isinstance(scaling_rate, str | None) or (
        isinstance(scaling_rate, int | float | np.number) and not 0 <= scaling_rate < float("inf")
    ):
        raise ValueError(
            f"scaling_rate={scaling_rate!r} is no rate: use a number of 0 or more (the paper: 1.0)."
        )


def _refuse_no_floats(name: str, values: Array) -> None:
    dtype = getattr(values, "dtype", type(values).__name__)
    if isinstance(dtype, str) or not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"{name} of dtype {dtype} are no scores: pass the network's float output.")
