"""What a user may get wrong with synscaw, and the one sentence that says so."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import synscale_jax as ss

PARAMS = {"dense": {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)}}


def update(transform, params=PARAMS, **extra):
    return transform.update(optax.tree.zeros_like(params), transform.init(params), params, **extra)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"scaling_rate": -0.1}, "scaling_rate=-0.1"),
        ({"scaling_rate": float("nan")}, "scaling_rate=nan"),
        ({"scaling_rate": "0.1"}, "scaling_rate='0.1'"),
        ({"scaling_rate": None}, "scaling_rate=None"),
        ({"target": "noise"}, "target='noise'.*layer_noise"),
        ({"target": float("nan")}, "target=nan.*a number"),
        ({"target": None}, "target=None.*a number"),
        ({"layers": ()}, r"layers=\(\) scales nothing"),
        (
            {"measured_on": "noise", "norm_reading": "batch_norm"},
            "norm_reading='batch_norm'.*noise",
        ),
        ({"target": np.array([0.1, 0.2])}, r"target of shape \(2,\).*one number"),
        ({"layers": ["dense"]}, "layers= holds 'dense'.*layer_table"),
        ({"measured_on": "data"}, "measured_on='data'.*batch"),
        ({"granularity": "unit"}, "granularity='unit'.*neuron"),
        ({"norm_reading": "post"}, "norm_reading='post'.*pre_norm"),
        ({"every_k": 0}, "every_k=0"),
        ({"every_k": 2.5}, "every_k=2.5"),
        ({"clip": -1.0}, "clip=-1.0"),
        ({"max_relative_change": float("nan")}, "max_relative_change=nan"),
        ({"clip": 1.0, "max_relative_change": 0.1}, "give one of them"),
        ({"noise_batch": 0}, "noise_batch=0"),
        ({"activation": "relU"}, "activation='relU'.*relu"),
        ({"scale_output": False}, "layers="),
        ({"scale_output": False, "layers": [ss.Layer(("a",))]}, "layers= a table with one Layer"),
        ({"layers": [ss.Layer(("head",), output=True)]}, "but the output, head.*scale_output=True"),
    ],
)
def test_settings_are_refused_at_once(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ss.synscaw(**kwargs)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({}, "activity=activity.*apply_gradients.*MultiSteps"),
        ({"activity": {"head": jnp.zeros(2)}}, "no entry for layer 'dense'.*head"),
        ({"activity": {"dense": jnp.zeros(3)}}, r"shape \(3,\).*neurons of shape \(2,\)"),
        ({"activity": {"dense": jnp.zeros((5, 2))}}, r"shape \(5, 2\).*mean"),
    ],
)
def test_wrong_or_missing_activity(extra, message):
    with pytest.raises(ValueError, match=message):
        update(ss.synscaw(), **extra)


def test_missing_params():
    transform = ss.synscaw()
    with pytest.raises(ValueError, match=r"update\(updates, state, params"):
        transform.update(PARAMS, transform.init(PARAMS), activity={"dense": jnp.zeros(2)})


def test_noise_readings_never_ask_for_activity():
    update(ss.synscaw(measured_on="noise", target=0.1))


def test_a_bias_hidden_by_masked_is_refused_where_it_matters():
    kernels = {"dense": {"kernel": True, "bias": False}}
    activity = {"dense": jnp.zeros(2)}
    with pytest.raises(ValueError, match=r"bias of layer 'dense' is hidden.*mask="):
        update(optax.masked(ss.synscaw(target="layer_noise"), kernels), activity=activity)
    update(optax.masked(ss.synscaw(target=0.1), kernels), activity=activity)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"embed": {"embedding": jnp.ones((3, 2))}}, "no leaf called 'kernel'.*embed/embedding"),
        ({"q": {"kernel": jnp.ones((3, 2, 2)), "bias": jnp.ones((2, 2))}}, "DenseGeneral"),
        ({"q": {"kernel": jnp.ones((3, 2, 2))}}, "DenseGeneral or a one-dimensional"),
        ({"q": {"kernel": jnp.ones(3)}}, "is no matrix"),
    ],
)
def test_parameters_whose_neurons_cannot_be_told(params, message):
    with pytest.raises(ValueError, match=message):
        ss.synscaw().init(params)


def test_a_layer_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(ValueError, match=r"'hidden' has no leaf 'kernel'.*dense/kernel"):
        ss.synscaw(layers=[ss.Layer(("hidden",))]).init(PARAMS)


def test_a_bias_that_is_not_there_is_told_from_a_hidden_one():
    params = {"dense": {"kernel": jnp.ones((3, 2))}}
    with pytest.raises(ValueError, match=r"no leaf 'bias'.*bias=None"):
        update(ss.synscaw(layers=[ss.Layer(("dense",))]), params, activity={"dense": jnp.zeros(2)})


def test_running_norm_needs_statistics():
    layers = [ss.Layer(("dense",), norm=("norm",))]
    params = {**PARAMS, "norm": {"scale": jnp.ones(2), "bias": jnp.zeros(2)}}
    transform = ss.synscaw(layers=layers, norm_reading="running_norm", target="layer_noise")
    with pytest.raises(ValueError, match="batch_stats="):
        update(transform, params, activity={"dense": jnp.zeros(2)})


def test_silent_inputs_need_presynaptic():
    with pytest.raises(ValueError, match="presynaptic="):
        update(ss.synscaw(skip_silent_inputs=True), activity={"dense": jnp.zeros(2)})


def test_flax_variables_with_their_outer_params_are_understood():
    variables = {"params": PARAMS}
    transform = ss.synscaw(0.5, target=0.5, restore_norm=False)
    updates, _ = update(transform, variables, activity={"dense": jnp.zeros(2)})
    assert float(jnp.abs(updates["params"]["dense"]["kernel"]).max()) > 0


def test_a_head_among_the_names():
    params = {"a": PARAMS, "head": PARAMS["dense"]}
    marked = [layer.name for layer in ss.layers_from_names(params, head="a/dense") if layer.output]
    assert marked == ["a/dense"]
    assert not any(layer.output for layer in ss.layers_from_names(params))
    with pytest.raises(
        ValueError, match=r"head='out' is no layer with a kernel: use .*a/dense, head"
    ):
        ss.layers_from_names(params, head="out")


def test_rates_of_numpy_are_rates():
    for make in (
        lambda: ss.synscaw(np.float32(-1)),
        lambda: ss.synscal(jnp.ones((2, 3)), scaling_rate=np.float32(-1)),
        lambda: ss.scaling.use_it_or_lose_it(10.0, threshold=float("nan")),
    ):
        with pytest.raises(ValueError, match="use"):
            make()
    ss.synscaw(0.1, every_k=np.int64(2))


def test_use_it_or_lose_it_names_a_layer_that_is_not_there():
    tx = ss.scaling.use_it_or_lose_it(10.0, layers=[ss.Layer(("typo",))])
    with pytest.raises(ValueError, match="layer 'typo' has no 'kernel' among the parameters"):
        tx.init({"dense": {"kernel": jnp.ones((3, 2))}})
