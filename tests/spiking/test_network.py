"""The event-driven path against the plain step, and both against Brian 2."""

import dataclasses
import importlib
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from synscale_jax import spiking
from synscale_jax.spiking import (
    LIF,
    STDP,
    Network,
    batched,
    encoding,
    learning_rates,
    neurons,
    training,
)
from synscale_jax.training.runs import RunError
from synscale_jax.training.spiking_runs import load_state, save_state

network_module = importlib.import_module("synscale_jax.spiking.network")

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
    @jax.jit
    def present(state, raster, rates):
        def one(state, inputs):
            return spiking.step(SMALL, state, inputs, rates, decay=decay == "continuous")

        return jax.lax.scan(one, state, raster)

    with jax.enable_x64(True):
        state, fired = recorded_network(brian, jnp.float64), []
        for slot in (0, 1):
            state = begin(state)
            rates = learning_rates(SMALL, slot, jnp.float64)
            raster = jnp.asarray(brian["raster"][6000 * slot : 6000 * (slot + 1)])
            state, spikes = present(state, raster, rates)
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


@both_paths
def test_float32_spike_totals_stay_within_two_percent(brian, native):
    state, total = recorded_network(brian, jnp.float32), 0
    for slot in (0, 1):
        spikes = encoding.spikes_from_raster(brian["raster"][6000 * slot : 6000 * (slot + 1)])
        state, counts = spiking.run(
            SMALL, begin(state), spikes, 6000, learning_rates(SMALL, slot), native=native
        )
        total += int(counts.sum())
    recorded = len(brian["none_excitatory_step"]) + len(brian["none_inhibitory_step"])
    assert abs(total - recorded) <= 0.02 * recorded


@both_paths
def test_step_seventy_million_is_as_step_zero(brian, native):
    spikes = encoding.spikes_from_raster(brian["raster"][:6000])
    network = dataclasses.replace(SMALL, decay="continuous")
    outcomes = []
    for start in (0, 70_000_000):
        state = spiking.initial_state(
            network, jax.random.key(0), weights=brian["weights"], start=start
        )
        after, counts = spiking.run(
            network, state, spikes, 6000, learning_rates(network, 0), decay=True, native=native
        )
        assert int(after.step) == start + 6000
        outcomes.append((after.weights, after.neurons.membrane_potential, counts))
    for early, late in zip(*outcomes, strict=True):
        assert (early == late).all()


PICTURES = Network(inputs=30, classes=2, neurons_per_class=3, active=60.0, rest=20.0)


def pictures(count=4):
    rng = np.random.default_rng(0)
    return rng.uniform(0, 300, (count, 30)).astype(np.float32), np.arange(count) % 2


@both_paths
def test_training_in_parts_is_training_at_once(native):
    rates, slots = pictures()
    start = spiking.initial_state(PICTURES, jax.random.key(0))
    key = jax.random.key(1)
    whole, counts = spiking.train(PICTURES, start, rates, slots, key, native=native)
    first, some = spiking.train(PICTURES, start, rates[:2], slots[:2], key, native=native)
    second, more = spiking.train(PICTURES, first, rates[2:], slots[2:], key, native=native)
    assert (whole.weights == second.weights).all() and int(counts[:, :6].sum()) > 5
    assert (np.concatenate([some, more]) == np.asarray(counts)).all()


@both_paths
def test_nothing_is_lost_to_nan_under_ten_times_the_drive(native):
    rates, slots = pictures()
    state = spiking.initial_state(PICTURES, jax.random.key(0))
    state, _ = spiking.train(PICTURES, state, rates * 10, slots, jax.random.key(1), native=native)
    leaves = [leaf for leaf in jax.tree.leaves(state) if leaf.dtype == jnp.float32]
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in leaves)
    assert float(state.weights.min()) >= 0 and float(state.weights.max()) <= np.float32(0.05)


def test_more_input_spikes_than_a_block_holds_are_not_dropped(monkeypatch):
    rates, _ = pictures(2)
    start = spiking.initial_state(PICTURES, jax.random.key(0))
    frozen = np.full(2, -1)
    state, _ = spiking.train(PICTURES, start, rates * 3, frozen, jax.random.key(1))
    monkeypatch.setattr(training, "BLOCK", 16)
    training._present.clear_cache()
    small, _ = spiking.train(PICTURES, start, rates * 3, frozen, jax.random.key(1))
    training._present.clear_cache()
    seen = np.asarray(small.last_input)
    assert (seen >= 0).all() and seen.max() > 800 + 500  # up to the end of the second image
    assert abs(float(small.presynaptic_trace.sum() / state.presynaptic_trace.sum()) - 1) < 0.5


def test_batched_counts_do_not_depend_on_the_batch_and_match_one_by_one():
    rates, _ = pictures(20)
    state = spiking.initial_state(PICTURES, jax.random.key(0), weights=np.full((30, 6), 0.04))
    key = jax.random.key(2)
    together = spiking.count_spikes_batched(PICTURES, state, rates, key)
    alone = spiking.count_spikes_batched(PICTURES, state, rates, key, batch=1)
    assert (np.asarray(together) == np.asarray(alone)).all()
    _, sequential = spiking.count_spikes(PICTURES, state, rates, key)
    ratio = int(together.sum()) / int(sequential.sum())
    assert 0.8 < ratio < 1.2


