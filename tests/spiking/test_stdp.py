"""Sign and size of STDP over Δt, and the law of the decay."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synscale_jax import spiking
from synscale_jax.spiking import (
    LIF,
    STDP,
    LearningRates,
    Network,
    encoding,
    silence_factor,
    stdp,
)

PAIR = Network(
    inputs=41, classes=1, neurons_per_class=1, inhibition=0.0,
    excitatory=LIF(membrane_time=1.0, refractory=1000.0),
)  # fmt: skip


def change_by_a_pair(interval, rule):
    """Δt in ms as it came out, and the change of the first weight; the others drive the neuron."""
    weights = np.full((41, 1), 0.05)
    weights[0] = 0.025
    state = spiking.initial_state(PAIR, jax.random.key(0), weights=weights)
    raster = np.zeros((3000, 41), bool)
    raster[1500, 0] = True
    raster[1500 + round(interval / 0.1), 1:] = True
    rates = LearningRates(*(jnp.full(1, rate) for rate in stdp.rates_of(rule)))
    spikes = encoding.spikes_from_raster(raster)
    after, counts = spiking.run(PAIR, state, spikes, 3000, rates)
    assert counts[0] == 1
    spiked = 2999 - round(10_000 - float(after.neurons.refractory[0]))
    return (spiked - 1500) * 0.1, float(after.weights[0, 0] - np.float32(0.025))


@pytest.mark.parametrize("rule", ["stdp", "all_ltd"])
@pytest.mark.parametrize("interval", [-40.0, -10.0, 5.0, 40.0])
def test_two_neurons_follow_the_kernel(rule, interval):
    came_out, change = change_by_a_pair(interval, rule)
    assert abs(came_out - interval) < 3
    np.testing.assert_allclose(change, stdp.kernel(STDP(), came_out, rule), rtol=1e-4)
    assert np.sign(change) == (1 if rule == "stdp" and interval > 0 else -1)


def test_frozen_weights_stay_to_the_bit():
    assert change_by_a_pair(5.0, "frozen")[1] == 0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.0, 100.0))
def test_weights_never_leave_their_bounds(seed, scale):
    rng = np.random.default_rng(seed)
    weights = jnp.asarray(rng.uniform(0, 0.05, (3, 4)), jnp.float32)
    rates = LearningRates(*(jnp.asarray(rng.choice([-1.0, 1.0], 4), jnp.float32) * scale,) * 2)
    post = jnp.asarray(-rng.uniform(0, 0.01, 4), jnp.float32)
    pre = jnp.asarray(rng.uniform(0, 0.01, 3), jnp.float32)
    after = stdp.at_input_spike(STDP(), weights, post, rates)
    after = stdp.at_output_spike(STDP(), after, pre, rates, jnp.ones(4, bool))
    assert float(after.min()) >= 0 and float(after.max()) <= np.float32(0.05)


@pytest.mark.parametrize(
    ("seconds", "left"),
    [(0.15, 0.9996), (1, 0.982), (3.75, 0.78), (7.5, 0.37), (15, 0.018), (30, 1e-7)],
)
def test_decay_law(seconds, left):
    factor = float(silence_factor(round(seconds * 10_000), 0.1, 7500.0))
    np.testing.assert_allclose(factor, left, rtol=0.15 if left < 1e-3 else 0.02)


def test_flush_reaches_most_inputs_and_decays_them_by_their_silence():
    network = Network(decay="one_shot")
    state = spiking.initial_state(network, jax.random.key(0))
    silent = jnp.asarray(np.linspace(0, 300_000, 784), jnp.int32)
    state = state._replace(
        step=jnp.int32(400_000), last_input=400_000 - silent, last_spike=jnp.int32(0)
    )
    after = spiking.flush(network, state, jax.random.key(1))
    reached = np.asarray(after.last_input) >= 400_000
    assert 0.937 < reached.mean() < 0.977
    ratio = np.asarray(after.weights / state.weights).mean(1)
    expected = np.exp(-(((np.asarray(silent) + 250) / 75_000.0) ** 2))  # the flush lasts 500 steps
    np.testing.assert_allclose(ratio[reached], expected[reached], atol=0.01)
    np.testing.assert_allclose(ratio[~reached], 1, rtol=1e-6)


def test_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="'hebb' is no learning rule"):
        stdp.kernel(STDP(), 0.0, "hebb")
