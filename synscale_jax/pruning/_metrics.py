"""How close a pruned network is to the whole one."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float


class SpectrumErrors(NamedTuple):
    """What :func:`spectrum_errors` returns, each of shape (n,), slowest mode last.

    Attributes:
      eigenvalue: λ'/λ − 1 of eigenvalues paired by rank.
      quadratic_form: vᵀ A' v / λ − 1 for each eigenvector v of the original.
      alignment: absolute cosine of the angle between A' v and v; 1 if v is still an eigenvector.
    """

    eigenvalue: Array
    quadratic_form: Array
    alignment: Array


def spectrum_errors(
    A: Float[Array, "n n"],
    pruned: Float[Array, "n n"],
    eigenpairs: tuple[Float[Array, " n"], Float[Array, "n n"]] | None = None,
) -> SpectrumErrors:
    """Errors of a symmetric network's spectrum.

    Args:
      A: the original, symmetric.
      pruned: the pruned network, symmetric.
      eigenpairs: ``jnp.linalg.eigh(A)``, where it is at hand.

    Returns:
      :class:`SpectrumErrors`, eigenvalues in ascending order.

    Raises:
      ValueError: if the shapes differ.

    Examples:
      >>> import jax.numpy as jnp
      >>> from synscale_jax.pruning import spectrum_errors
      >>> A = jnp.diag(jnp.array([-2.0, -1.0]))
      >>> spectrum_errors(A, 1.5 * A).eigenvalue
      Array([0.5, 0.5], dtype=float32)

    References:
      Moore and Chaudhuri, NeurIPS 2020.
    """
    if A.shape != pruned.shape:
        raise ValueError(f"A has shape {A.shape} and pruned {pruned.shape}: give the same neurons.")
    values, vectors = jnp.linalg.eigh(A) if eigenpairs is None else eigenpairs
    images = pruned @ vectors
    forms = jnp.sum(vectors * images, 0)
    return SpectrumErrors(
        jnp.linalg.eigvalsh(pruned) / values - 1,
        forms / values - 1,
        jnp.abs(forms) / jnp.linalg.norm(images, axis=0),
    )


def dynamics_error(x: Float[Array, "... n"], pruned: Float[Array, "... n"]) -> Float[Array, ...]:
    r"""Relative distance of two networks' states, :math:`\|x - x'\| / \|x\|`.

    Args:
      x: states of the original, neurons last.
      pruned: states of the pruned network under the same input and noise.

    Returns:
      One value a state.

    Examples:
      >>> import jax.numpy as jnp
      >>> from synscale_jax.pruning import dynamics_error
      >>> dynamics_error(jnp.array([[3.0, 4.0]]), jnp.array([[3.0, 3.0]]))
      Array([0.2], dtype=float32)
    """
    return jnp.linalg.norm(x - pruned, axis=-1) / jnp.linalg.norm(x, axis=-1)


def propagator_error(
    A: Float[Array, "n n"], pruned: Float[Array, "n n"], time: float
) -> Float[Array, ""]:
    r"""Relative error of the free evolution, :math:`\|e^{A't} - e^{At}\|_F / \|e^{At}\|_F`.

    For networks that are not symmetric, whose eigenvalues cannot be paired.

    Args:
      A: the original.
      pruned: the pruned network.
      time: t, in the unit of time of A.

    Returns:
      A number, 0 for a perfect copy.

    Examples:
      >>> import jax.numpy as jnp
      >>> from synscale_jax.pruning import propagator_error
      >>> print(propagator_error(-jnp.eye(2), -jnp.eye(2), 3.0))
      0.0
    """
    exact = jax.scipy.linalg.expm(time * A)
    return jnp.linalg.norm(jax.scipy.linalg.expm(time * pruned) - exact) / jnp.linalg.norm(exact)
