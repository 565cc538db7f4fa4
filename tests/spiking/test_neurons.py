"""Membrane, conductance, threshold and refractory period against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from synscale_jax.spiking import LIF, Network, neurons

QUIET = LIF(threshold=1000.0)


def simulate(neuron, steps, dt, state, drive=None):
    """Potentials, conductances and spikes of every step; ``drive`` is held as g_e."""

    def one(state, _):
        if drive is not None:
            state = state._replace(excitatory=jnp.full_like(state.excitatory, drive))
        state, spiked = neurons.step(neuron, state, dt)
        return state, (state, spiked)

    _, (states, spiked) = jax.jit(lambda s: jax.lax.scan(one, s, length=steps))(state)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[..., 0], states), np.asarray(spiked)[:, 0]


def test_membrane_relaxes_to_rest_exponentially():
    with jax.enable_x64(True):
        state = neurons.initial_state(QUIET, 1, dtype=jnp.float64)
        states, _ = simulate(QUIET, 1000, 0.1, state)
        expected = -60 - 20 * (1 - 0.1 / 100) ** np.arange(1, 1001)  # Euler's own closed form
        np.testing.assert_allclose(states.membrane_potential, expected, rtol=1e-12)
        exact = -60 - 20 * np.exp(-np.arange(1, 1001) * 0.1 / 100)
        np.testing.assert_allclose(states.membrane_potential, exact, atol=0.01)


def test_conductances_decay_with_their_own_time_constants():
    state = neurons.initial_state(QUIET, 1)
    state = state._replace(excitatory=jnp.ones(1), inhibitory=jnp.ones(1))
    states, _ = simulate(QUIET, 100, 0.1, state)
    np.testing.assert_allclose(states.excitatory[-1], (1 - 0.1 / 5) ** 100, rtol=1e-5)
    np.testing.assert_allclose(states.inhibitory[-1], (1 - 0.1 / 10) ** 100, rtol=1e-5)


def test_threshold_jumps_and_falls_back():
    neuron = LIF(refractory=5.0)
    state = neurons.initial_state(neuron, 1, potential=-50.0)
    states, spiked = simulate(neuron, 400, 0.1, state)
    assert spiked[0] and spiked.sum() == 1
    steps = np.arange(400)
    expected = -52 + 3 * (1 - 0.1 / 150) ** steps
    np.testing.assert_allclose(states.adaptive_threshold, expected, rtol=1e-6)


def test_a_constant_conductance_fires_above_8_52nds():
    for drive, fires in ((0.152, False), (0.156, True)):
        state = neurons.initial_state(neurons.EXCITATORY, 1, potential=-60.0)
        _, spiked = simulate(LIF(threshold_jump=0.0), 10_000, 0.1, state, drive)
        assert spiked.any() == fires


def test_spike_times_of_a_driven_neuron_against_a_fine_reference():
    neuron = LIF(threshold_jump=0.0)
    times = {}
    for dt in (0.1, 0.001):
        with jax.enable_x64(True):
            state = neurons.initial_state(neuron, 1, potential=-60.0, dtype=jnp.float64)
            _, spiked = simulate(neuron, round(400 / dt), dt, state, 0.5)
        times[dt] = np.flatnonzero(spiked) * dt
    assert len(times[0.1]) == len(times[0.001]) > 4
    assert np.abs(times[0.1] - times[0.001]).max() < 0.2 * len(times[0.1])


def test_refractory_boundary_to_the_step():
    neuron = LIF(membrane_time=0.5, refractory=5.0, threshold_jump=0.0)
    state = neurons.initial_state(neuron, 1, potential=-60.0)
    states, spiked = simulate(neuron, 300, 0.1, state, 2.0)
    assert set(np.diff(np.flatnonzero(spiked)).tolist()) == {50}
    after = states.membrane_potential[np.flatnonzero(spiked)]
    np.testing.assert_allclose(after, -65.0)
    assert states.membrane_potential[np.flatnonzero(spiked)[0] + 20] > -52  # goes on integrating


def test_no_spike_at_the_threshold_itself():
    state = neurons.initial_state(neurons.EXCITATORY, 2)
    state = state._replace(membrane_potential=jnp.array([-52.0, np.nextafter(np.float32(-52), 0)]))
    assert neurons.spikes(state, state.adaptive_threshold).tolist() == [False, True]


def test_batch_of_one_equals_no_batch():
    single = neurons.initial_state(neurons.EXCITATORY, 3)
    batch = neurons.initial_state(neurons.EXCITATORY, (1, 3))
    for _ in range(20):
        single, a = neurons.step(neurons.EXCITATORY, single, 0.1, excitatory=0.7)
        batch, b = neurons.step(neurons.EXCITATORY, batch, 0.1, excitatory=0.7)
    for one, many in zip((*single, a), (*batch, b), strict=True):
        assert (np.asarray(one) == np.asarray(many)[0]).all()


@pytest.mark.parametrize("dt", [0.0, -0.1, 6.0])
def test_step_above_the_shortest_time_constant_is_refused(dt):
    with pytest.raises(ValueError, match=f"dt={dt} ms"):
        Network(dt=dt)
