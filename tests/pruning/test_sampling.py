"""What is left of a pruned network: right on average, as stable as it was, close for certain."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from synscale_jax.pruning import (
    clustered_network,
    dynamics_error,
    guaranteed_probability,
    keep_probability,
    largest_real_eigenvalue,
    propagator_error,
    prune_network,
    sample_synapses,
    simulate,
    spectrum_errors,
    stationary_covariance,
)
from synscale_jax.pruning._sampling import _leak
from tests.pruning.conftest import dominant


def test_golden_weights_and_leak(case, float64):
    A, p = jnp.asarray(case["A"]), jnp.asarray(case["keep_probability"])
    golden = jnp.asarray(case["sparse_offdiagonal"])
    # What this draw keeps has the golden weights where that draw kept it, too.
    sparse, kept = sample_synapses(jax.random.key(0), A, p, diagonal="zero")
    both = kept & (golden != 0)
    assert int(both.sum()) > 20
    np.testing.assert_allclose(sparse[both], golden[both], rtol=1e-9)
    leak = _leak(A, golden, ~jnp.eye(len(A), dtype=bool), "row_sum")
    np.testing.assert_allclose(leak, np.diag(case["sparse_row_sum_diagonal"]), atol=1e-9)


def test_golden_spectrum(case, float64):
    if not case["symmetric"]:
        return
    errors = spectrum_errors(jnp.asarray(case["A"]), jnp.asarray(case["sparse_row_sum_diagonal"]))
    np.testing.assert_allclose(errors.eigenvalue, case["eps_ew"], atol=1e-6)
    np.testing.assert_allclose(errors.quadratic_form, case["eps_ev"], atol=1e-6)
    np.testing.assert_allclose(errors.alignment, np.abs(case["S_ev_angle"]), atol=1e-6)


@pytest.mark.parametrize("symmetric", [True, False])
def test_the_mean_over_draws_is_the_network(symmetric):
    """So that quadratic forms are preserved in expectation; 5 standard errors over 132 weights."""
    A = dominant(5, 12, symmetric=symmetric).astype(jnp.float32)
    C = stationary_covariance(A, structure="symmetric" if symmetric else "general")
    p = keep_probability(A, C, 0.4)
    draws = jax.vmap(
        lambda key: sample_synapses(key, A, p, symmetric=symmetric, diagonal="row_sum")[0]
    )(jax.random.split(jax.random.key(0), 4000))
    error = draws.std(0) / 4000**0.5
    assert bool(jnp.all(jnp.abs(draws.mean(0) - A) <= 5 * error + 1e-5))
    x = jax.random.normal(jax.random.key(1), (12,))
    forms = jnp.einsum("i,kij,j->k", x, draws, x)
    assert abs(float(forms.mean() - x @ A @ x)) < 5 * float(forms.std()) / 4000**0.5


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10**6), density=st.floats(0.05, 1), slack=st.floats(0.01, 1),
    symmetric=st.booleans(),
)  # fmt: skip
def test_row_sum_keeps_dominance_and_with_it_stability(seed, density, slack, symmetric):
    with jax.enable_x64(True):
        A = dominant(seed, 10, symmetric=symmetric, slack=slack)
        pruned = prune_network(
            jax.random.key(seed), A, density, symmetric=symmetric, diagonal="row_sum"
        )
        sparse = pruned.connectivity
        rows = jnp.abs(sparse - jnp.diag(jnp.diagonal(sparse))).sum(1)
        np.testing.assert_allclose(-jnp.diagonal(sparse) - rows, slack, rtol=1e-8)
        assert float(largest_real_eigenvalue(sparse)) <= -slack + 1e-9
        if symmetric:
            np.testing.assert_array_equal(sparse, sparse.T)


@pytest.mark.parametrize("rule", ["noise", "weight", "uniform"])
def test_pruning_leaves_a_network_of_the_wanted_density(rule):
    """The published code's current version writes no weight at all."""
    A = clustered_network(jax.random.key(0), (80, 40), long_range=200)
    synapses = int((A != 0).sum()) - 120
    pruned = jax.jit(
        lambda key: prune_network(key, A, 0.2, rule=rule, symmetric=True, diagonal="row_sum")
    )(jax.random.key(1))
    assert int(pruned.kept.sum()) == pytest.approx(0.2 * synapses, rel=0.15)
    found = pruned.connectivity[pruned.kept]
    np.testing.assert_allclose(found, (A / pruned.probability)[pruned.kept], rtol=1e-5)
    found = pruned.connectivity - jnp.diag(jnp.diagonal(pruned.connectivity))
    np.testing.assert_array_equal(found != 0, pruned.kept)


def test_diagonals_and_gains():
    A = dominant(6, 10, symmetric=True).astype(jnp.float32)
    p = keep_probability(A, stationary_covariance(A), 0.3)
    whole, kept = sample_synapses(jax.random.key(0), A, p, diagonal="original")
    np.testing.assert_array_equal(jnp.diagonal(whole), jnp.diagonal(A))
    empty, _ = sample_synapses(jax.random.key(0), A, p, diagonal="zero", max_gain=1)
    np.testing.assert_array_equal(empty, jnp.where(kept, A, 0))
    bounded, _ = sample_synapses(jax.random.key(0), A, p, diagonal="zero", max_gain=2)
    gains = (bounded / A)[kept]
    assert float(gains.max()) == pytest.approx(2) and float(gains.min()) >= 1


