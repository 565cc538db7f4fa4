"""Information of one neuron, in closed form or by quadrature; in bits."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from scipy import special

BITS = 1 / np.log(2)
"""Bits in a nat."""

_NODES = 200  # of the quadrature: see neuron_information for its error


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
      >>> from synscale_jax.analysis.neuron import delta_information
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
      >>> from synscale_jax.analysis.neuron import tied_gap
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
      >>> from synscale_jax.analysis.neuron import neuron_information
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
      >>> from synscale_jax.analysis.neuron import exact_delta_information
      >>> print(f"{exact_delta_information(2.0, 0.1, scaling_rate=1.0):.4f}")
      0.0576
      >>> print(f"{exact_delta_information(-2.0, 0.1, scaling_rate=1.0):.4f}")
      -0.0563
    """
    w = np.asarray(weight, float)
    scaled = w + scaling_rate * np.square(w) * np.asarray(gap, float)
    return neuron_information(scaled, bias=bias) - neuron_information(w, bias=bias)


@functools.lru_cache(maxsize=1)
def _nodes() -> tuple[Any, Any]:
    return np.polynomial.legendre.leggauss(_NODES)


def _entropy(p: Any) -> Any:
    return special.entr(p) + special.entr(1 - p)
