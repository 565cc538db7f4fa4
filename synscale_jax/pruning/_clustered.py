"""The clustered networks of the paper."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float


def clustered_network(
    key: Array,
    sizes: Sequence[int],
    *,
    inner_density: float = 0.6,
    long_range: int = 5000,
    directed: bool = False,
    leak: float = 0.0,
) -> Float[Array, "n n"]:
    r"""A network of dense clusters, joined by few synapses, with a dominant diagonal.

    Within each cluster a fraction of the pairs is connected with weights N(1, 1), some of them
    inhibitory; ``long_range`` synapses with weights U(0, 1) are added between any two neurons. The
    weights W are divided by 1.1 times their largest eigenvalue, and

    .. math::
        A = W - \mathrm{diag}\Bigl(\sum_j |W_{ij}|\Bigr) - \text{leak} \cdot I .

    Args:
      key: a random key.
      sizes: neurons in each cluster.
      inner_density: fraction of the pairs within a cluster that are connected, in (0, 1].
      long_range: how many synapses to add, both directions of a pair counted.
      directed: draw the two directions of a pair independently; A is then not symmetric, and
        dominant by row.
      leak: added to every neuron's leak; needed where all weights are positive, which leave A
        singular.

    Returns:
      A, shape (n, n) with n the sum of the sizes, in the default float dtype.

    Raises:
      ValueError: if a size is below 2, the density outside (0, 1], there are not as many pairs as
        long-range synapses ask for, or no synapse at all would be drawn.

    Examples:
      >>> import jax
      >>> from synscale_jax.pruning import clustered_network
      >>> A = clustered_network(jax.random.key(0), (30, 20), long_range=40)
      >>> A.shape, bool((A == A.T).all())
      ((50, 50), True)

    References:
      Moore and Chaudhuri, NeurIPS 2020, and the code published with it.
    """
    n = sum(sizes)
    if min(sizes, default=0) < 2:
        raise ValueError(f"sizes={tuple(sizes)} hold no synapses: give clusters of 2 or more.")
    if not 0 < inner_density <= 1:
        raise ValueError(f"inner_density={inner_density} is no fraction: use one in (0, 1].")
    if not 0 <= long_range // 2 <= n * (n - 1) // 2:
        raise ValueError(f"long_range={long_range} synapses do not fit {n} neurons.")
    if long_range < 2 and not any(_inner_pairs(size, inner_density) for size in sizes):
        raise ValueError(
            f"sizes={tuple(sizes)}, inner_density={inner_density} and long_range={long_range} give "
            "no synapse: use larger clusters or a larger density."
        )
    W = _weights(key, tuple(sizes), inner_density, long_range // 2, directed)
    return W - jnp.diag(jnp.abs(W).sum(1) + leak)


@partial(jax.jit, static_argnums=(1, 2, 3, 4))
def _weights(
    key: Array, sizes: tuple[int, ...], inner_density: float, long_range: int, directed: bool
) -> Array:
    """Clusters and what joins them, the largest eigenvalue 1 / 1.1."""
    n, begin = sum(sizes), 0
    keys = jax.random.split(key, 2 * len(sizes) + 2)
    W = jnp.zeros((n, n))
    for index, size in enumerate(sizes):
        pairs = _inner_pairs(size, inner_density)
        inner = _pairs(keys[2 * index : 2 * index + 2], size, pairs, "normal", directed)
        W = W.at[begin : begin + size, begin : begin + size].set(inner)
        begin += size
    W = W + _pairs(keys[-2:], n, long_range, "uniform", directed)
    return W / (1.1 * _largest_eigenvalue(W))


def _inner_pairs(size: int, density: float) -> int:
    return int(density * (size * (size - 1) // 2))


def _pairs(
    keys: Array, size: int, count: int, weights: Literal["normal", "uniform"], directed: bool
) -> Array:
    """So many pairs of neurons, connected both ways: with the same weight, or drawn twice."""
    forward = _upper(keys[0], size, count, weights)
    return forward + (_upper(keys[1], size, count, weights) if directed else forward).T


def _upper(key: Array, size: int, count: int, weights: str) -> Array:
    choice, weight = jax.random.split(key)
    rows, columns = jnp.triu_indices(size, 1)
    chosen = jax.random.permutation(choice, len(rows))[:count]
    if weights == "normal":
        values = 1 + jax.random.normal(weight, (count,))
    else:
        values = jax.random.uniform(weight, (count,))
    where = rows[chosen], columns[chosen]
    return jnp.zeros((size, size)).at[where].set(values)


def _largest_eigenvalue(W: Array, rounds: int = 200) -> Array:
    """By power iteration: the positive mean of a cluster's weights sets its eigenvalue apart."""

    def turn(vector: Array, _: None) -> tuple[Array, None]:
        image = W @ vector
        return image / jnp.linalg.norm(image), None

    start = jnp.full(len(W), len(W) ** -0.5, W.dtype)
    vector, _ = jax.lax.scan(turn, start, None, length=rounds)
    return vector @ W @ vector
