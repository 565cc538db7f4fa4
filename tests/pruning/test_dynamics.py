"""Simulation against closed forms; the local estimate against the covariance of the samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from synscale_jax.pruning import (
    clustered_network,
    difference_variance,
    dynamics_error,
    initial_traces,
    probe_with_noise,
    simulate,
    spectrum_errors,
    stationary_covariance,
    update_traces,
)
from tests.pruning.conftest import dominant


def test_without_noise_it_is_eulers_method(float64):
    A = dominant(0, 6)
    start, drive = jax.random.normal(jax.random.key(0), (2, 3, 6))
    x = simulate(jax.random.key(1), A, start, drive, steps=40, time_step=0.01, record_every=20)
    step = jnp.eye(6) + 0.01 * A
    expected = start
    for _ in range(40):
        expected = expected @ step.T + 0.01 * drive
    assert x.shape == (2, 3, 6)
    np.testing.assert_allclose(x[-1], expected, rtol=1e-12)


def test_recording_less_changes_nothing():
    A = dominant(1, 5).astype(jnp.float32)
    often, seldom = (
        simulate(
            jax.random.key(0), A, jnp.ones(5), jnp.zeros(5), steps=12, time_step=0.01, noise=1.0,
            record_every=every,
        )
        for every in (1, 4)
    )  # fmt: skip
    np.testing.assert_allclose(seldom, often[3::4], rtol=1e-6)


def test_networks_with_the_same_key_share_their_noise():
    A = dominant(2, 5).astype(jnp.float32)
    walk = [
        simulate(
            jax.random.key(key), matrix, jnp.zeros((2, 5)), jnp.zeros((2, 5)), steps=1,
            time_step=0.01, noise=1.0,
        )
        for key, matrix in ((0, A), (0, 2 * A), (1, A))
    ]  # fmt: skip
    np.testing.assert_array_equal(walk[0], walk[1])
    assert float(dynamics_error(walk[0], walk[2]).min()) > 0.1


def test_the_walk_settles_to_the_stationary_covariance():
    A = dominant(3, 4, symmetric=True, slack=1.0).astype(jnp.float32)
    C = stationary_covariance(A, 0.5)
    runs = jnp.zeros((20_000, 4))
    x = simulate(
        jax.random.key(0), A, runs, runs, steps=600, time_step=0.01, noise=0.5, record_every=600
    )[-1]
    spread = float(jnp.diagonal(C).max())
    # Sampling error about sqrt(2 / 20000) = 0.01 of a variance, Euler's error a few hundredths.
    np.testing.assert_allclose(x.T @ x / len(x), C, atol=0.06 * spread)


@pytest.mark.parametrize("rate", [None, 0.2])
def test_traces_are_weighted_covariances(rate, float64):
    samples = np.random.default_rng(0).normal(size=(30, 3))
    traces = initial_traces(3)
    for x in samples:
        traces = update_traces(traces, jnp.asarray(x), rate)
    if rate is None:
        expected = np.cov(samples.T, bias=True)
    else:  # the traces start from an imagined first sample of zeros
        weights = rate * (1 - rate) ** np.arange(30)[::-1]
        seen = np.concatenate([np.zeros((1, 3)), samples])
        weights = np.concatenate([[(1 - rate) ** 30], weights])
        deviations = seen - weights @ seen
        expected = (weights[:, None] * deviations).T @ deviations
    np.testing.assert_allclose(traces.covariance, expected, atol=1e-12)
    assert int(traces.count) == 30


def test_probing_in_two_goes_goes_on():
    A = dominant(4, 5).astype(jnp.float32)
    state, traces = probe_with_noise(jax.random.key(0), A, samples=30)
    state, traces = probe_with_noise(jax.random.key(1), A, samples=20, state=state, traces=traces)
    assert int(traces.count) == 50
    assert bool(jnp.isfinite(traces.covariance).all())


def test_the_local_estimate_converges():
    A = clustered_network(jax.random.key(0), (40, 20), long_range=100)
    synapses = np.triu(np.asarray(A), 1) != 0
    exact = difference_variance(A, stationary_covariance(A, structure="symmetric"))[synapses]
    state, _ = probe_with_noise(jax.random.key(1), A, samples=300)
    agreement, traces, seen = [], None, 0
    for samples in (10, 400, 6000):
        state, traces = probe_with_noise(
            jax.random.key(samples), A, samples=samples - seen, state=state, traces=traces
        )
        seen = samples
        estimate = difference_variance(A, traces.covariance)[synapses]
        agreement.append(float(jnp.corrcoef(estimate, exact)[0, 1]))
    assert agreement[0] < agreement[1] < agreement[2]
    assert agreement[1] > 0.9 and agreement[2] > 0.99


def test_refusals_say_the_value():
    A, x = -jnp.eye(3), jnp.ones(3)
    with pytest.raises(ValueError, match="steps=10"):
        simulate(jax.random.key(0), A, x, x, steps=10, time_step=0.1, record_every=3)
    with pytest.raises(ValueError, match=r"\(3,\) and drive \(2, 3\)"):
        simulate(jax.random.key(0), A, x, jnp.ones((2, 3)), steps=10, time_step=0.1)
    with pytest.raises(ValueError, match=r"\(2, 2\)"):
        spectrum_errors(A, -jnp.eye(2))
