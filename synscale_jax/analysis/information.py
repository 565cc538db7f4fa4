"""Information in bits: of one neuron in closed form, of a noisy code by bounds from samples."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy import special

BITS = 1 / np.log(2)
"""Bits in a nat."""

_NODES = 200  # of the quadrature: see neuron_information for its error
_AT_CEILING = 0.01  # share of log₂ n that a lower bound may lack and still count as saturated

Rows = Callable[[int, int], Any]
"""Start and stop -> log p(z_i|x_j) in nats for codes i in that range and every example j."""


def delta_information(
    weight: Any,
    gap: Any,
    *,
    scaling_rate: float,
    bias: float = 0.0,
    drive: Any = 0.5,
    joint: Any = 1.0,
) -> Any:
    r"""What the paper's equation 25 calls the change of information by one scaling step, in bits.

    .. math::
        \Delta I = \sum_{x,z} p(z, x) \log_2
        \frac{1 + e^{-w\,p(x|z) - b}}{1 + e^{-(w + \gamma w^2 \hat z)\,p(x|z) - b}}

    Scaling changes p(z|x) and with it p(z, x) and p(z), but equation 22 leaves both as they were.
    So this is the mean change of log p(z = 1|x) under the unscaled neuron, and no difference of
    two mutual informations; :func:`exact_delta_information` is one. Its sign is the sign of ẑ for
    every w ≠ 0, since only the exponent of the denominator changes.

    Args:
      weight: w, any shape.
      gap: ẑ, target minus measured activity; broadcast with ``weight``. :func:`tied_gap` is the
        paper's choice.
      scaling_rate: γ, which the paper does not print for its figure 4.
      bias: b.
      drive: p(x|z), which stands where a neuron has its input: one number, or one a pair (x, z).
        The paper takes 0.5.
      joint: p(z, x), a number or one a pair; it sums to 1. With one ``drive`` for all pairs it
        has no effect, and 1 does.

    Returns:
      ΔI, float64, of the shape of ``weight`` and ``gap`` broadcast.

    Raises:
      ValueError: if ``joint`` is no distribution.

    Examples:
      >>> from synscale_jax.analysis.information import delta_information
      >>> print(f"{delta_information(2.0, 0.1, scaling_rate=1.0):.3f}")
      0.072
      >>> print(f"{delta_information(-2.0, 0.1, scaling_rate=1.0):.3f}")
      0.205

    References:
      Hofmann and Mäder, IEEE TNNLS 33(7), 2022, eq. 22 to 25 and figure 4.
    """
    joint, drive = np.broadcast_arrays(np.asarray(joint, float), np.asarray(drive, float))
    if (joint < 0).any() or abs(joint.sum() - 1) > 1e-6:
        raise ValueError(
            f"joint={joint.tolist()} is no distribution: give p(z, x) of every pair, 1 in all, and "
            "as many entries in drive."
        )
    w, gap = np.broadcast_arrays(np.asarray(weight, float), np.asarray(gap, float))
    scaled = w + scaling_rate * np.square(w) * gap
    drives, shares = drive.reshape(-1), joint.reshape(-1)
    before = np.logaddexp(0, -w[..., None] * drives - bias)
    after = np.logaddexp(0, -scaled[..., None] * drives - bias)
    return ((before - after) * shares).sum(-1) * BITS


def tied_gap(weight: Any, *, bias: float = 0.0, drive: float = 0.5, target: float = 0.5) -> Any:
    r"""The gap of a sigmoid neuron that always receives ``drive``: target − σ(w · drive + b).

    This ties ẑ to w, and only so does equation 25 have the sign opposite to w that the paper reads
    from its figure 4 (for b = 0; else the sign changes at w = −b / drive).

    Args:
      weight: w, any shape.
      bias: b.
      drive: the constant input.
      target: the target activity; the paper's is σ's mean over inputs from U(−1, 1), which is 0.5
        for every w where b = 0: with those inputs the gap would be 0.

    Returns:
      ẑ, float64, of the shape of ``weight``.

    Examples:
      >>> from synscale_jax.analysis.information import tied_gap
      >>> print(f"{tied_gap(2.0):.3f} {tied_gap(-2.0):.3f}")
      -0.231 0.231
    """
    return target - special.expit(np.asarray(weight, float) * drive + bias)


def neuron_information(weight: Any, *, bias: float = 0.0) -> Any:
    r"""I(Z; X) of a neuron that fires with probability σ(w x + b), x ~ U(−1, 1), in bits.

    .. math::
        I = h\Big(\tfrac12 \int_{-1}^1 \sigma(w x + b)\,dx\Big)
        - \tfrac12 \int_{-1}^1 h(\sigma(w x + b))\,dx

    with h the binary entropy, by Gauss–Legendre quadrature.

    Args:
      weight: w, any shape; to 1e-9 bits for \|w\| up to 50.
      bias: b.

    Returns:
      I, float64, of the shape of ``weight``: 0 at w = 0, even in w where b = 0, below 1.

    Examples:
      >>> from synscale_jax.analysis.information import neuron_information
      >>> print(f"{neuron_information(2.0):.4f}")
      0.1856
    """
    x, share = _nodes()
    p = special.expit(np.asarray(weight, float)[..., None] * x + bias)
    return (_entropy((p * share).sum(-1) / 2) - (_entropy(p) * share).sum(-1) / 2) * BITS


def exact_delta_information(
    weight: Any, gap: Any, *, scaling_rate: float, bias: float = 0.0
) -> Any:
    """The change of I(Z; X) by one scaling step, for the neuron of :func:`neuron_information`.

    Where b = 0, information grows with the size of w, so the sign of the change is that of
    w · ẑ, for either sign of w (as long as the step does not throw w beyond −w).

    Args:
      weight: w, any shape.
      gap: ẑ, broadcast with ``weight``.
      scaling_rate: γ.
      bias: b.

    Returns:
      ΔI in bits, float64.

    Examples:
      >>> from synscale_jax.analysis.information import exact_delta_information
      >>> print(f"{exact_delta_information(2.0, 0.1, scaling_rate=1.0):.4f}")
      0.0576
      >>> print(f"{exact_delta_information(-2.0, 0.1, scaling_rate=1.0):.4f}")
      -0.0563
    """
    w = np.asarray(weight, float)
    scaled = w + scaling_rate * np.square(w) * np.asarray(gap, float)
    return neuron_information(scaled, bias=bias) - neuron_information(w, bias=bias)


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
      ValueError: if q is not normalised, for which the bound would not hold.

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


@functools.lru_cache(maxsize=1)
def _nodes() -> tuple[Any, Any]:
    return np.polynomial.legendre.leggauss(_NODES)


def _entropy(p: Any) -> Any:
    return special.entr(p) + special.entr(1 - p)


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
