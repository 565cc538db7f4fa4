"""How log-normal positive values are: weights at once, activations batch by batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float
from scipy import optimize, special

from synscale_jax.scaling._layers import Layer, layers_from_names, leaves_by_path

# Fine bins of equal width in log x, from 1e-20 to 1e20, and one for all beyond at either end.
_LOW, _HIGH, _FINE = np.log(1e-20), np.log(1e20), 1 << 14
_WIDTH = (_HIGH - _LOW) / _FINE
_ROUNDING = 3e-6  # deviation of float32 logarithms of equal values, relative to their size
_SPAN = 4.0  # deviations on each side of the mean that the bins of a divergence cover
_CHUNK = 1 << 22  # values at once, which bounds memory
_ROW = 1024  # of a sum in two stages, which keeps float32 sums accurate


class Tally(NamedTuple):
    """What is kept of values; tallies of parts merge into that of the whole.

    On the device counts are int32 and moments float32; merged on the host, int64 and float64.

    Attributes:
      histogram: positive values in 16 384 bins of equal width in log x between 1e-20 and 1e20, with
        all below in the first and all above in the last place, shape ``(16386,)``.
      positive: how many values are positive and finite.
      zeros: how many are zero.
      negatives: how many are negative and finite; they are left out of everything else.
      total: how many values there were.
      log_mean: mean of log x over positive values.
      log_m2: sum of squared deviations of log x from that mean.
      mean: mean of positive x.
      mean_square: mean of x² over positive x.
    """

    histogram: Any
    positive: Any
    zeros: Any
    negatives: Any
    total: Any
    log_mean: Any
    log_m2: Any
    mean: Any
    mean_square: Any


class LogNormalFit(NamedTuple):
    """The log-normal of maximum likelihood, and how far the values are from it.

    Attributes:
      divergence: Jensen–Shannon divergence, in nats: 0 for a log-normal, log 2 at most.
      distance: its square root, a metric.
      sampling: what a sample of this size from a log-normal would have as divergence: about an
        eighth of bins a value. A divergence of this size says nothing.
      ks: Kolmogorov–Smirnov distance, the largest difference of the distribution functions, at the
        edges of the tally's bins: an effect size, too small by 0.003 at most where σ = 1.
      mu: mean of log x.
      sigma: standard deviation of log x (n in the denominator).
      positive: how many values were positive, which all of the above is about.
      zeros: share of zeros among all values.
      negatives: share of negative values among all.
    """

    divergence: float
    distance: float
    sampling: float
    ks: float
    mu: float
    sigma: float
    positive: int
    zeros: float
    negatives: float


def tally(values: Float[Array, ...]) -> Tally:
    """Count an array of values, in one pass; works under ``jit``, ``scan`` and ``lax.map``.

    Args:
      values: any shape and float dtype, fewer than 2³¹ of them; taken as float32.

    Returns:
      A :class:`Tally` on the device; :func:`merge` those of several batches.

    Raises:
      ValueError: if there are no values, or too many to count in int32.

    Examples:
      >>> import jax.numpy as jnp
      >>> from synscale_jax.analysis.lognormal import merge, tally
      >>> whole = merge(tally(jnp.array([0.5, 0.0])), tally(jnp.array([2.0, -1.0])))
      >>> int(whole.positive), int(whole.zeros), int(whole.negatives), float(whole.mean)
      (2, 1, 1, 1.25)
    """
    if not 0 < values.size < 2**31:
        raise ValueError(
            f"{values.size} values cannot be tallied at once: give 1 to 2³¹ − 1, and merge parts."
        )
    x = jnp.ravel(values).astype(jnp.float32)
    counts = (x > 0) & jnp.isfinite(x)
    x_safe = jnp.where(counts, x, 1)
    log_x = jnp.log(x_safe)  # 0 for what does not count
    n = jnp.sum(counts, dtype=jnp.int32)
    per = 1 / jnp.maximum(n, 1).astype(jnp.float32)
    log_mean = _sum(log_x) * per
    place = jnp.floor((log_x - _LOW) / _WIDTH).astype(jnp.int32) + 1
    place = jnp.clip(place, 0, _FINE + 1)
    histogram = jnp.zeros(_FINE + 2, jnp.int32).at[place].add(counts.astype(jnp.int32))
    return Tally(
        histogram,
        n,
        jnp.sum(x == 0, dtype=jnp.int32),
        jnp.sum((x < 0) & jnp.isfinite(x), dtype=jnp.int32),
        jnp.full([], x.size, jnp.int32),
        log_mean,
        _sum(jnp.where(counts, jnp.square(log_x - log_mean), 0)),
        _sum(jnp.where(counts, x_safe, 0)) * per,
        _sum(jnp.where(counts, jnp.square(x_safe), 0)) * per,
    )


_tally = jax.jit(tally)


def merge(*tallies: Tally) -> Tally:
    """Merge tallies of parts into that of the whole, on the host, in int64 and float64.

    Args:
      *tallies: of disjoint parts, from the device or merged already.
    """
    if not tallies:
        raise ValueError("nothing to merge: give at least one tally.")
    whole = _on_host(tallies[0])
    for part in map(_on_host, tallies[1:]):
        n = whole.positive + part.positive
        share = part.positive / max(n, 1)
        gap = part.log_mean - whole.log_mean
        whole = Tally(
            whole.histogram + part.histogram,
            n,
            whole.zeros + part.zeros,
            whole.negatives + part.negatives,
            whole.total + part.total,
            whole.log_mean + gap * share,
            whole.log_m2 + part.log_m2 + gap**2 * whole.positive * share,
            whole.mean + (part.mean - whole.mean) * share,
            whole.mean_square + (part.mean_square - whole.mean_square) * share,
        )
    return whole


def tally_all(values: Any) -> Tally:
    """Count an array of any size, on the host or the device, a few million values at a time."""
    flat = values.reshape(-1)
    whole = len(flat) // _CHUNK * _CHUNK
    parts = [flat[start : start + _CHUNK] for start in range(0, whole, _CHUNK)]
    if whole < len(flat) or not parts:
        parts.append(flat[whole:])
    return merge(*(_tally(jnp.asarray(part)) for part in parts))


def fit(counted: Tally, *, bins: int = 100) -> LogNormalFit:
    r"""Fit a log-normal to what was counted, and measure how far the values are from it.

    With P the values' and Q the fitted distribution over ``bins`` bins of equal width in log x
    between μ − 4σ and μ + 4σ and one for all beyond at either end, and M = (P + Q) / 2,

    .. math:: \mathrm{JS} = \tfrac12 \mathrm{KL}(P \| M) + \tfrac12 \mathrm{KL}(Q \| M)

    Edges of the bins lie on those of the tally, so a distribution with σ below about 0.1 is seen
    more coarsely. For orientation, with 100 bins: exponential values have 0.020, half-normal ones
    (weights drawn from a normal) 0.037, uniform ones 0.095, or 0.102 with bins that resolve where
    they end.

    Args:
      counted: the values, from :func:`tally` or :func:`merge`.
      bins: number of bins between the two for overflow.

    Returns:
      A :class:`LogNormalFit`. What cannot be fitted, because fewer than two values are positive or
      all are equal, is ``nan``.

    Raises:
      ValueError: if values were not finite, or ``bins`` is below 2.

    Examples:
      >>> import numpy as np
      >>> from synscale_jax.analysis.lognormal import fit, tally_all
      >>> values = np.abs(np.random.default_rng(0).normal(size=100_000))
      >>> print(f"{fit(tally_all(values)).divergence:.3f}")
      0.037

    References:
      Lin, `Divergence Measures Based on the Shannon Entropy
      <https://doi.org/10.1109/18.61115>`_, 1991. Hofmann and Mäder, IEEE TNNLS 33(7), 2022,
      tables II and III.
    """
    if bins < 2:
        raise ValueError(f"bins={bins} cannot show a distribution: use 2 or more, e.g. 100.")
    counted = _on_host(counted)
    _refuse_not_finite(counted)
    n = int(counted.positive)
    shares = (n, float(counted.zeros / counted.total), float(counted.negatives / counted.total))
    mu = float(counted.log_mean) if n else float("nan")
    sigma = _log_deviation(counted)
    if not sigma > 0:
        nan = float("nan")
        return LogNormalFit(nan, nan, nan, nan, mu, sigma, *shares)
    edges = np.linspace(mu - _SPAN * sigma, mu + _SPAN * sigma, bins + 1)
    index = np.unique(np.clip(np.rint((edges - _LOW) / _WIDTH), 0, _FINE).astype(int))
    below = np.cumsum(counted.histogram)[:-1] / n  # empirical distribution function at fine edges
    fitted = special.ndtr((_LOW + _WIDTH * np.arange(_FINE + 1) - mu) / sigma)
    p = np.diff(below[index], prepend=0, append=1)
    q = np.diff(fitted[index], prepend=0, append=1)
    divergence = max(_jensen_shannon(p, q), 0.0)
    ks = float(np.abs(below - fitted).max())
    sampling = min(len(index) / (8 * n), np.log(2))
    return LogNormalFit(divergence, divergence**0.5, sampling, ks, mu, sigma, *shares)


def fit_layers(arrays: Mapping[str, Any], *, bins: int = 100) -> dict[str, LogNormalFit]:
    """Fit a log-normal to each of several arrays, and to all together as ``"pooled"``.

    Args:
      arrays: name -> values, e.g. from :func:`kernels`.
      bins: as in :func:`fit`.

    Raises:
      ValueError: if there are no arrays, or one is called ``"pooled"``.
    """
    if not arrays or "pooled" in arrays:
        raise ValueError(
            f"arrays named {', '.join(arrays) or 'nothing'} cannot be fitted: give at least one, "
            'none of them called "pooled".'
        )
    tallies = {name: tally_all(values) for name, values in arrays.items()}
    tallies["pooled"] = merge(*tallies.values())
    return {name: fit(counted, bins=bins) for name, counted in tallies.items()}


def held_out_likelihood(fitted_to: Tally, held_out: Tally) -> dict[str, float]:
    """Mean log-likelihood of held-out positive values under three distributions fitted to others.

    Log-normal, half-normal and gamma are each fitted by maximum likelihood. Both steps need the
    tallies' moments only, so they work on streams too.

    Args:
      fitted_to: the values that the distributions are fitted to.
      held_out: other values, e.g. those of the other half.

    Returns:
      ``"lognormal"``, ``"half_normal"``, ``"gamma"`` -> nats a value; the largest fits best.

    Raises:
      ValueError: if values were not finite, or too few are positive or all equal.

    Examples:
      >>> import numpy as np
      >>> from synscale_jax.analysis.lognormal import held_out_likelihood, tally_all
      >>> values = np.abs(np.random.default_rng(0).normal(size=20_000))
      >>> scores = held_out_likelihood(tally_all(values[::2]), tally_all(values[1::2]))
      >>> max(scores, key=scores.get)
      'half_normal'
    """
    train, test = _on_host(fitted_to), _on_host(held_out)
    for counted in (train, test):
        _refuse_not_finite(counted)
    sigma = _log_deviation(train)
    if not sigma > 0 or not test.positive:
        raise ValueError(
            f"{int(train.positive)} values to fit and {int(test.positive)} held out do not do: "
            "give two or more positive values that differ, and one or more held out."
        )
    variance = sigma**2
    squared_gap = test.log_m2 / test.positive + (test.log_mean - train.log_mean) ** 2
    shape, scale = _gamma(float(train.mean), float(train.log_mean))
    return {
        "lognormal": float(
            -test.log_mean - 0.5 * (np.log(2 * np.pi * variance) + squared_gap / variance)
        ),
        "half_normal": float(
            0.5 * np.log(2 / (np.pi * train.mean_square))
            - 0.5 * test.mean_square / train.mean_square
        ),
        "gamma": float(
            (shape - 1) * test.log_mean
            - test.mean / scale
            - special.gammaln(shape)
            - shape * np.log(scale)
        ),
    }


class Density(NamedTuple):
    """Density of log x (natural) of positive values, for a figure.

    Attributes:
      log_x: middles of the bins, shape ``(bins,)``.
      observed: what was counted, per unit of log x, shape ``(bins,)``.
      fitted: ``"lognormal"``, ``"half_normal"``, ``"gamma"`` -> density at ``log_x`` of the
        distribution of maximum likelihood.
    """

    log_x: np.ndarray
    observed: np.ndarray
    fitted: dict[str, np.ndarray]


def density(counted: Tally, *, bins: int = 80) -> Density:
    """What was counted as a histogram over log x, and three fitted densities beside it.

    Args:
      counted: the values, from :func:`tally` or :func:`merge`.
      bins: between μ − 4σ and μ + 4σ of log x; what lies beyond is not shown.

    Raises:
      ValueError: if values were not finite, too few are positive or all equal, or ``bins`` is
        below 2.

    Examples:
      >>> import numpy as np
      >>> from synscale_jax.analysis.lognormal import density, tally_all
      >>> values = np.abs(np.random.default_rng(0).normal(size=100_000))
      >>> shown = density(tally_all(values))
      >>> gaps = {name: np.abs(y - shown.observed).max() for name, y in shown.fitted.items()}
      >>> min(gaps, key=gaps.get)
      'half_normal'
    """
    if bins < 2:
        raise ValueError(f"bins={bins} cannot show a distribution: use 2 or more, e.g. 80.")
    counted = _on_host(counted)
    _refuse_not_finite(counted)
    n = int(counted.positive)
    mu, sigma = float(counted.log_mean), _log_deviation(counted)
    if not sigma > 0:
        raise ValueError(f"{n} positive values show no distribution: give two or more that differ.")
    edges = np.linspace(mu - _SPAN * sigma, mu + _SPAN * sigma, bins + 1)
    index = np.unique(np.clip(np.rint((edges - _LOW) / _WIDTH), 0, _FINE).astype(int))
    at = _LOW + _WIDTH * index
    shares = np.diff(np.cumsum(counted.histogram)[:-1][index]) / n
    log_x = (at[:-1] + at[1:]) / 2
    x, scale = np.exp(log_x), float(np.sqrt(counted.mean_square))
    shape, theta = _gamma(float(counted.mean), float(counted.log_mean))
    normal = np.exp(-0.5 * np.square((log_x - mu) / sigma)) / (sigma * np.sqrt(2 * np.pi))
    half = x * np.sqrt(2 / np.pi) / scale * np.exp(-0.5 * np.square(x / scale))
    gamma = np.exp(shape * (log_x - np.log(theta)) - x / theta - special.gammaln(shape))
    fitted = {"lognormal": normal, "half_normal": half, "gamma": gamma}
    return Density(log_x, shares / np.diff(at), fitted)


def kernels(params: Any, layers: Sequence[Layer] | None = None) -> dict[str, Any]:
    """The kernels of a network by layer, without biases and normalisations.

    Args:
      params: nested parameters.
      layers: the layer table; None: every leaf called ``kernel``.

    Raises:
      ValueError: if the table names a kernel that is not there.
    """
    table = layers_from_names(params) if layers is None else layers
    leaves = leaves_by_path(params)
    for layer in table:
        if (*layer.path, layer.kernel) not in leaves:
            raise ValueError(
                f"layer {layer.name!r} has no leaf {layer.kernel!r} among the parameters: give the "
                "table of this model."
            )
    return {layer.name: leaves[(*layer.path, layer.kernel)] for layer in table}


def _sum(terms: Array) -> Array:
    padded = jnp.pad(terms, (0, -terms.size % _ROW))
    return padded.reshape(-1, _ROW).sum(1).sum()


def _on_host(counted: Tally) -> Tally:
    if not isinstance(counted, Tally):
        raise TypeError(f"{type(counted).__name__} is no Tally: give tally_all(values).")
    fields = jax.device_get(counted)._asdict()
    counts = ("histogram", "positive", "zeros", "negatives", "total")
    return Tally(
        **{
            name: np.asarray(value, np.int64 if name in counts else np.float64)
            for name, value in fields.items()
        }
    )


def _log_deviation(counted: Tally) -> float:
    """σ of log x; 0 where the values are equal but for float32's rounding, nan below two."""
    if counted.positive < 2:
        return float("nan")
    sigma = float(np.sqrt(counted.log_m2 / counted.positive))
    return sigma if sigma > _ROUNDING * max(1.0, abs(float(counted.log_mean))) else 0.0


def _refuse_not_finite(counted: Tally) -> None:
    bad = int(counted.total - counted.positive - counted.zeros - counted.negatives)
    if bad:
        raise ValueError(
            f"{bad} of {int(counted.total)} values are not finite: look where the network diverged."
        )


def _jensen_shannon(p: np.ndarray, q: np.ndarray) -> float:
    middle = (p + q) / 2
    return float(0.5 * (special.rel_entr(p, middle) + special.rel_entr(q, middle)).sum())


def _gamma(mean: float, log_mean: float) -> tuple[float, float]:
    """Shape and scale of the gamma distribution of maximum likelihood."""
    gap = max(np.log(mean) - log_mean, 1e-12)  # log a − ψ(a), which falls from ∞ to 0 in a

    def excess(log_shape: float) -> float:
        return log_shape - float(special.digamma(np.exp(log_shape))) - gap

    low, high = -np.log1p(gap) - 2.0, -np.log(gap) + 1.0  # 1/(2a) < log a − ψ(a) < 1/a
    root: Any = optimize.brentq(excess, low, high)
    shape = float(np.exp(root))
    return shape, mean / shape