def test_batched_spikes_equal_the_plain_step_on_the_same_input():
    rates, _ = pictures(1)
    state = spiking.initial_state(PICTURES, jax.random.key(0), weights=np.full((30, 6), 0.05))
    key = jax.random.key(2)
    counts = spiking.count_spikes_batched(PICTURES, state, rates, key)[0]
    steps, who, complete = batched._draw(PICTURES, jnp.asarray(rates), jnp.arange(1), key, 2048)
    assert bool(complete)
    raster = np.zeros((601, 31), bool)
    raster[np.asarray(steps[0]), np.asarray(who[0])] = True
    cells = neurons.initial_state(PICTURES.population, 12, potential=-60.0)
    state = state._replace(neurons=cells)
    frozen = learning_rates(PICTURES, -1)
    _, fired = jax.lax.scan(
        lambda s, x: spiking.step(PICTURES, s, x, frozen), state, jnp.asarray(raster[:600, :30])
    )
    assert (np.asarray(fired).sum(0) == np.asarray(counts)).all() and int(counts.sum()) > 5


def test_inhibition_spares_its_own_neuron():
    state = spiking.initial_state(PICTURES, jax.random.key(0))
    fired = jnp.zeros(12, bool).at[6].set(True)  # the first neuron's partner
    arriving = network_module.send(PICTURES, state, state.step, fired).sum(0)
    np.testing.assert_allclose(arriving[:6], [0, *[0.5] * 5])
    assert float(jnp.abs(arriving[6:]).max()) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"threshold": "sometimes"}, "threshold='sometimes'"),
        ({"decay_time": -1.0}, "decay_time=-1.0"),
        ({"inputs": 0}, "inputs=0"),
        ({"rule": STDP(g_max=0.0)}, "positive g_max"),
        ({"others_rate": -1.0}, "others_rate=-1.0"),
        ({"inhibitory": LIF(rest=np.full(30, -60.0))}, r"inhibitory.rest has shape \(30,\)"),
    ],
)
def test_what_is_no_network_is_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        Network(**arguments)


def test_weights_outside_their_bounds_are_refused():
    for weights, said in (
        (np.full((30, 6), 0.06), "reach from 0.06"),
        (np.full((30, 6), -0.01), "reach from -0.01"),
        (np.zeros((6, 30)), r"shape \(6, 30\)"),
    ):
        with pytest.raises(ValueError, match=said):
            spiking.initial_state(PICTURES, jax.random.key(0), weights=weights)


def test_bad_training_input_is_refused():
    rates, slots = pictures()
    state = spiking.initial_state(PICTURES, jax.random.key(0))
    key = jax.random.key(0)
    for bad, chosen, said in (
        (rates, slots + 5, "slots reach"),
        (rates, slots[:2], "as many slots"),
        (rates[:0], slots[:0], "no images"),
        (-rates, slots, "rates reach"),
    ):
        with pytest.raises(ValueError, match=said):
            spiking.train(PICTURES, state, bad, chosen, key)
    late = state._replace(step=jnp.int32(2**31 - 10))
    with pytest.raises(ValueError, match="int32"):
        spiking.train(PICTURES, late, rates, slots, key)


def test_a_damaged_state_is_one_sentence(tmp_path):
    path = tmp_path / "state.npz"
    save_state(path, spiking.initial_state(PICTURES, jax.random.key(0)), done=1)
    assert int(load_state(path)[1]["done"]) == 1
    whole = path.read_bytes()
    middle = len(whole) // 2
    for broken in (whole[:middle], whole[:middle] + b"?" + whole[middle + 1 :], b""):
        path.write_bytes(broken)
        with pytest.raises(RunError, match=r"is damaged.*delete it and give"):
            load_state(path)


@pytest.mark.parametrize("native", paths())
def test_the_state_of_another_network_is_refused(native):
    other = dataclasses.replace(SMALL, neurons_per_class=5)
    state = spiking.initial_state(other, jax.random.key(0))
    with pytest.raises(ValueError, match="is of another network"):
        training.train(SMALL, state, np.ones((1, 60)), [0], jax.random.key(0), native=native)
    with pytest.raises(ValueError, match="is of another network"):
        batched.count_spikes_batched(SMALL, state, np.ones((1, 60)), jax.random.key(0))


@pytest.mark.parametrize("native", paths())
def test_spikes_need_no_padding(native):
    spikes = encoding.InputSpikes(jnp.array([0, 3, 5]), jnp.array([0, 1, 2]), jnp.int32(3))
    state = spiking.initial_state(SMALL, jax.random.key(0))
    after, _ = training.run(SMALL, state, spikes, 20, learning_rates(SMALL, 0), native=native)
    assert int(after.step) == 20


@pytest.mark.skipif(spiking.engine() == "jax", reason="no C++ compiler here")
@pytest.mark.parametrize(
    ("steps", "inputs", "told"),
    [([5, 3, 0], [0, 1, 2], "order"), ([0, 1, 2], [0, 1, 60], "not there")],
)
def test_spikes_that_would_be_read_or_written_elsewhere_are_refused(steps, inputs, told):
    spikes = encoding.InputSpikes(jnp.array(steps), jnp.array(inputs), jnp.int32(3))
    state = spiking.initial_state(SMALL, jax.random.key(0))
    with pytest.raises(Exception, match=told):
        after = training.run(SMALL, state, spikes, 20, learning_rates(SMALL, 0), native=True)
        jax.block_until_ready(after)
