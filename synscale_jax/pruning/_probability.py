"""With what probability each synapse is kept."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from synscale_jax.pruning.linear_network import known_value

Normalisation = Literal["exact", "published"]
NORMALISATIONS = ("exact", "published")


def difference_variance(
    A: Float[Array, "*batch n n"], covariance: Float[Array, "*batch n n"]
) -> Float[Array, "*batch n n"]:
    r"""Variance of the difference that each synapse sees between its two neurons.

    .. math::
        D_{ij} = C_{ii} + C_{jj} - 2\,\mathrm{sign}(A_{ij})\,C_{ij}
               = \mathrm{Var}\bigl(x_i - \mathrm{sign}(A_{ij})\,x_j\bigr)

    An excitatory synapse between neurons that fluctuate together, or an inhibitory one between
    neurons that fluctuate against each other, sees little: other paths do its work as well.

    Args:
      A: connectivity, entry (i, j) from neuron j to neuron i; its signs alone matter.
      covariance: C of the noise-driven network, exact (:func:`stationary_covariance`) or measured
        (:func:`probe_with_noise`).

    Returns:
      D, of the shape and dtype of the covariance; 0 or more.

    Examples:
      >>> import jax.numpy as jnp
      >>> from synscale_jax.pruning import difference_variance
      >>> C = jnp.array([[1.0, 0.5], [0.5, 1.0]])
      >>> A = jnp.array([[-1.0, 0.2], [-0.2, -1.0]])  # one excitatory, one inhibitory synapse
      >>> difference_variance(A, C)[0, 1], difference_variance(A, C)[1, 0]
      (Array(1., dtype=float32), Array(3., dtype=float32))
    """
    variance = jnp.diagonal(covariance, axis1=-2, axis2=-1)
    sums = variance[..., :, None] + variance[..., None, :]
    return jnp.maximum(sums - 2 * jnp.sign(A) * covariance, 0)


def keep_probability(
    A: Float[Array, "*batch n n"],
    covariance: Float[Array, "*batch n n"],
    density: float | Float[Array, ""],
    *,
    normalisation: Normalisation = "exact",
) -> Float[Array, "*batch n n"]:
    r"""Noise-prune's probability of keeping each synapse.

    .. math::
        p_{ij} = \min\bigl(1,\; K\,|A_{ij}|\,D_{ij}\bigr), \qquad i \neq j,

    with :func:`difference_variance` D. K is set by the wanted density: ``"exact"`` solves
    :math:`\sum p_{ij} = \text{density} \times \text{synapses}`, so that the number of synapses
    kept is right in expectation. ``"published"`` normalises first and cuts at 1 afterwards, which
    loses what lay above (0.196 kept for 0.2 in the published network). The noise's strength drops
    out.

    Args:
      A: connectivity; the diagonal is leak and not a synapse.
      covariance: C of the network driven by noise.
      density: fraction of the synapses (nonzero entries off the diagonal) to keep, in (0, 1].
      normalisation: see above.

    Returns:
      p, of the shape and dtype of A; 0 on the diagonal and where there is no synapse. Symmetric
      where A and C are.

    Raises:
      ValueError: if the density is outside (0, 1] or the normalisation unknown.

    Examples:
      >>> import jax.numpy as jnp
      >>> from synscale_jax.pruning import keep_probability, stationary_covariance
      >>> A = jnp.array([[-2.0, 1.0, 0.1], [1.0, -2.0, 0.1], [0.1, 0.1, -1.0]])
      >>> p = keep_probability(A, stationary_covariance(A, structure="symmetric"), 0.5)
      >>> print(p.round(2), p.sum())
      [[0.   1.   0.25]
       [1.   0.   0.25]
       [0.25 0.25 0.  ]] 3.0

    References:
      Moore and Chaudhuri, `Using noise to probe recurrent neural network structure and prune
      synapses <https://arxiv.org/abs/2011.07334>`_, NeurIPS 2020.
    """
    score = _off_diagonal(jnp.abs(A) * difference_variance(A, covariance))
    return normalised(score, A, density, normalisation)


def weight_probability(
    A: Float[Array, "*batch n n"],
    density: float | Float[Array, ""],
    *,
    normalisation: Normalisation = "exact",
) -> Float[Array, "*batch n n"]:
    """The control: probabilities proportional to the weights' size alone, p = min(1, K abs(A)).

    Args:
      A: connectivity.
      density: fraction of the synapses to keep, in (0, 1].
      normalisation: as in :func:`keep_probability`.

    Returns:
      p, of the shape and dtype of A.

    Raises:
      ValueError: as :func:`keep_probability`.

    Examples:
      >>> import jax.numpy as jnp
      >>> from synscale_jax.pruning import weight_probability
      >>> print(weight_probability(jnp.array([[-1.0, 0.3], [-0.1, -1.0]]), 0.5))
      [[0.   0.75]
       [0.25 0.  ]]
    """
    return normalised(_off_diagonal(jnp.abs(A)), A, density, normalisation)


def uniform_probability(
    A: Float[Array, "*batch n n"], density: float | Float[Array, ""]
) -> Float[Array, "*batch n n"]:
    """The second control: every synapse is kept with the same probability.

    Args:
      A: connectivity.
      density: fraction of the synapses to keep, in (0, 1].

    Returns:
      p, of the shape and dtype of A.

    Raises:
      ValueError: if the density is outside (0, 1].

    Examples:
      >>> import jax.numpy as jnp
      >>> from synscale_jax.pruning import uniform_probability
      >>> print(uniform_probability(jnp.array([[-1.0, 0.3], [0.0, -1.0]]), 0.5))
      [[0.  0.5]
       [0.  0. ]]
    """
    check_density(density)
    return _off_diagonal(jnp.where(A == 0, 0, jnp.asarray(density, A.dtype)))


def guaranteed_probability(
    A: Float[Array, "n n"],
    covariance: Float[Array, "n n"],
    tolerance: float,
    noise: float = 1.0,
) -> Float[Array, "n n"]:
    r"""Probabilities under which the pruned network is most probably close to the whole one.

    .. math::
        p_{ij} = \min\Bigl(1,\; \frac{8 \ln n}{\epsilon^2 \sigma^2} |A_{ij}| D_{ij}\Bigr)

    For a symmetric, diagonally dominant A with negative diagonal, pruned with weights divided by p
    and the ``"row_sum"`` diagonal, all x satisfy
    :math:`(1-\epsilon)\,|x^\top A x| \le |x^\top A_s x| \le (1+\epsilon)\,|x^\top A x|` with
    probability at least :math:`1 - n^{-1} - n^{-1/3}`. At most :math:`4 n \ln n / \epsilon^2`
    undirected synapses are expected to stay, a vanishing part of a dense network as n grows. The
    bound is loose; for a wanted density use :func:`keep_probability`.

    Args:
      A: symmetric connectivity.
      covariance: its exact stationary covariance at strength ``noise``.
      tolerance: ε, the relative error allowed, in (0, 1).
      noise: σ of the covariance.

    Returns:
      p, of the shape and dtype of A.

    Raises:
      ValueError: if the tolerance is outside (0, 1).

    Examples:
      >>> import jax.numpy as jnp
      >>> from synscale_jax.pruning import guaranteed_probability, stationary_covariance
      >>> A = jnp.ones((300, 300)) / 300 - 1.01 * jnp.eye(300)
      >>> p = guaranteed_probability(A, stationary_covariance(A, structure="symmetric"), 0.9)
      >>> f"{p.sum() / (300 * 299):.3f}"
      '0.186'
    """
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance={tolerance} bounds nothing: use a number between 0 and 1.")
    score = _off_diagonal(jnp.abs(A) * difference_variance(A, covariance))
    constant = 8 * jnp.log(A.shape[-1]) / (tolerance * noise) ** 2
    return jnp.minimum(constant.astype(A.dtype) * score, 1)


def check_normalisation(name: str) -> None:
    """Refuse what is no way to reach a density."""
    if name not in NORMALISATIONS:
        raise ValueError(f"normalisation={name!r} is none: use one of {', '.join(NORMALISATIONS)}.")


def normalised(
    score: Array, A: Array, density: float | Array, normalisation: str = "exact"
) -> Array:
    """Probabilities proportional to a score, cut at 1, at a density of A's synapses."""
    check_density(density)
    check_normalisation(normalisation)
    synapses = _total(_off_diagonal(A) != 0, score.dtype)
    target = jnp.asarray(density, score.dtype) * synapses
    solve = jnp.vectorize(_constant, signature="(n,n),()->()", excluded={"published"})
    constant = solve(score, target, published=normalisation == "published")
    return jnp.minimum(constant[..., None, None] * score, 1)


