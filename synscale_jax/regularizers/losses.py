"""Losses on logits: the confidence penalty, and label smoothing from integer labels."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Bool, Float, Int

from synscale_jax.scaling._synscal import refuse_other_examples

Number = float | Array


def confidence_penalty(
    logits: Float[Array, ...],
    *,
    strength: Number,
    axis: int = -1,
    where: Bool[Array, ...] | None = None,
) -> Float[Array, ...]:
    r"""The confidence penalty: reward the entropy of the output distribution.

    With class probabilities :math:`p_{nk} = \mathrm{softmax}(a_n)_k` the term of an example is

    .. math:: -\beta H(p_n) = \beta \sum_k p_{nk} \log p_{nk}

    It lies between −β log K, for a uniform output, and 0, for a certain one. It needs no label.

    Args:
      logits: unnormalised scores, shape ``(..., K)`` (K on ``axis``), any float dtype; −∞ for a
        class that cannot be.
      strength: β, a number of 0 or more. The paper prints it for table V only: 1.0, which Pereyra
        et al. found best on MNIST as well.
      axis: the class axis.
      where: examples that count, of the shape of ``logits`` without ``axis``. The others are 0;
        average with ``.mean(where=where)``.

    Returns:
      An array of the shape of ``logits`` without ``axis``, in their dtype. Add it to the
      cross-entropy of the examples and take the mean.

    Raises:
      ValueError: if β is negative, there is only one class, the logits are no floats or ``where``
        is of another shape.

    Examples:
      >>> import jax.numpy as jnp
      >>> from synscale_jax.regularizers import confidence_penalty
      >>> logits = jnp.array([[0.0, 0.0], [50.0, 0.0]])
      >>> print(confidence_penalty(logits, strength=1.0).round(3) + 0)
      [-0.693  0.   ]

    References:
      Pereyra et al., `Regularizing Neural Networks by Penalizing Confident Output Distributions
      <https://arxiv.org/abs/1701.06548>`_, 2017. Hofmann and Mäder, IEEE TNNLS 33(7), 2022, eq. 7.
    """
    if isinstance(strength, int | float | np.number) and not 0 <= strength < float("inf"):
        raise ValueError(
            f"strength={strength} is no strength of a penalty: use a number of 0 or more "
            "(Pereyra et al.: 1.0)."
        )
    _refuse_no_scores(logits, axis)
    refuse_other_examples(where, jnp.moveaxis(logits, axis, -1).shape[:-1])
    log_p = jax.nn.log_softmax(logits, axis)
    # A class at −∞ has p = 0 and adds nothing; 0 · −∞ would be no number, in the gradient too.
    safe = jnp.where(jnp.isneginf(log_p), 0, log_p)
    penalty = strength * jnp.sum(jnp.exp(log_p) * safe, axis)
    return penalty if where is None else jnp.where(where, penalty, 0)


def smoothed_cross_entropy(
    logits: Float[Array, "... classes"], labels: Int[Array, ...], *, smoothing: float = 0.1
) -> Float[Array, ...]:
    r"""Cross-entropy with smoothed labels, from integer labels.

    .. math:: -(1 - \varepsilon) \log p_{n y_n} - \frac{\varepsilon}{K} \sum_k \log p_{nk}

    The same as ``optax.softmax_cross_entropy`` with ``optax.smooth_labels`` of the one-hot labels,
    which are not formed here. (The paper describes noise below ε in the labels; what Szegedy et al.
    do, and everybody since, is a constant.)

    Args:
      logits: unnormalised scores, shape ``(..., K)``, any float dtype.
      labels: class indices, shape ``(...)``.
      smoothing: ε, in [0, 1]. The paper has no table with label smoothing; Pereyra et al. found 0.1
        best on MNIST.

    Returns:
      An array of the shape of ``labels``, in the dtype of ``logits``.

    Raises:
      ValueError: if ε is outside [0, 1], there is only one class or the logits are no floats.

    Examples:
      >>> import jax.numpy as jnp, optax
      >>> from synscale_jax.regularizers import smoothed_cross_entropy
      >>> logits, labels = jnp.array([[2.0, 0.0, -1.0]]), jnp.array([0])
      >>> print(smoothed_cross_entropy(logits, labels, smoothing=0.1).round(4))
      [0.3365]
      >>> smooth = optax.smooth_labels(jnp.eye(3)[labels], 0.1)
      >>> print(optax.softmax_cross_entropy(logits, smooth).round(4))
      [0.3365]

    References:
      Szegedy et al., `Rethinking the Inception Architecture for Computer Vision
      <https://arxiv.org/abs/1512.00567>`_, 2016, section 7.
    """
    if not 0 <= smoothing <= 1:
        raise ValueError(
            f"smoothing={smoothing} is no share of the label: use a number in [0, 1], e.g. 0.1."
        )
    _refuse_no_scores(logits, -1)
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    if smoothing == 0:  # 0 · ∞ where a class is ruled out by −inf
        return entropy
    uniform = -jax.nn.log_softmax(logits).mean(-1)
    return (1 - smoothing) * entropy + smoothing * uniform


def _refuse_no_scores(logits: Array, axis: int) -> None:
    if not jnp.issubdtype(logits.dtype, jnp.floating):
        raise ValueError(
            f"logits of dtype {logits.dtype} are no scores: pass the network's float output."
        )
    if logits.ndim == 0 or logits.shape[axis] < 2:
        raise ValueError(
            f"logits of shape {logits.shape} have one class on axis {axis}, whose probability is 1 "
            "whatever the network does: write a sigmoid head a as the two logits "
            "jnp.stack([jnp.zeros_like(a), a], -1)."
        )
