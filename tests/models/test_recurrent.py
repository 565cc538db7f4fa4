import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import synscale_jax as ss
from synscale_jax.adapters.linen import apply_collecting
from synscale_jax.models import RecurrentClassifier
from synscale_jax.models.recurrent import HOIST_FROM, RecurrentLayer

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "recurrent.npz")  # PyTorch 2.13's cells
GATES = {"gru": "rzn", "lstm": "ifgo"}


def from_torch(kind, grad=""):
    """PyTorch's stacked weights under the names of the layer; two biases where one is ours."""
    parts = {
        name: np.split(GOLDEN[f"{kind}_{grad}{name}_l0"], len(GATES[kind]))
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    }
    params = {}
    for index, gate in enumerate(GATES[kind]):
        into, state = {}, {}
        into["kernel"], state["kernel"] = parts["weight_ih"][index].T, parts["weight_hh"][index].T
        both = parts["bias_ih"][index] + (0 if grad else parts["bias_hh"][index])
        if kind == "lstm":
            state["bias"] = both
        elif gate == "n":
            into["bias"], state["bias"] = parts["bias_ih"][index], parts["bias_hh"][index]
        else:
            into["bias"] = both
        params[f"i{gate}"], params[f"h{gate}"] = into, state
    return jax.tree.map(jnp.asarray, params)


@pytest.mark.parametrize("kind", GATES)
def test_states_and_gradients_are_those_of_pytorch(kind):
    layer, x = RecurrentLayer(kind, 4), jnp.asarray(GOLDEN[f"{kind}_x"])
    mask = jnp.ones(x.shape[:2], bool)

    def loss(params, x):
        states, last = layer.apply({"params": params}, x, mask)
        return jnp.sum(states**2), (states, last)

    params = from_torch(kind)
    (grads, into), (states, last) = jax.grad(loss, (0, 1), has_aux=True)(params, x)
    np.testing.assert_allclose(states, GOLDEN[f"{kind}_y"], atol=1e-6)
    np.testing.assert_allclose(last, GOLDEN[f"{kind}_last"], atol=1e-6)
    np.testing.assert_allclose(into, GOLDEN[f"{kind}_dx"], atol=1e-5)
    expected = from_torch(kind, "grad_")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), grads, expected)


@pytest.mark.parametrize(("kind", "cell"), [("gru", nn.GRUCell), ("lstm", nn.OptimizedLSTMCell)])
@pytest.mark.parametrize("inputs", [1, HOIST_FROM])
def test_parameters_are_those_of_flax(kind, cell, inputs):
    x, mask = jax.random.normal(jax.random.key(0), (2, 5, inputs)), jnp.ones((2, 5), bool)
    layer = RecurrentLayer(kind, 3)
    params = layer.init(jax.random.key(1), x, mask)["params"]
    theirs = nn.RNN(cell(3, name="cell"))
    shapes = theirs.init(jax.random.key(1), x)["params"]["cell"]
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, shapes)
    states, _ = layer.apply({"params": params}, x, mask)
    np.testing.assert_allclose(states, theirs.apply({"params": {"cell": params}}, x), atol=1e-6)


def words_model(**more):
    return RecurrentClassifier("gru", 2, hidden=4, vocabulary=9, embedding=5, **more)


def test_padding_changes_neither_logits_nor_activity():
    words = jnp.array([[2, 3, 4], [5, 6, 0]])
    padded = jnp.pad(words, ((0, 0), (0, 4)))
    model = words_model(layers=2)
    params = {"params": model.init(jax.random.key(0), words)["params"]}
    out, _, plain = apply_collecting(model, params, words, layers=model.layer_table())
    same, _, longer = apply_collecting(model, params, padded, layers=model.layer_table())
    np.testing.assert_allclose(out, same, atol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), plain.activity, longer.activity
    )


def test_activity_is_the_mean_state_over_words_that_count():
    words = jnp.array([[2, 3, 4], [5, 0, 0]])
    model = words_model()
    params = {"params": model.init(jax.random.key(0), words)["params"]}
    _, _, collected = apply_collecting(model, params, words, layers=model.layer_table())
    embedded = params["params"]["embedding"]["embedding"][words]
    layer = {"params": params["params"]["layer0"]}
    states, _ = RecurrentLayer("gru", 4).apply(layer, embedded, words != 0)
    expected = (states[0].sum(0) + states[1, 0]) / 4
    for gate in ("ir", "hn"):
        np.testing.assert_allclose(collected.activity["layer0"][gate], expected, atol=1e-6)


