"""The event-driven path against the plain step, and both against Brian 2."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from synscale_jax import spiking
from synscale_jax.spiking import Network, encoding, learning_rates

SMALL = Network(inputs=60, classes=2, neurons_per_class=2, active=600.0, rest=0.0, decay_time=500.0)


def paths():
    missing = pytest.mark.skipif(spiking.engine() == "jax", reason="no C++ compiler here")
    return [False, pytest.param(True, marks=missing)]


both_paths = pytest.mark.parametrize("native", paths(), ids=["jax", "native"][: len(paths())])


@pytest.fixture(scope="module")
def brian():
    arrays = dict(np.load(pathlib.Path(__file__).with_name("brian.npz")))
    arrays["raster"] = np.unpackbits(arrays["raster"], axis=0).astype(bool)
    return arrays


def recorded_network(brian, dtype):
    state = spiking.initial_state(SMALL, jax.random.key(0), weights=brian["weights"], dtype=dtype)
    return state._replace(
        partner_delay=jnp.asarray(brian["partner_delay"], jnp.int32),
        inhibition_delay=jnp.asarray(brian["inhibition_delay"], jnp.int32),
    )


def begin(state):
    return state._replace(threshold=state.neurons.adaptive_threshold)


def spike_list(fired):
    """Steps and neurons, by step and then neuron."""
    return [tuple(pair) for pair in np.argwhere(fired).tolist()]


@pytest.mark.parametrize("decay", ["none", "continuous"])
def test_plain_step_equals_brian(brian, decay):
    with jax.enable_x64(True):
        state, fired = recorded_network(brian, jnp.float64), []
        for slot in (0, 1):
            state = begin(state)
            rates = learning_rates(SMALL, slot, jnp.float64)

            def one(state, inputs, rates=rates):
                return spiking.step(SMALL, state, inputs, rates, decay=decay == "continuous")

            raster = jnp.asarray(brian["raster"][6000 * slot : 6000 * (slot + 1)])
            state, spikes = jax.jit(lambda s, r, one=one: jax.lax.scan(one, s, r))(state, raster)
            fired.append(np.asarray(spikes))
            np.testing.assert_allclose(
                state.weights, brian[f"{decay}_weights_{slot}"], rtol=1e-8, atol=1e-14
            )
            np.testing.assert_allclose(
                state.neurons.membrane_potential, brian[f"{decay}_potential_{slot}"], rtol=1e-8
            )
        fired = np.concatenate(fired)
        for part, label in ((fired[:, :4], "excitatory"), (fired[:, 4:], "inhibitory")):
            steps, who = brian[f"{decay}_{label}_step"], brian[f"{decay}_{label}_neuron"]
            assert spike_list(part) == sorted(zip(steps.tolist(), who.tolist(), strict=True))


@both_paths
@pytest.mark.parametrize("decay", ["none", "continuous"])
def test_event_driven_equals_brian_in_float64(brian, decay, native):
    with jax.enable_x64(True):
        state, total = recorded_network(brian, jnp.float64), 0
        for slot in (0, 1):
            spikes = encoding.spikes_from_raster(brian["raster"][6000 * slot : 6000 * (slot + 1)])
            state, counts = spiking.run(
                SMALL, begin(state), spikes, 6000, learning_rates(SMALL, slot, jnp.float64),
                decay=decay == "continuous", native=native,
            )  # fmt: skip
            total += counts
            np.testing.assert_allclose(
                state.weights, brian[f"{decay}_weights_{slot}"], rtol=1e-8, atol=1e-14
            )
            np.testing.assert_allclose(
                state.neurons.membrane_potential, brian[f"{decay}_potential_{slot}"], rtol=1e-8
            )
        expected = [np.bincount(brian[f"{decay}_{p}_neuron"], minlength=4)
                    for p in ("excitatory", "inhibitory")]  # fmt: skip
        assert total.tolist() == np.concatenate(expected).tolist()