def check_density(density: float | Array) -> None:
    """Refuse what is no fraction."""
    known = known_value(density)  # pyright: ignore[reportArgumentType]
    if known is not None and not np.all((known > 0) & (known <= 1)):
        raise ValueError(f"density={density} is no fraction to keep: use one in (0, 1].")


def _constant(score: Array, target: Array, published: bool) -> Array:
    """K with Σ min(1, K score) = target."""
    total = _total(score, score.dtype)
    first = jnp.where(total > 0, target / jnp.where(total > 0, total, 1), 0)
    if published:
        return first
    fixed, wanted = jax.lax.stop_gradient((score, target))

    def rescaled(capped: Array, score: Array, target: Array) -> Array:
        rest = target - _total(capped, score.dtype)
        open_score = _total(jnp.where(capped, 0, score), score.dtype)
        return rest / jnp.where(open_score > 0, open_score, 1)

    # Cutting at 1 frees probability for the others, which may lift more of them to 1: K rises
    # from round to round and is exact once the set at 1 no longer grows.
    def grows(carry: tuple[Array, Array]) -> Array:
        constant, capped = carry
        return jnp.any((constant * fixed >= 1) & ~capped)

    def widen(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        constant, capped = carry
        capped = capped | (constant * fixed >= 1)
        return jnp.maximum(constant, rescaled(capped, fixed, wanted)), capped

    start = (jax.lax.stop_gradient(first), jnp.zeros(score.shape, bool))
    reached, capped = jax.lax.while_loop(grows, widen, start)
    # Differentiable, the set at 1 held fixed; where all are at 1, no score is left to set it.
    return jnp.where(capped.sum() < (fixed > 0).sum(), rescaled(capped, score, target), reached)


def _total(values: Array, dtype: jnp.dtype) -> Array:
    """Sum of a matrix, by rows first: float32 keeps its digits at millions of entries."""
    return values.astype(dtype).sum(-1).sum(-1)


def _off_diagonal(values: Array) -> Array:
    return jnp.where(jnp.eye(values.shape[-1], dtype=bool), 0, values)
