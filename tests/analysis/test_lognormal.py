"""Divergence from the log-normal: closed forms, scipy's fits, streams, refusals."""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from scipy import stats

from synscale_jax.analysis.lognormal import (
    fit,
    fit_layers,
    held_out_likelihood,
    kernels,
    merge,
    tally,
    tally_all,
)
from synscale_jax.models import MLP


def draw(kind, n=1_000_000, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "lognormal": lambda: rng.lognormal(-4, 1.3, n),
        "half_normal": lambda: np.abs(rng.normal(0, 0.03, n)),
        "uniform": lambda: rng.uniform(0, 0.05, n),
        "exponential": lambda: rng.exponential(3.0, n),
        "gamma": lambda: rng.gamma(0.3, 2.0, n),
    }[kind]()


@pytest.mark.parametrize(
    ("kind", "bins", "divergence", "tolerance"),
    [
        # By quadrature of the densities.
        ("lognormal", 100, 0.0, 3e-5),
        ("half_normal", 400, 0.03740, 3e-4),
        ("exponential", 400, 0.02043, 3e-4),
        ("uniform", 1000, 0.10190, 1.5e-3),
    ],
)
def test_divergence_of_known_distributions(kind, bins, divergence, tolerance):
    found = fit(tally_all(draw(kind)), bins=bins)
    assert found.divergence == pytest.approx(divergence, abs=tolerance)
    assert found.distance == pytest.approx(found.divergence**0.5)


def test_divergence_does_not_depend_on_the_unit():
    values = draw("half_normal", 200_000)
    small, large = (fit(tally_all(values * unit)).divergence for unit in (1e-6, 1e6))
    assert small == pytest.approx(large, abs=2e-4)


def test_a_small_sample_of_a_lognormal_has_the_divergence_of_sampling():
    found = [fit(tally_all(draw("lognormal", 5000, seed))) for seed in range(8)]
    mean = np.mean([each.divergence for each in found])
    assert mean == pytest.approx(found[0].sampling, rel=0.25)


def test_parameters_and_ks_are_scipys():
    values = draw("gamma", 50_000)
    found = fit(tally_all(values))
    sigma, _, scale = stats.lognorm.fit(values, floc=0)
    assert found.sigma == pytest.approx(sigma, rel=1e-4)
    assert found.mu == pytest.approx(np.log(scale), rel=1e-4)
    want = stats.kstest(values, stats.lognorm(sigma, scale=scale).cdf).statistic
    assert want - 0.001 < found.ks < want + 1e-5


def test_zeros_and_negatives_are_left_out_and_reported():
    values = draw("half_normal", 20_000)
    mixed = np.concatenate([values, np.zeros(15_000), -values[:5000]])
    found, plain = fit(tally_all(mixed)), fit(tally_all(values))
    assert (found.positive, found.zeros, found.negatives) == (20_000, 0.375, 0.125)
    assert found.divergence == pytest.approx(plain.divergence, rel=1e-5)


def test_a_stream_in_compiled_code_is_the_whole():
    values = draw("gamma", 64_000).astype(np.float32)
    batches = jnp.asarray(values).reshape(16, 4, 1000)
    tallies = jax.jit(lambda b: jax.lax.map(tally, b))(batches)
    merged = merge(*(jax.tree.map(lambda leaf, i=i: leaf[i], tallies) for i in range(16)))
    np.testing.assert_array_equal(merged.histogram, tally_all(values).histogram)
    logs = np.log(values.astype(np.float64))
    np.testing.assert_allclose(merged.log_mean, logs.mean(), rtol=1e-6)
    np.testing.assert_allclose(merged.log_m2, ((logs - logs.mean()) ** 2).sum(), rtol=1e-5)
    np.testing.assert_allclose(merged.mean, values.mean(dtype=np.float64), rtol=1e-5)
    np.testing.assert_allclose(merged.mean_square, np.square(values, dtype=float).mean(), rtol=1e-5)


@hypothesis.given(st.permutations(range(8)), st.integers(1, 7))
@hypothesis.settings(deadline=None, max_examples=15)
def test_merging_forgets_how_the_values_were_cut(order, first):
    values = np.concatenate([draw("gamma", 1900), np.zeros(100)]).reshape(8, 250)
    tallies = [tally_all(part) for part in values]
    ordered = [tallies[index] for index in order]
    whole, merged = merge(*tallies), merge(merge(*ordered[:first]), merge(*ordered[first:]))
    for name, value in merged._asdict().items():
        np.testing.assert_allclose(value, getattr(whole, name), rtol=1e-12, err_msg=name)


def test_held_out_likelihoods_are_scipys():
    train, test = draw("gamma", 20_000, 1), draw("gamma", 20_000, 2)
    scores = held_out_likelihood(tally_all(train), tally_all(test))
    for name, family in (
        ("lognormal", stats.lognorm),
        ("half_normal", stats.halfnorm),
        ("gamma", stats.gamma),
    ):
        want = family.logpdf(test, *family.fit(train, floc=0)).mean()
        assert scores[name] == pytest.approx(want, rel=1e-4), name


@pytest.mark.parametrize("kind", ["lognormal", "half_normal", "gamma"])
def test_the_right_family_wins(kind):
    halves = (tally_all(draw(kind, 50_000, seed)) for seed in (1, 2))
    scores = held_out_likelihood(*halves)
    # A half-normal is no gamma, and the other way round; each of the three is found.
    assert max(scores, key=scores.get) == kind


def test_what_cannot_be_fitted_is_nan():
    for values in (
        np.zeros(5),
        np.array([0.0, 1.0]),
        np.full(9, 0.5),
        np.full(1000, 0.12970536, np.float32),
    ):
        found = fit(tally_all(values))
        assert np.isnan(found.divergence) and np.isnan(found.ks)


def test_layers_and_all_together():
    params = MLP((30,), 5).init(jax.random.key(0), jnp.ones((1, 40)))["params"]
    chosen = kernels(params)
    assert {name: value.shape for name, value in chosen.items()} == {
        "dense0": (40, 30),
        "head": (30, 5),
    }
    assert kernels(params, MLP((30,), 5).layer_table()).keys() == chosen.keys()
    found = fit_layers(chosen)
    everything = np.concatenate([np.ravel(value) for value in chosen.values()])
    assert found.keys() == {"dense0", "head", "pooled"}
    assert found["pooled"].positive == (everything > 0).sum()
    assert found["pooled"].divergence == pytest.approx(fit(tally_all(everything)).divergence)


def test_values_that_are_not_tallied_are_told():
    with pytest.raises(TypeError, match=r"ndarray is no Tally: give tally_all\(values\)"):
        fit(np.ones(3))  # pyright: ignore


@pytest.mark.parametrize(
    ("call", "shown"),
    [
        (lambda: fit(tally_all(np.array([1.0, np.nan, np.inf, 2.0]))), "2 of 4 values"),
        (lambda: fit(tally_all(np.ones(3)), bins=1), "bins=1"),
        (lambda: tally(jnp.zeros(0)), "0 values"),
        (lambda: merge(), "nothing to merge"),
        (lambda: fit_layers({"pooled": np.ones(3)}), "pooled"),
        (lambda: held_out_likelihood(tally_all(np.ones(1)), tally_all(np.ones(3))), "1 values"),
        (lambda: kernels({"a": {"bias": jnp.ones(3)}}, MLP((), 3).layer_table()), "'head'"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call, shown):
    with pytest.raises(ValueError) as refused:
        call()
    assert shown in str(refused.value) and "\n" not in str(refused.value)
