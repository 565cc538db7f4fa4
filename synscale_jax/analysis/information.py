"""Information of a noisy code, by bounds from samples; in bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy import special

from synscale_jax.analysis.neuron import BITS as BITS
from synscale_jax.analysis.neuron import delta_information as delta_information
from synscale_jax.analysis.neuron import exact_delta_information as exact_delta_information
from synscale_jax.analysis.neuron import neuron_information as neuron_information
from synscale_jax.analysis.neuron import tied_gap as tied_gap

_AT_CEILING = 0.01  # share of log₂ n that a lower bound may lack and still count as saturated

Rows = Callable[[int, int], Any]
"""Start and stop -> log p(z_i|x_j) in nats for codes i in that range and every example j."""


class LabelInformation(NamedTuple):
    """What a code says about the label, at least; in bits.

    Attributes:
      bits: H(Y) − cross-entropy, a lower bound on I(Z; Y); negative for a decoder that is worse
        than none.
      entropy: H(Y) of these labels, which I(Z; Y) cannot exceed.
      cross_entropy: of the decoder.
      examples: how many labels.
    """

    bits: float
    entropy: float
    cross_entropy: float
    examples: int


def label_information(
    log_probabilities: Float[ndarray, "examples classes"], labels: Int[ndarray, " examples"]
) -> LabelInformation:
    r"""The lower bound H(Y) − E[−log q(y|z)] on I(Z; Y), in bits.

    Args:
      log_probabilities: log q(y|z) in nats; with several codes an example, their mean.
      labels: class indices. H(Y) is that of their frequencies.

    Raises:
      ValueError: if q is not normalised, for which the bound would not hold, or the labels do not
        go with it.

    Examples:
      >>> import numpy as np
      >>> from synscale_jax.analysis.information import label_information
      >>> q = np.log([[0.9, 0.1], [0.1, 0.9]])
      >>> print(f"{label_information(q, np.array([0, 1])).bits:.3f}")  # 1 − log2(1 / 0.9)
      0.848

    References:
      Barber and Agakov, The IM Algorithm, 2003. Alemi et al., `Deep Variational Information
      Bottleneck <https://arxiv.org/abs/1612.00410>`_, 2017.
    """
    log_q, labels = np.asarray(log_probabilities, float), np.asarray(labels)
    if labels.shape != log_q.shape[:1] or not labels.size:
        raise ValueError(
            f"labels of shape {labels.shape} do not go with log-probabilities of shape "
            f"{log_q.shape}: give one label an example."
        )
    if labels.min() < 0 or labels.max() >= log_q.shape[1]:
        raise ValueError(
            f"labels from {labels.min()} to {labels.max()} are no indices of {log_q.shape[1]} "
            "classes: count from 0."
        )
    total = special.logsumexp(log_q, axis=-1)
    if not (total <= 1e-3).all():
        raise ValueError(
            f"probabilities add up to {np.exp(total.max()):.4g}, not 1: give log_softmax of the "
            "logits."
        )
    shares = np.bincount(labels, minlength=log_q.shape[1]) / len(labels)
    entropy = float(special.entr(shares).sum() * BITS)
    cross_entropy = float(-log_q[np.arange(len(labels)), labels].mean() * BITS)
    return LabelInformation(entropy - cross_entropy, entropy, cross_entropy, len(labels))


class CodeInformation(NamedTuple):
    """What is known of I(Z; X) from n examples; in bits.

    Attributes:
      rate: mean KL[p(z|x), N(0, I)], an upper bound on I(Z; X) that is as loose as the prior is far
        from the codes: the number that the paper prints.
      upper: leave-one-out upper bound.
      lower: contrastive lower bound, at most ``ceiling``.
      ceiling: log₂ n.
      examples: n.
      flags: sentences about those of the three that n examples cannot carry.
    """

    rate: float
    upper: float
    lower: float
    ceiling: float
    examples: int
    flags: tuple[str, ...]


def code_information(
    means: Float[ndarray, "examples units"],
    deviations: Float[ndarray, "examples units"],
    codes: Float[ndarray, "examples units"],
    *,
    chunk: int = 500,
) -> CodeInformation:
    """Bounds on I(Z; X) of a code z ~ N(μ(x), σ²(x)), in bits.

    Args:
      means: μ of each example.
      deviations: σ, above 0.
      codes: one z drawn for each example.
      chunk: codes at once, which bounds memory to ``chunk`` × examples × 40 bytes.

    Raises:
      ValueError: if shapes differ, there are fewer than two examples, or a σ is not above 0.

    Examples:
      >>> import numpy as np
      >>> from synscale_jax.analysis.information import code_information
      >>> rng = np.random.default_rng(0)
      >>> x, noise = rng.normal(size=(2, 2000, 1))
      >>> z = 0.8 * x + 0.6 * noise  # I(Z; X) = log2(1 / 0.6) = 0.737
      >>> found = code_information(0.8 * x, np.full_like(x, 0.6), z)
      >>> print(f"{found.lower:.2f} {found.upper:.2f} {found.rate:.2f}")
      0.73 0.73 0.74

    References:
      Poole et al., `On Variational Bounds of Mutual Information
      <https://arxiv.org/abs/1905.06922>`_, 2019, sections 2.1 and 2.3. Van den Oord et al.,
      `Representation Learning with Contrastive Predictive Coding
      <https://arxiv.org/abs/1807.03748>`_, 2018.
    """
    means, deviations, codes = (np.asarray(a, float) for a in (means, deviations, codes))
    if not (means.shape == deviations.shape == codes.shape and means.ndim == 2):
        raise ValueError(
            f"means {means.shape}, deviations {deviations.shape} and codes {codes.shape} do not "
            "belong together: give three arrays of shape (examples, units)."
        )
    rate = float(gaussian_rate(means, deviations).mean())
    rows = gaussian_log_likelihood(means, deviations, codes)
    lower, upper = sample_bounds(rows, len(codes), chunk=chunk)
    ceiling = float(np.log2(len(codes)))
    return CodeInformation(
        rate, upper, lower, ceiling, len(codes), _flags(rate, upper, lower, ceiling, len(codes))
    )


def gaussian_rate(
    means: Float[ndarray, "examples units"], deviations: Float[ndarray, "examples units"]
) -> Float[ndarray, " examples"]:
    """KL[N(μ, σ²), N(0, I)] of each example, in bits.

    Raises:
      ValueError: if a σ is not above 0.

    Examples:
      >>> import numpy as np
      >>> from synscale_jax.analysis.information import gaussian_rate
      >>> gaussian_rate(np.zeros((2, 3)), np.full((2, 3), 0.5)).round(3)
      array([1.377, 1.377])
    """
    means, deviations = np.asarray(means, float), np.asarray(deviations, float)
    if not (deviations > 0).all():
        raise ValueError(
            f"a deviation of {np.min(deviations)} makes the information infinite or undefined: "
            "give deviations above 0."
        )
    kl = 0.5 * (np.square(means) + np.square(deviations) - 1) - np.log(deviations)
    return kl.sum(-1) * BITS


def gaussian_log_likelihood(
    means: Float[ndarray, "examples units"],
    deviations: Float[ndarray, "examples units"],
    codes: Float[ndarray, "examples units"],
) -> Rows:
    """Log p(z_i|x_j) in nats of Gaussian codes, row by row, for :func:`sample_bounds`."""
    precision = 1 / np.square(deviations)
    weighted = means * precision
    # Float64 throughout: with σ near 0.01 the squares cancel over six digits.
    constant = -0.5 * (means * weighted).sum(-1) - np.log(deviations).sum(-1)
    constant = constant - 0.5 * means.shape[1] * np.log(2 * np.pi)

    def rows(start: int, stop: int) -> Any:
        z = codes[start:stop]
        return z @ weighted.T - 0.5 * (np.square(z) @ precision.T) + constant[None]

    return rows


def sample_bounds(rows: Rows, examples: int, *, chunk: int = 500) -> tuple[float, float]:
    r"""Contrastive lower and leave-one-out upper bound on I(Z; X), where p(z|x) is known; in bits.

    .. math::
        \frac1n \sum_i \log \frac{p(z_i|x_i)}{\frac1n \sum_j p(z_i|x_j)} \;\le\; I(Z; X) \;\le\;
        \frac1n \sum_i \log \frac{p(z_i|x_i)}{\frac1{n-1} \sum_{j \ne i} p(z_i|x_j)}

    in expectation over samples. The lower one never exceeds log₂ n.

    Args:
      rows: gives log p(z_i|x_j), of shape ``(stop − start, examples)``.
      examples: n.
      chunk: rows at once.

    Returns:
      Lower and upper bound.

    Raises:
      ValueError: if there are fewer than two examples.
    """
    if examples < 2 or chunk < 1:
        raise ValueError(
            f"examples={examples}, chunk={chunk} leave nothing to compare: use two or more "
            "examples, in chunks of 1 or more."
        )
    lower, upper = [], []
    for start in range(0, examples, chunk):
        stop = min(start + chunk, examples)
        log_p = np.asarray(rows(start, stop), float)
        index = np.arange(stop - start)
        own = log_p[index, start + index]
        everything = _log_sum(log_p)
        log_p[index, start + index] = -np.inf
        lower.append(own - everything + np.log(examples))
        upper.append(own - _log_sum(log_p) + np.log(examples - 1))
    bounds = (float(np.concatenate(part).mean() * BITS) for part in (lower, upper))
    return next(bounds), next(bounds)


def rate_at(
    label_bits: Sequence[float], rates: Sequence[float], at: Sequence[float] | ndarray
) -> Float[ndarray, " points"]:
    """The rate that a curve needs for given values of I(Z; Y), on straight lines between points.

    Two codes compress differently only if their rates differ at equal I(Z; Y). A point that needs
    a larger rate than another one which says more about the label is left out.

    Args:
      label_bits: I(Z; Y) of the curve's points, one a strength β, in any order.
      rates: the rate of each.
      at: where to read.

    Returns:
      Rates; nan outside of the curve.

    Examples:
      >>> from synscale_jax.analysis.information import rate_at
      >>> rate_at([3.0, 2.0, 2.2], [40.0, 10.0, 99.0], [2.5, 3.1])
      array([25., nan])
    """
    order = np.argsort(label_bits)[::-1]  # the most telling first
    x, y = np.asarray(label_bits, float)[order], np.asarray(rates, float)[order]
    needed = y <= np.minimum.accumulate(y)
    x, y = x[needed][::-1], y[needed][::-1]
    return np.interp(np.asarray(at, float), x, y, left=np.nan, right=np.nan)


def _log_sum(log_p: Any) -> Any:
    """Log Σ exp over the last axis; a row of −∞ gives −∞."""
    largest = log_p.max(-1)
    safe = np.where(np.isfinite(largest), largest, 0)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(log_p - safe[:, None]).sum(-1)) + safe


def _flags(
    rate: float, upper: float, lower: float, ceiling: float, examples: int
) -> tuple[str, ...]:
    flags = [
        f"{name} {value:.2f} exceeds log2 {examples} = {ceiling:.2f}: no information of so many "
        "examples"
        for name, value in (("rate", rate), ("upper bound", upper))
        if value > ceiling
    ]
    if lower > (1 - _AT_CEILING) * ceiling:
        flags.append(
            f"lower bound {lower:.2f} is at its ceiling log2 {examples} = {ceiling:.2f}: more "
            "examples could tell more"
        )
    return tuple(flags)
