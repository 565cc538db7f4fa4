"""Golden updates of the published codes, and what the rules are known for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from synscale_jax.plasticity import hebb, krotov_hopfield, oja, thresholded_hebb, unit_norm
from synscale_jax.plasticity.hebbian import _is_at_least_percentile


def published(name, percentile):
    return {
        "hebb": hebb(0.01, reduction="sum"),
        "oja": oja(0.01, reduction="sum"),
        "gupta": thresholded_hebb(
            0.01, percentile=percentile, baseline="published", reduction="sum"
        ),
    }[name]


@pytest.mark.parametrize("name", ["hebb", "oja", "gupta"])
def test_published_trace(golden, name):
    arrays = np.load(golden / "hebbian.npz")
    rule = published(name, int(arrays["gupta_percentile"]))
    weights = jnp.asarray(arrays[f"{name}_w0"])
    state = rule.init(weights)
    for step in range(3):
        x = jnp.asarray(arrays[f"{name}_x{step}"])
        z = jax.nn.relu(x @ weights)
        np.testing.assert_allclose(z, arrays[f"{name}_output{step}"], rtol=2e-5, atol=1e-6)
        weights, state = jax.jit(rule.update)(weights, x, z, state)
        np.testing.assert_allclose(
            weights, arrays[f"{name}_w{step + 1}"], rtol=2e-5, atol=2e-6, err_msg=f"step {step}"
        )


@pytest.mark.parametrize("case", ["case0", "case1"])
def test_published_competing_units(golden, case):
    arrays = {k: v for k, v in np.load(golden / "competing_hidden_units.npz").items()}
    rule = krotov_hopfield(
        float(arrays[f"{case}_learning_rate"]),
        lebesgue_norm=float(arrays[f"{case}_lebesgue_norm"]),
        rank=int(arrays[f"{case}_rank"]),
        anti_hebbian=float(arrays[f"{case}_anti_hebbian_strength"]),
    )
    weights = jnp.asarray(arrays[f"{case}_weights"].T)
    new, _ = rule.update(weights, jnp.asarray(arrays[f"{case}_inputs"]), None, rule.init(weights))
    np.testing.assert_allclose(new.T, arrays[f"{case}_new_weights"], rtol=1e-5, atol=1e-6)


def learned(rule, weights, x, steps, batch=100, activation=lambda drive: drive):
    def body(index, carry):
        weights, state = carry
        part = jax.lax.dynamic_slice_in_dim(x, (index * batch) % len(x), batch)
        return rule.update(weights, part, activation(part @ weights), state)

    return jax.lax.fori_loop(0, steps, body, (weights, rule.init(weights)))[0]


@pytest.mark.parametrize("units", [1, 3])
def test_oja_finds_the_principal_subspace(units):
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(10, 10)))
    spread = np.array([3.0, 2.5, 2.0, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    x = (rng.normal(size=(5000, 10)) * spread) @ basis.T
    leading = np.linalg.svd(x)[2][:units].T  # of the sample
    weights = learned(
        oja(lambda count: 0.02 / (1 + count / 500)),
        jnp.asarray(0.1 * rng.normal(size=(10, units)), jnp.float32),
        jnp.asarray(x, jnp.float32),
        4000,
    )
    np.testing.assert_allclose(weights.T @ weights, np.eye(units), atol=0.02)
    assert np.linalg.svd(leading.T @ np.asarray(weights))[1].min() > 0.99


def test_hebb_alone_diverges_and_unit_norm_holds_it():
    x = jax.random.uniform(jax.random.key(0), (200, 20))
    start = 0.01 * jax.random.normal(jax.random.key(1), (20, 8))
    free = learned(hebb(0.5), start, x, 200, activation=jax.nn.relu)
    held = learned(unit_norm(hebb(0.5)), start, x, 200, activation=jax.nn.relu)
    assert not jnp.isfinite(free).all()
    np.testing.assert_allclose(jnp.linalg.norm(held, axis=0), 1, rtol=1e-5)


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**16),
    percentile=st.floats(0, 100),
    per_unit=st.booleans(),
)
@example(seed=59, percentile=19.0, per_unit=True)  # -0 where the percentile is 0
def test_percentile_is_that_of_a_sort(seed, percentile, per_unit):
    values = np.random.default_rng(seed).normal(size=(9, 5)).round(1).astype(np.float32)
    kept = _is_at_least_percentile(jnp.asarray(values), percentile, per_unit=per_unit)
    number = 9 if per_unit else 45
    rank = 1 + round(0.01 * percentile * (number - 1))
    threshold = np.sort(values, axis=0 if per_unit else None)[rank - 1]
    np.testing.assert_array_equal(kept, values >= threshold)


def test_scaled_baseline_has_one_scale():
    """A rate twice as large changes twice as much, which the published form does not."""
    x, z = jnp.eye(3), jnp.array([[1.0, 2.0], [0.0, 1.0], [2.0, 2.0]])

    def moved(rate, baseline):
        rule = thresholded_hebb(rate, percentile=0, baseline=baseline)
        first, state = rule.update(jnp.zeros((3, 2)), x, z, rule.init(jnp.zeros((3, 2))))
        return rule.update(first, 2 * x, z, state)[0] - first

    np.testing.assert_allclose(moved(0.2, "scaled"), 2 * moved(0.1, "scaled"), rtol=1e-6)
    assert jnp.abs(moved(0.2, "published") - 2 * moved(0.1, "published")).max() > 0.1


@pytest.mark.parametrize("rank", [2, 4])
def test_winner_moves_toward_the_input_and_rank_k_away(rank):
    weights = jax.random.uniform(jax.random.key(0), (30, 12))
    x = jax.random.uniform(jax.random.key(1), (1, 30))
    rule = krotov_hopfield(1e-3, rank=rank)
    new, _ = rule.update(weights, x, None, rule.init(weights))
    order = np.argsort(-np.asarray(x @ weights)[0])
    moved = np.flatnonzero(np.abs(np.asarray(new - weights)).max(0))
    assert set(moved) == {order[0], order[rank - 1]}

    def distance(w, unit):  # to the input's direction
        unit_vector = w[:, unit] / jnp.linalg.norm(w[:, unit])
        return float(jnp.linalg.norm(unit_vector - x[0] / jnp.linalg.norm(x[0])))

    assert distance(new, order[0]) < distance(weights, order[0])
    assert distance(new, order[rank - 1]) > distance(weights, order[rank - 1])
    assert float(jnp.abs(new - weights).max()) == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("norm", [2.0, 3.0])
def test_competing_units_reach_the_unit_sphere_of_their_norm(norm):
    rng = np.random.default_rng(0)
    x = jnp.asarray(np.repeat(rng.uniform(size=(6, 20)), 20, 0), jnp.float32)  # six clusters
    x = x + 0.05 * jax.random.uniform(jax.random.key(1), x.shape)
    rule = krotov_hopfield(
        lambda count: 0.02 * (1 - count / 1500), lebesgue_norm=norm, anti_hebbian=0.0
    )
    start = jax.random.uniform(jax.random.key(2), (20, 4))
    weights = learned(rule, start, x, 1500, batch=120)
    lengths = jnp.sum(jnp.abs(weights) ** norm, 0)
    changed = np.asarray(jnp.abs(weights - start).max(0) > 0.01)
    assert changed.any()
    np.testing.assert_allclose(lengths[changed], 1, atol=0.05)


def test_both_summations_agree():
    from synscale_jax.plasticity import competing_units as module

    keys = jax.random.split(jax.random.key(0), 3)
    x, weights = jax.random.normal(keys[0], (16, 7)), jax.random.normal(keys[1], (7, 9))
    currents = x @ weights
    ranked = module._first_and_ranked(currents, 3)
    for a, b in zip(
        module._summed_rows(0.3, x, currents, *ranked),
        module._products(0.3, x, currents, *ranked),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: hebb(0.0), "learning_rate=0.0"),
        (lambda: oja(0.1, reduction="median"), "reduction='median'"),
        (lambda: thresholded_hebb(0.1, percentile=101), "percentile=101"),
        (lambda: thresholded_hebb(0.1, sparsity="large"), "sparsity='large'"),
        (lambda: krotov_hopfield(rank=1), "rank=1"),
        (lambda: krotov_hopfield(lebesgue_norm=0.5), "lebesgue_norm=0.5"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_wrong_shapes_are_told():
    rule = hebb(0.1)
    with pytest.raises(ValueError, match=r"presynaptic has shape \(4, 3\)"):
        rule.update(
            jnp.zeros((5, 2)), jnp.zeros((4, 3)), jnp.zeros((4, 2)), rule.init(jnp.zeros(1))
        )
