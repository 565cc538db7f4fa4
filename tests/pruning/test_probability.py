"""Who is kept, and how often: golden values, exact densities, the theory's identities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synscale_jax.pruning import (
    clustered_network,
    difference_variance,
    guaranteed_probability,
    keep_probability,
    prune_network,
    stationary_covariance,
    uniform_probability,
    weight_probability,
)
from tests.pruning.conftest import dominant


def off_diagonal(A):
    return A - jnp.diag(jnp.diagonal(A))


def test_golden_probabilities(case, float64):
    A, C = jnp.asarray(case["A"]), jnp.asarray(case["covariance"])
    density = float(case["expected_edges"]) / int((off_diagonal(A) != 0).sum())
    np.testing.assert_allclose(difference_variance(A, C), case["difference"], atol=1e-12)
    p = keep_probability(A, C, density, normalisation="published")
    np.testing.assert_allclose(p, case["keep_probability"], atol=1e-12)
    p = weight_probability(A, density, normalisation="published")
    np.testing.assert_allclose(p, case["keep_probability_by_weight"], atol=1e-12)


def test_the_density_is_exact_where_the_cap_binds(case, float64):
    A, C = jnp.asarray(case["A"]), jnp.asarray(case["covariance"])
    wanted = 0.8 * int((off_diagonal(A) != 0).sum())
    exact = keep_probability(A, C, 0.8)
    published = keep_probability(A, C, 0.8, normalisation="published")
    assert int((exact == 1).sum()) > int((published == 1).sum()) > 0
    assert float(exact.sum()) == pytest.approx(wanted, rel=1e-12)
    assert float(published.sum()) < 0.99 * wanted


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), density=st.floats(1e-3, 1), tail=st.floats(0.1, 6))
def test_probabilities_are_exact_and_in_order_whatever_the_weights(seed, density, tail):
    with jax.enable_x64(True):
        draw = np.random.default_rng(seed)
        A = np.exp(tail * draw.normal(size=(9, 9))) * (draw.random((9, 9)) < 0.6)
        synapses = int((off_diagonal(jnp.asarray(A)) != 0).sum())
        p = np.asarray(weight_probability(jnp.asarray(A), density))
        assert p.sum() == pytest.approx(density * synapses, rel=1e-9)
        assert p.min() >= 0 and p.max() <= 1
        assert (p[(A == 0) | np.eye(9, dtype=bool)] == 0).all()
        others = ~np.eye(9, dtype=bool)
        order = np.argsort(A[others])
        assert (np.diff(p[others][order]) >= -1e-12).all()


def test_all_are_kept_at_density_one():
    p = keep_probability(*network_and_covariance(), 1.0)
    np.testing.assert_allclose(p.sum(), (off_diagonal(network_and_covariance()[0]) != 0).sum())


def network_and_covariance(n=20):
    A = dominant(3, n, symmetric=True).astype(jnp.float32)
    return A, stationary_covariance(A, structure="symmetric")


def test_noise_strength_drops_out():
    A, C = network_and_covariance()
    np.testing.assert_allclose(
        keep_probability(A, 100 * C, 0.3), keep_probability(A, C, 0.3), rtol=1e-5
    )


def test_jit_vmap_and_batches():
    A, C = network_and_covariance()
    densities = jnp.array([0.1, 0.9])
    swept = jax.jit(jax.vmap(lambda density: keep_probability(A, C, density)))(densities)
    for density, p in zip((0.1, 0.9), swept, strict=True):
        np.testing.assert_allclose(p, keep_probability(A, C, density), rtol=1e-5)
    both = keep_probability(jnp.stack([A, 2 * A]), jnp.stack([C, C]), 0.3)
    np.testing.assert_allclose(both[0], both[1], rtol=1e-5)


def test_gradient_through_covariance_and_cap(float64):
    A = dominant(4, 10)
    weight, direction = jax.random.normal(jax.random.key(0), (2, 10, 10))
    direction = direction * (A != 0)

    def loss(A):
        return jnp.vdot(weight, keep_probability(A, stationary_covariance(A), 0.6))

    assert int((keep_probability(A, stationary_covariance(A), 0.6) == 1).sum()) > 0
    h = 1e-6
    numeric = (loss(A + h * direction) - loss(A - h * direction)) / (2 * h)
    np.testing.assert_allclose(jnp.vdot(jax.grad(loss)(A), direction), numeric, rtol=1e-5)


def test_leverages_of_a_network_without_slack_sum_to_its_size(float64):
    A = clustered_network(jax.random.key(0), (40, 20), long_range=60)
    C = stationary_covariance(A, structure="symmetric")
    leverage = 2 * jnp.abs(off_diagonal(A)) * difference_variance(A, C)
    assert float(jnp.triu(leverage).sum()) == pytest.approx(60, abs=1e-6)


def test_redundant_synapses_are_kept_less():
    """Two clusters joined by one synapse, all weights equal: that one matters most."""
    W = np.kron(np.eye(2), np.ones((5, 5))) - np.eye(10)
    W[0, 5] = W[5, 0] = 1
    A = jnp.asarray(W - np.diag(W.sum(1) + 0.05), jnp.float32)
    p = keep_probability(A, stationary_covariance(A, structure="symmetric"), 0.3)
    within = p[:5, :5]
    assert float(p[0, 5]) > 2 * float(within.max())
    # The covariance of an inhibitory synapse counts the other way round.
    signs = jnp.ones(10).at[5:].set(-1)
    mirrored = A * signs[:, None] * signs[None, :]
    C = stationary_covariance(mirrored, structure="symmetric")
    np.testing.assert_allclose(keep_probability(mirrored, C, 0.3), p, rtol=1e-4)


def test_uniform():
    A, _ = network_and_covariance()
    p = uniform_probability(A, 0.25)
    assert set(np.unique(np.asarray(p)).tolist()) == {0.0, 0.25}


@pytest.mark.parametrize("density", [0, -0.1, 1.01, float("nan")])
def test_densities_that_are_no_fraction_are_refused(density):
    A, C = network_and_covariance()
    for probability in (
        lambda: keep_probability(A, C, density),
        lambda: weight_probability(A, density),
        lambda: uniform_probability(A, density),
    ):
        with pytest.raises(ValueError, match=f"density={density}"):
            probability()


def test_unknown_names_are_refused():
    A, C = network_and_covariance()
    with pytest.raises(ValueError, match="'clip'"):
        keep_probability(A, C, 0.5, normalisation="clip")  # pyright: ignore
    with pytest.raises(ValueError, match="'clip'"):  # of a rule, too, that needs none
        prune_network(jax.random.key(0), A, 0.5, rule="uniform", normalisation="clip")  # pyright: ignore
    with pytest.raises(ValueError, match="tolerance=2"):
        guaranteed_probability(A, C, 2)
