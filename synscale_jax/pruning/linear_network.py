"""The noise-driven linear network: its stationary covariance, and whether it has one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.scipy.linalg import cho_solve
from jaxtyping import Float

__all__ = ["largest_real_eigenvalue", "solve_lyapunov", "stationary_covariance"]

Structure = Literal["symmetric", "normal", "general"]
STRUCTURES = ("symmetric", "normal", "general")


def stationary_covariance(
    A: Float[Array, "*batch n n"],
    noise: float = 1.0,
    *,
    structure: Structure = "general",
) -> Float[Array, "*batch n n"]:
    r"""Covariance of a linear network that is driven by noise.

    The network :math:`dx = A x\,dt + \sigma\,dB`, with an independent Brownian motion for each
    neuron, settles into a Gaussian whose covariance C solves the Lyapunov equation

    .. math::
        A C + C A^\top + \sigma^2 I = 0 .

    ================= ==================================== =======================================
    ``structure``     solution                             valid for
    ================= ==================================== =======================================
    ``"symmetric"``   :math:`-\tfrac12 \sigma^2 A^{-1}`    :math:`A = A^\top`
    ``"normal"``      :math:`-\sigma^2 (A + A^\top)^{-1}`  :math:`A A^\top = A^\top A`
    ``"general"``     :func:`solve_lyapunov`               every A with eigenvalues left of zero
    ================= ==================================== =======================================

    The first two are Cholesky factorisations, about a hundred times as fast as the third.
    Derivatives of any order exist in each.

    Args:
      A: connectivity with the leak on its diagonal, entry (i, j) from neuron j to neuron i;
        float32 or float64, in which the result comes; batched over the leading axes.
      noise: σ, per square root of the unit of time.
      structure: see the table.

    Returns:
      C, of the shape and dtype of ``A``. Inside ``jit`` and ``vmap``, where nothing can be raised,
      a matrix that would have been refused gives NaN throughout.

    Raises:
      ValueError: if the noise is not above 0, A is not square, holds NaN, has an eigenvalue that is
        not left of zero or is not of the structure said, or if the solution leaves a residual.

    Examples:
      >>> import jax.numpy as jnp
      >>> from synscale_jax.pruning import stationary_covariance
      >>> A = jnp.array([[-1.0, 0.5], [0.5, -1.0]])  # two neurons that excite each other
      >>> print(stationary_covariance(A, structure="symmetric").round(4))
      [[0.6667 0.3333]
       [0.3333 0.6667]]
    """
    if structure not in STRUCTURES:
        raise ValueError(
            f"structure={structure!r} is no structure: use one of {', '.join(STRUCTURES)}."
        )
    if isinstance(noise, int | float) and not 0 < noise < float("inf"):
        raise ValueError(f"noise={noise} drives nothing: use a number above 0.")
    A = jnp.asarray(A)
    check_matrix(A)
    if structure == "general":
        identity = jnp.broadcast_to(jnp.eye(A.shape[-1], dtype=A.dtype), A.shape)
        return solve_lyapunov(A, jnp.asarray(noise, A.dtype) ** 2 * identity)
    if structure == "symmetric":
        check_symmetric(A)
    else:
        _check_normal(A)
    covariance = _by_cholesky(A, jnp.asarray(noise, A.dtype))
    if (known := known_value(covariance)) is not None and not np.isfinite(known).all():
        refuse_unstable(float(jnp.linalg.eigvalsh((A + A.mT) / 2).max()))
    return covariance


def solve_lyapunov(
    A: Float[Array, "*batch n n"], Q: Float[Array, "*batch n n"]
) -> Float[Array, "*batch n n"]:
    r"""Solve A C + C Aᵀ + Q = 0 by eigendecomposition.

    With :math:`A = V \Lambda V^{-1}` and :math:`Y = V^{-1} Q V^{-H}`,

    .. math::
        C = - V \left[ \frac{Y_{ij}}{\lambda_i + \bar\lambda_j} \right] V^H,

    followed by one step of iterative refinement. Where the equation's residual shows that the
    eigenvectors are close to dependent, as in very sparse networks, Smith's doubling takes over:
    the Cayley transform turns the equation into :math:`C = U C U^\top + Y`, whose series is summed
    in logarithmic time.

    A is decomposed as a constant. Derivatives come from the equation itself: a tangent solves it
    with the right-hand side :math:`\dot A C + C \dot A^\top + \dot Q`, a cotangent :math:`\bar C`
    the adjoint equation :math:`A^\top X + X A + \bar C = 0`, from which :math:`\bar Q = X` and
    :math:`\bar A = X C^\top + X^\top C`; both with the same decomposition.

    Args:
      A: a matrix with eigenvalues left of zero, float32 or float64; batched over the leading axes.
      Q: the right-hand side, of the dtype of A; it need not be symmetric.

    Returns:
      C, of the shape and dtype of A; NaN throughout where it would be refused inside ``jit``.

    Raises:
      ValueError: if an eigenvalue is not left of zero, or the residual of the equation exceeds
        the square root of the dtype's precision times the size of Q.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from synscale_jax.pruning import solve_lyapunov
      >>> A = jnp.array([[-1.0, 2.0], [0.0, -2.0]])
      >>> C = solve_lyapunov(A, jnp.eye(2))
      >>> bool(jnp.allclose(A @ C + C @ A.T, -jnp.eye(2), atol=1e-6))
      True
      >>> slope = jax.grad(lambda A: solve_lyapunov(A, jnp.eye(2))[0, 0])(A)
      >>> bool(jnp.allclose(slope, jnp.array([[17 / 18, 1 / 3], [2 / 3, 5 / 18]]), atol=1e-5))
      True
    """
    check_matrix(A)
    C, largest, residual = _checked_solution(A, Q)
    tolerance = _tolerance(A.dtype)
    if (left := known_value(residual)) is not None:
        if (value := float(largest.max())) >= 0:
            refuse_unstable(value)
        if not (value := float(left.max())) <= tolerance:
            raise ValueError(
                f"The covariance leaves a relative residual of {value:.1e} in {A.dtype}, more than "
                f"{tolerance:.1e}: use float64 (with jax.enable_x64(True): ...) or increase the "
                "leak (subtract from the diagonal)."
            )
        return C
    sound = (largest < 0) & (residual <= tolerance)
    return jnp.where(sound[..., None, None], C, jnp.nan)


@jax.jit
def _checked_solution(A: Array, Q: Array) -> tuple[Array, Array, Array]:
    """C, the largest real part of A's eigenvalues, and C's relative residual."""
    solve = jnp.vectorize(_solve_one, signature="(n,n),(n,n)->(n,n),()")
    C, largest = solve(A, Q)
    A, Q, fixed = (jax.lax.stop_gradient(value) for value in (A, Q, C))
    residual = jnp.linalg.norm(A @ fixed + fixed @ A.mT + Q, axis=(-2, -1))
    return C, largest, residual / jnp.linalg.norm(Q, axis=(-2, -1))


def _solve_one(A: Array, Q: Array) -> tuple[Array, Array]:
    eigenvalues, V = jnp.linalg.eig(jax.lax.stop_gradient(A))
    inverse = jnp.linalg.inv(V)
    sums = eigenvalues[:, None] + eigenvalues.conj()[None, :]

    def residual(A: Array, X: Array) -> Array:
        return -(A @ X + X @ A.T)

    def checked(solve: Callable[[Array], Array], matrix: Array, right: Array) -> Array:
        X = solve(right)
        X = X + solve(right - residual(matrix, X))
        left = jnp.linalg.norm(right - residual(matrix, X))
        sound = left <= _tolerance(A.dtype) * jnp.linalg.norm(right)
        return jax.lax.cond(sound, lambda: X, lambda: _by_doubling(matrix, eigenvalues, right))

    def solve(right: Array) -> Array:
        return -(V @ ((inverse @ right @ inverse.conj().T) / sums) @ V.conj().T).real

    def solve_adjoint(right: Array) -> Array:  # Aᵀ = V⁻ᴴ Λ̄ Vᴴ
        return -(inverse.conj().T @ ((V.conj().T @ right @ V) / sums.conj()) @ inverse).real

    C = jax.lax.custom_linear_solve(
        functools.partial(residual, A),
        Q,
        solve=lambda _, right: checked(solve, A, right),
        transpose_solve=lambda _, right: checked(solve_adjoint, A.T, right),
    )
    return C, eigenvalues.real.max()


def _by_doubling(A: Array, eigenvalues: Array, right: Array) -> Array:
    """Smith's method: no eigenvectors, only products of matrices."""
    slowest, fastest = -eigenvalues.real.max(), jnp.abs(eigenvalues).max()
    point = jnp.sqrt(jnp.maximum(slowest, 1e-6 * fastest) * fastest)
    identity = jnp.eye(len(A), dtype=A.dtype)
    inverse = jnp.linalg.inv(point * identity - A)
    U, X = inverse @ (point * identity + A), 2 * point * inverse @ right @ inverse.T

    def double(_: int, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        U, X = carry
        return U @ U, X + U @ X @ U.T

    return jax.lax.fori_loop(0, 16, double, (U, X))[1]


def _tolerance(dtype: jnp.dtype) -> float:
    """How large a relative residual may be."""
    return float(jnp.finfo(dtype).eps) ** 0.5


@jax.jit
def _by_cholesky(A: Array, noise: Array) -> Array:
    """−σ² (A + Aᵀ)⁻¹, NaN unless A + Aᵀ is negative definite."""

    def one(A: Array) -> Array:
        factor = jnp.linalg.cholesky(-(A + A.T))
        inverse = cho_solve((factor, True), jnp.eye(len(A), dtype=A.dtype))
        return (inverse + inverse.T) / 2

    return noise**2 * jnp.vectorize(one, signature="(n,n)->(n,n)")(A)


def largest_real_eigenvalue(A: Float[Array, "*batch n n"]) -> Float[Array, "*batch"]:
    """The largest real part of the eigenvalues: the network is stable where it is negative.

    Args:
      A: square matrices, float32 or float64.

    Returns:
      One value a matrix, in its dtype.

    Examples:
      >>> import jax.numpy as jnp
      >>> from synscale_jax.pruning import largest_real_eigenvalue
      >>> float(largest_real_eigenvalue(jnp.array([[-1.0, 5.0], [0.0, -0.5]])))
      -0.5
    """
    return jnp.linalg.eigvals(A).real.max(-1)


def known_value(value: Array) -> np.ndarray | None:
    """The value if it is known, so that it can be refused; None inside jit, vmap and grad."""
    return None if isinstance(value, Tracer) else np.asarray(value)


def check_matrix(A: Array) -> None:
    """Refuse what is no real square matrix (or a batch of them)."""
    if A.ndim < 2 or A.shape[-1] != A.shape[-2]:
        raise ValueError(f"A has shape {A.shape}: give a square matrix, neurons × neurons.")
    if A.dtype not in (jnp.float32, jnp.float64):  # halves have no factorisations
        raise ValueError(f"A has dtype {A.dtype}: give a float32 or float64 matrix.")
    if (known := known_value(A)) is not None and (bad := int((~np.isfinite(known)).sum())):
        raise ValueError(f"A holds {bad} entries that are NaN or infinite: mend them first.")


def check_symmetric(A: Array) -> None:
    """Refuse a matrix that differs from its transpose by more than rounding."""
    if (known := known_value(A)) is None:
        return
    gap = float(np.abs(known - known.mT).max())
    if gap > 10 * float(np.finfo(known.dtype).eps) * float(np.abs(known).max()):
        raise ValueError(
            f"A differs from its transpose by up to {gap:.3g}: it is not symmetric; use "
            "symmetric=False (structure='general')."
        )


def refuse_unstable(eigenvalue: float) -> None:
    """Say how unstable A is."""
    raise ValueError(
        f"A has an eigenvalue with real part {eigenvalue:.4g}: noise would drive it without bound; "
        "it must be negative, so increase the leak (subtract from the diagonal)."
    )


def _check_normal(A: Array) -> None:
    if (known := known_value(A)) is None:
        return
    gap = float(np.abs(known @ known.mT - known.mT @ known).max())
    scale = float(np.abs(known).max()) ** 2 * known.shape[-1]
    if gap > 10 * float(np.finfo(known.dtype).eps) * scale:
        raise ValueError(f"A Aᵀ and Aᵀ A differ by up to {gap:.3g}: use structure='general'.")
