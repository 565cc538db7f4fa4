"""The covariance solves its equation, has the right derivatives, and bad networks are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synscale_jax.pruning import largest_real_eigenvalue, solve_lyapunov, stationary_covariance
from tests.pruning.conftest import dominant


def structure_of(case):
    return "symmetric" if case["symmetric"] else "general"


def test_golden_covariance(case, float64):
    A = jnp.asarray(case["A"])
    for structure in {structure_of(case), "general"}:
        C = stationary_covariance(A, structure=structure)
        np.testing.assert_allclose(C, case["covariance"], rtol=0, atol=1e-9)


def test_golden_covariance_in_float32(case):
    C = stationary_covariance(jnp.asarray(case["A"], jnp.float32), structure=structure_of(case))
    assert C.dtype == jnp.float32
    np.testing.assert_allclose(C, case["covariance"], rtol=1e-4, atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    slack=st.floats(0.01, 10),
    scale=st.floats(0.01, 100),
    noise=st.floats(0.1, 10),
)
def test_solves_the_lyapunov_equation(seed, slack, scale, noise):
    with jax.enable_x64(True):
        A = dominant(seed, 12, slack=slack, scale=scale)
        C = stationary_covariance(A, noise)
        residual = A @ C + C @ A.T + noise**2 * jnp.eye(12)
        assert float(jnp.abs(residual).max()) < 1e-8 * noise**2
        assert float(jnp.linalg.eigvalsh(C).min()) > 0


def test_the_three_solutions_agree(float64):
    A = dominant(0, 20, symmetric=True)
    expected = stationary_covariance(A)
    for structure in ("symmetric", "normal"):
        np.testing.assert_allclose(
            stationary_covariance(A, structure=structure), expected, atol=1e-12
        )


def test_a_normal_matrix_that_is_not_symmetric(float64):
    rotation = jnp.array([[0.0, -1.0], [1.0, 0.0]])
    turn = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (8, 8)))[0]
    blocks = jnp.kron(jnp.diag(jnp.arange(1.0, 5.0)), -jnp.eye(2) + 0.5 * rotation)
    A = turn @ blocks @ turn.T
    np.testing.assert_allclose(
        stationary_covariance(A, structure="normal"), stationary_covariance(A), atol=1e-12
    )


@pytest.mark.parametrize("structure", ["symmetric", "normal", "general"])
def test_derivatives_against_finite_differences(structure, float64):
    A = dominant(1, 8, symmetric=structure != "general")
    direction = jax.random.normal(jax.random.key(1), A.shape)
    if structure != "general":
        direction = direction + direction.T

    def loss(A):
        return jnp.sum(jnp.sin(5 * stationary_covariance(A, structure=structure)))

    def slope(A):
        return jnp.vdot(jax.grad(loss)(A), direction)

    h = 1e-5
    numeric = (loss(A + h * direction) - loss(A - h * direction)) / (2 * h)
    np.testing.assert_allclose(slope(A), numeric, rtol=1e-6)
    np.testing.assert_allclose(jax.jvp(loss, (A,), (direction,))[1], numeric, rtol=1e-6)
    second = (slope(A + h * direction) - slope(A - h * direction)) / (2 * h)
    np.testing.assert_allclose(jax.jvp(slope, (A,), (direction,))[1], second, rtol=1e-5)


def test_gradient_of_the_right_hand_side(float64):
    A = dominant(2, 6)
    Q, weight = jax.random.normal(jax.random.key(0), (2, 6, 6))
    gradient = jax.grad(lambda Q: jnp.vdot(weight, solve_lyapunov(A, Q)))(Q)
    np.testing.assert_allclose(gradient, solve_lyapunov(A.T, weight), atol=1e-12)


def test_batches_jit_and_vmap_equal_one_by_one():
    batch = jnp.stack([dominant(seed, 7, symmetric=True) for seed in range(3)])
    for structure in ("symmetric", "general"):

        def covariance(A, structure=structure):
            return stationary_covariance(A, 0.3, structure=structure)

        alone = jnp.stack([covariance(A) for A in batch])
        for together in (
            covariance(batch),
            jax.jit(covariance)(batch),
            jax.vmap(covariance)(batch),
        ):
            np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-7)
        gradient = jax.vmap(jax.grad(lambda A: covariance(A)[0, 1]))(batch)
        one = jax.grad(lambda A: covariance(A)[0, 1])(batch[1])
        np.testing.assert_allclose(gradient[1], one, rtol=1e-3, atol=1e-6)


def test_dependent_eigenvectors_are_solved_all_the_same(float64):
    A = -jnp.eye(8) + 0.5 * jnp.eye(8, k=1)  # one Jordan block
    assert float(jnp.linalg.cond(jnp.linalg.eig(A)[1])) > 1e8
    C = stationary_covariance(A)
    assert float(jnp.linalg.norm(A @ C + C @ A.T + jnp.eye(8))) < 1e-10
    gradient = jax.grad(lambda A: jnp.log(stationary_covariance(A)[0, 0]))(A)
    h, at = 1e-6, (3, 4)
    ahead, behind = (stationary_covariance(A.at[at].add(step))[0, 0] for step in (h, -h))
    numeric = (jnp.log(ahead) - jnp.log(behind)) / (2 * h)
    np.testing.assert_allclose(gradient[at], numeric, rtol=1e-4)


def test_largest_real_eigenvalue_of_a_rotation():
    A = jnp.array([[-0.25, -3.0], [3.0, -0.25]])
    assert float(largest_real_eigenvalue(A)) == pytest.approx(-0.25, abs=1e-5)


UNSTABLE = jnp.array([[-1.0, 2.0], [2.0, -1.0]])


@pytest.mark.parametrize(
    ("A", "structure", "words"),
    [
        (UNSTABLE, "symmetric", "eigenvalue with real part 1"),
        (UNSTABLE, "normal", "eigenvalue with real part 1"),
        (UNSTABLE, "general", "eigenvalue with real part 1"),
        (jnp.zeros((2, 3)), "general", r"shape \(2, 3\)"),
        (jnp.zeros((2, 2), int), "general", "dtype int32"),
        (-jnp.eye(2, dtype=jnp.bfloat16), "symmetric", "dtype bfloat16: give a float32"),
        (jnp.full((2, 2), jnp.nan), "general", "4 entries that are NaN"),
        (jnp.array([[-1.0, 0.5], [0.0, -1.0]]), "symmetric", "transpose by up to 0.5"),
        (jnp.array([[-1.0, 0.5], [0.0, -2.0]]), "normal", "general"),
        (-jnp.eye(2), "triangular", "'triangular'"),
    ],
)
def test_refusals_say_the_value(A, structure, words):
    with pytest.raises(ValueError, match=words):
        stationary_covariance(A, structure=structure)


def test_no_noise_is_refused():
    with pytest.raises(ValueError, match=r"noise=0\.0 drives nothing"):
        stationary_covariance(-jnp.eye(2), 0.0)


@pytest.mark.parametrize("structure", ["symmetric", "general"])
def test_inside_jit_an_unstable_network_gives_nan(structure):
    C = jax.jit(lambda A: stationary_covariance(A, structure=structure))(UNSTABLE)
    assert bool(jnp.isnan(C).all())