def test_a_vocabulary_without_words_is_refused():
    with pytest.raises(ValueError, match=r"vocabulary=9 is for words.*float32"):
        words_model().init(jax.random.key(0), jnp.ones((2, 3)))


def test_where_is_refused_for_cells_which_make_their_own_mean():
    words = jnp.array([[2, 3, 4], [5, 6, 7]])
    model = words_model()
    params = {"params": model.init(jax.random.key(0), words)["params"]}
    with pytest.raises(ValueError, match="leave them out of the batch"):
        apply_collecting(
            model, params, words, layers=model.layer_table(), where=jnp.array([True, False])
        )


def test_synscaw_scales_every_recurrent_kernel_and_no_embedding():
    words = jnp.array([[2, 3, 4], [5, 6, 7]])
    model = words_model()
    params = model.init(jax.random.key(0), words)["params"]
    layers = model.layer_table()
    _, _, collected = apply_collecting(
        model, {"params": params}, words, layers=layers, presynaptic=True
    )
    scaling = ss.synscaw(0.1, layers=layers, restore_norm=False, skip_silent_inputs=True)
    updates, _ = scaling.update(
        optax.tree.zeros_like(params),
        scaling.init(params),
        params,
        activity=collected.activity,
        presynaptic=collected.presynaptic,
    )
    assert all(jnp.any(updates["layer0"][gate]["kernel"]) for gate in params["layer0"])
    assert not jnp.any(updates["embedding"]["embedding"])
    # As defined: gap of a tanh neuron on noise and the cell's mean output, w² times that.
    kernel, bias = params["layer0"]["hn"]["kernel"], params["layer0"]["hn"]["bias"]
    deviation = jnp.sqrt(jnp.sum(kernel**2, 0) / 3)
    gap = ss.scaling.gaussian_mean("tanh", bias, deviation) - collected.activity["layer0"]["hn"]
    np.testing.assert_allclose(
        updates["layer0"]["hn"]["kernel"], 0.1 * kernel**2 * gap[None], atol=1e-6
    )


def test_an_image_is_read_one_pixel_a_step():
    model = RecurrentClassifier("lstm", 3, hidden=4)
    images = jax.random.uniform(jax.random.key(0), (2, 3, 3, 1))
    params = model.init(jax.random.key(1), images)
    swapped = images.at[:, 0, 0].set(images[:, 2, 2]).at[:, 2, 2].set(images[:, 0, 0])
    assert model.apply(params, images).shape == (2, 3)
    assert not np.allclose(model.apply(params, images), model.apply(params, swapped))


def test_an_image_read_by_rows_is_a_sequence_of_its_rows():
    model = RecurrentClassifier("gru", 3, hidden=4, inputs=5)
    images = jax.random.uniform(jax.random.key(0), (2, 6, 5, 1))
    variables = model.init(jax.random.key(1), images)
    assert variables["params"]["layer0"]["ir"]["kernel"].shape == (5, 4)
    _, last = RecurrentLayer("gru", 4).apply(
        {"params": variables["params"]["layer0"]}, images[..., 0], jnp.ones((2, 6), bool)
    )
    head = variables["params"]["head"]
    expected = last @ head["kernel"] + head["bias"][None]
    np.testing.assert_allclose(model.apply(variables, images), expected, atol=1e-6)


def test_bad_settings_are_told():
    with pytest.raises(ValueError, match="cell='rnn' is not known: use one of gru, lstm"):
        RecurrentClassifier("rnn", 2)
    with pytest.raises(ValueError, match="are words, but vocabulary=None"):
        RecurrentClassifier("gru", 2).init(jax.random.key(0), jnp.ones((1, 3), jnp.int32))
    for inputs in (0, 4):
        with pytest.raises(ValueError, match=f"inputs={inputs} does not divide the 6 numbers"):
            RecurrentClassifier("gru", 2, inputs=inputs).init(jax.random.key(0), jnp.ones((1, 6)))
