"""Drawing the synapses that stay, and what becomes of weights and leak."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float

from synscale_jax.pruning._probability import (
    Normalisation,
    check_density,
    check_normalisation,
    keep_probability,
    uniform_probability,
    weight_probability,
)
from synscale_jax.pruning.linear_network import (
    check_matrix,
    check_symmetric,
    known_value,
    stationary_covariance,
)

Diagonal = Literal["original", "zero", "row_sum"]
DIAGONALS = ("original", "zero", "row_sum")
RULES = ("noise", "weight", "uniform")


class PrunedNetwork(NamedTuple):
    """What :func:`prune_network` returns.

    Attributes:
      connectivity: the sparse network, shape (n, n), dtype of the original.
      kept: which synapses stay, shape (n, n), bool.
      probability: with what probability each stayed, shape (n, n), dtype of the original.
    """

    connectivity: Array
    kept: Array
    probability: Array


def prune_network(
    key: Array,
    A: Float[Array, "n n"],
    density: float,
    *,
    rule: Literal["noise", "weight", "uniform"] = "noise",
    symmetric: bool = False,
    diagonal: Diagonal = "original",
    max_gain: float = math.inf,
    normalisation: Normalisation = "exact",
    covariance: Float[Array, "n n"] | None = None,
) -> PrunedNetwork:
    r"""Prune a linear network dx/dt = A x + input to a density.

    Synapse (i, j) stays with probability :math:`p_{ij}` and is then strengthened to
    :math:`A_{ij} / p_{ij}`, so that the weights are right on average. The probabilities come from
    the network's own response to noise (:func:`keep_probability`) or, as controls, from the
    weights (:func:`weight_probability`) or nowhere (:func:`uniform_probability`).

    Args:
      key: a random key.
      A: connectivity with the leak on its diagonal, entry (i, j) from neuron j to neuron i, float.
      density: fraction of the synapses (nonzero entries off the diagonal) to keep, in (0, 1].
      rule: ``"noise"``, or the control ``"weight"`` or ``"uniform"``.
      symmetric: A is symmetric, and the pruned network shall be: pairs are drawn together. The
        covariance is then a hundred times as fast.
      diagonal: see :func:`sample_synapses`.
      max_gain: see :func:`sample_synapses`.
      normalisation: see :func:`keep_probability`.
      covariance: C measured elsewhere, as by :func:`probe_with_noise`; computed if left out.

    Returns:
      A :class:`PrunedNetwork`.

    Raises:
      ValueError: if A is not square, holds NaN, has a positive diagonal entry, or is not symmetric
        where ``symmetric=True`` says so; if the density is outside (0, 1] or a name is unknown; if
        a covariance is to be computed and an eigenvalue is not left of zero.

    Examples:
      >>> import jax
      >>> from synscale_jax.pruning import clustered_network, prune_network
      >>> A = clustered_network(jax.random.key(0), (60, 40), long_range=100)
      >>> pruned = prune_network(jax.random.key(1), A, 0.2, symmetric=True, diagonal="row_sum")
      >>> synapses = (A != 0).sum() - 100
      >>> f"{pruned.kept.sum() / synapses:.2f}"
      '0.20'

    References:
      Moore and Chaudhuri, `Using noise to probe recurrent neural network structure and prune
      synapses <https://arxiv.org/abs/2011.07334>`_, NeurIPS 2020.
    """
    A = jnp.asarray(A)
    check_matrix(A)
    check_density(density)
    check_normalisation(normalisation)
    if rule not in RULES:
        raise ValueError(f"rule={rule!r} is no rule: use one of {', '.join(RULES)}.")
    if symmetric:
        check_symmetric(A)
    _check_leak(A)
    if rule == "uniform":
        probability = uniform_probability(A, density)
    elif rule == "weight":
        probability = weight_probability(A, density, normalisation=normalisation)
    else:
        if covariance is None:
            structure = "symmetric" if symmetric else "general"
            covariance = stationary_covariance(A, structure=structure)
        probability = keep_probability(A, covariance, density, normalisation=normalisation)
    sparse, kept = sample_synapses(
        key, A, probability, symmetric=symmetric, diagonal=diagonal, max_gain=max_gain
    )
    return PrunedNetwork(sparse, kept, probability)


def sample_synapses(
    key: Array,
    A: Float[Array, "n n"],
    probability: Float[Array, "n n"],
    *,
    symmetric: bool = False,
    diagonal: Diagonal = "original",
    max_gain: float = math.inf,
) -> tuple[Float[Array, "n n"], Bool[Array, "n n"]]:
    r"""Draw the synapses that stay and strengthen them.

    ============ ================================================================================
    ``diagonal`` the sparse network's diagonal
    ============ ================================================================================
    ``original`` unchanged: the leak stays
    ``zero``     zero, for building blocks
    ``row_sum``  :math:`A_{ii} + \sum_j |A_{ij}| - \sum_j |A^s_{ij}|` over j ≠ i: the leak grows by
                 the input that strengthening added, so that a dominant diagonal stays dominant
    ============ ================================================================================

    Args:
      key: a random key.
      A: connectivity.
      probability: of keeping each synapse; symmetric if ``symmetric``.
      symmetric: draw pairs (i, j) and (j, i) together.
      diagonal: see the table.
      max_gain: bound on the factor 1/p by which a kept weight grows; 1 leaves weights as they are
        (mask only).

    Returns:
      The sparse connectivity, and which synapses stay (bool), both of the shape of A.

    Raises:
      ValueError: if the diagonal is unknown or ``max_gain`` is below 1.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from synscale_jax.pruning import sample_synapses
      >>> A = jnp.array([[-1.0, 0.2], [0.4, -1.0]])
      >>> p = jnp.array([[0.0, 0.5], [1.0, 0.0]])
      >>> sparse, kept = sample_synapses(jax.random.key(0), A, p, diagonal="row_sum")
      >>> print(sparse)  # one synapse is gone, and with it some of the leak
      [[-0.8  0. ]
       [ 0.4 -1. ]]
    """
    if diagonal not in DIAGONALS:
        raise ValueError(
            f"diagonal={diagonal!r} is no diagonal: use one of {', '.join(DIAGONALS)}."
        )
    if not max_gain >= 1:
        raise ValueError(f"max_gain={max_gain} would weaken what stays: use 1 or more.")
    draw = jax.random.uniform(key, A.shape, A.dtype)
    if symmetric:
        draw, probability = _mirrored(draw), _mirrored(probability)
    synapse = ~jnp.eye(len(A), dtype=bool)
    kept = (draw < probability) & synapse & (A != 0)
    sparse = jnp.where(kept, A * synapse_gain(probability, max_gain), 0)
    return sparse + jnp.diag(_leak(A, sparse, synapse, diagonal)), kept


def _mirrored(matrix: Array) -> Array:
    """The upper triangle, twice."""
    upper = jnp.triu(matrix, 1)
    return upper + upper.T


def synapse_gain(probability: Array, max_gain: float) -> Array:
    """The factor by which a kept weight grows: 1/p, bounded."""
    return jnp.minimum(1 / jnp.where(probability > 0, probability, 1), max_gain)


def _leak(A: Array, sparse: Array, synapse: Array, diagonal: str) -> Array:
    leak = jnp.diagonal(A)
    if diagonal == "zero":
        return jnp.zeros_like(leak)
    if diagonal == "original":
        return leak
    return leak + jnp.abs(jnp.where(synapse, A, 0)).sum(1) - jnp.abs(sparse).sum(1)


def _check_leak(A: Array) -> None:
    if (known := known_value(A)) is not None and (value := float(np.diagonal(known).max())) > 0:
        raise ValueError(
            f"A has a diagonal entry of {value:.4g}: the diagonal is leak and must be 0 or less."
        )