def test_the_guarantee_holds(float64):
    """(1 - ε) B ≤ B_s ≤ (1 + ε) B at ε = 0.5 in at least 95 % of 20 draws, half the synapses."""
    n, draw = 400, np.random.default_rng(0)
    W = np.triu(draw.normal(1, 1, (n, n)), 1)
    W = W + W.T
    A = jnp.asarray(W - np.diag(np.abs(W).sum(1)))
    p = guaranteed_probability(A, stationary_covariance(A, structure="symmetric"), 0.5)
    assert 0.3 < float(p.sum()) / (n * (n - 1)) < 0.6
    inside = 0
    for seed in range(20):
        sparse, _ = sample_synapses(jax.random.key(seed), A, p, symmetric=True, diagonal="row_sum")
        ratios = scipy.linalg.eigh(-np.asarray(sparse), -np.asarray(A), eigvals_only=True)
        inside += bool(ratios[0] >= 0.5 and ratios[-1] <= 1.5)
    assert inside >= 19


def test_noise_keeps_a_directed_network_closer_than_weights_do():
    """Long-range synapses, which weights overlook, carry the slow modes."""
    A = clustered_network(jax.random.key(2), (30, 20), long_range=40, directed=True)
    assert not bool((A == A.T).all())
    C = stationary_covariance(A)
    error = {}
    for rule in ("noise", "weight"):
        draws = [
            prune_network(
                jax.random.key(seed), A, 0.25, rule=rule, diagonal="row_sum", covariance=C
            )
            for seed in range(5)
        ]
        error[rule] = np.mean([float(propagator_error(A, d.connectivity, 20.0)) for d in draws])
    assert error["noise"] < error["weight"]


@pytest.mark.slow
def test_a_clustered_network_of_1000_at_a_fifth():
    """Largest eigenvalue error 1.3 × below weights', 1.8 × below uniform; dynamics 1.5 × below."""
    A = clustered_network(jax.random.key(0), (500, 100, 400), long_range=1250)
    C = stationary_covariance(A, structure="symmetric")
    eigenpairs = jnp.linalg.eigh(A)
    start = jax.random.uniform(jax.random.key(1), (4, 1000))
    largest, moved = {}, {}

    def end(matrix):
        return simulate(
            jax.random.key(2), matrix, start, jnp.full_like(start, 2e-4), steps=8000,
            time_step=5e-3, noise=0.01, record_every=8000,
        )[-1]  # fmt: skip

    whole = end(A)
    for rule in ("noise", "weight", "uniform"):
        draws = [
            prune_network(
                jax.random.key(seed), A, 0.2, rule=rule, symmetric=True, diagonal="row_sum",
                covariance=C,
            ).connectivity
            for seed in range(5)
        ]  # fmt: skip
        errors = [spectrum_errors(A, sparse, eigenpairs).eigenvalue for sparse in draws]
        largest[rule] = np.mean([float(jnp.abs(error).max()) for error in errors])
        moved[rule] = np.mean([float(dynamics_error(whole, end(d)).mean()) for d in draws])
    assert largest["weight"] > 1.3 * largest["noise"]
    assert largest["uniform"] > 1.8 * largest["noise"]
    assert moved["weight"] > 1.5 * moved["noise"]


GOOD = jnp.array([[-2.0, 1.0], [1.0, -2.0]])


@pytest.mark.parametrize(
    ("A", "options", "words"),
    [
        (GOOD.at[0, 0].set(0.5), {}, "diagonal entry of 0.5"),
        (GOOD.at[0, 1].set(jnp.nan), {}, "1 entries that are NaN"),
        (GOOD[:1], {}, r"shape \(1, 2\)"),
        (3 * GOOD - 2 * jnp.diag(jnp.diagonal(GOOD)), {}, "real part 1"),
        (GOOD.at[0, 1].set(0.5), {"symmetric": True}, "transpose by up to 0.5"),
        (GOOD, {"density": 1.5}, "density=1.5"),
        (GOOD, {"rule": "magnitude"}, "'magnitude'"),
        (GOOD, {"diagonal": "row"}, "'row'"),
        (GOOD, {"max_gain": 0.5}, "max_gain=0.5"),
    ],
)
def test_refusals_say_the_value(A, options, words):
    with pytest.raises(ValueError, match=words):
        prune_network(jax.random.key(0), A, **{"density": 0.5, **options})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"sizes": (1, 20)}, r"sizes=\(1, 20\)"),
        ({"sizes": (20,), "inner_density": 1.2}, "inner_density=1.2"),
        ({"sizes": (4,), "long_range": 100}, "long_range=100"),
        ({"sizes": (2, 2), "long_range": 0}, "give no synapse"),
    ],
)
def test_networks_that_cannot_be_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        clustered_network(jax.random.key(0), **arguments)


def test_clustered_network_has_the_published_make():
    A = clustered_network(jax.random.key(0), (50, 30), inner_density=0.6, long_range=0, leak=0.05)
    W = A - jnp.diag(jnp.diagonal(A))
    assert int((W != 0).sum()) == 2 * (int(0.6 * 50 * 49 / 2) + int(0.6 * 30 * 29 / 2))
    assert not bool(W[:50, 50:].any())
    assert float(jnp.linalg.eigvalsh(W)[-1]) == pytest.approx(1 / 1.1, rel=1e-4)
    np.testing.assert_allclose(-jnp.diagonal(A) - jnp.abs(W).sum(1), 0.05, atol=1e-5)
