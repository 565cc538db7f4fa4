"""Collecting activities from linen models, and deriving their layer tables."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import synscale_jax as ss
from synscale_jax.adapters.linen import ScalingTrainState, apply_collecting, layers_of
from synscale_jax.models import MLP, FeedbackConv, FeedbackDense, FeedbackMLP, cifar_resnet


def test_activity_is_the_mean_of_phi_over_batch_and_positions():
    model = nn.Sequential(
        [nn.Conv(3, (3, 3)), nn.relu, lambda x: x.reshape(len(x), -1), nn.Dense(2)]
    )
    x = jax.random.normal(jax.random.key(0), (4, 6, 6, 2))
    layers = layers_of(model, x, activation="tanh", head="layers_3", verbose=False)
    variables = model.init(jax.random.key(1), x)
    logits, _, collected = apply_collecting(model, variables, x, layers=layers, presynaptic=True)
    conv = nn.Conv(3, (3, 3)).apply({"params": variables["params"]["layers_0"]}, x)
    np.testing.assert_allclose(
        collected.activity["layers_0"], jnp.tanh(conv).mean((0, 1, 2)), rtol=1e-6
    )
    np.testing.assert_allclose(collected.activity["layers_3"], jnp.tanh(logits).mean(0), rtol=1e-6)
    np.testing.assert_array_equal(collected.presynaptic["layers_0"], x)
    np.testing.assert_allclose(
        collected.presynaptic["layers_3"], jax.nn.relu(conv).reshape(4, -1), rtol=1e-6
    )


def test_output_and_gradient_are_those_of_a_plain_apply():
    model = MLP((8,), 3)
    x = jax.random.normal(jax.random.key(0), (5, 4))
    variables = model.init(jax.random.key(1), x)
    layers = model.layer_table()

    def collecting(variables):
        logits, _, collected = apply_collecting(model, variables, x, layers=layers)
        return jnp.square(logits).mean() + 100 * collected.activity["dense0"].sum()

    def plain(variables):
        return jnp.square(model.apply(variables, x)).mean()

    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(a, b),
        jax.grad(collecting)(variables),
        jax.grad(plain)(variables),
    )


@pytest.mark.parametrize("reading", ["pre_norm", "batch_norm", "running_norm"])
def test_normalised_layers_are_read_where_the_reading_says(reading):
    model = cifar_resnet(8, 10, width=4)
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    variables = jax.jit(lambda: model.init(jax.random.key(1), x, train=False))()
    _, changed, collected = apply_collecting(
        model, variables, x, layers=model.layer_table(), norm_reading=reading,
        mutable="batch_stats", train=True,
    )  # fmt: skip
    conv = nn.Conv(4, (3, 3), padding=1, use_bias=False).apply(
        {"params": variables["params"]["conv_stem"]}, x
    )
    if reading != "pre_norm":
        mean, var = conv.mean((0, 1, 2)), conv.var((0, 1, 2))
        conv = (conv - mean[None, None, None]) / jnp.sqrt(var + 1e-5)[None, None, None]
    expected = jax.nn.relu(conv).mean((0, 1, 2))
    np.testing.assert_allclose(collected.activity["conv_stem"], expected, rtol=1e-4)
    assert "batch_stats" in changed


def test_a_single_layer_is_told_to_be_wrapped():
    model, x = nn.Dense(3), jnp.ones((2, 4))
    layers = layers_of(model, x, verbose=False)
    with pytest.raises(ValueError, match=r"nn.Sequential\(\[layer\]\)"):
        apply_collecting(model, model.init(jax.random.key(0), x), x, layers=layers)


def test_layers_of_equals_our_models_own_tables():
    model = cifar_resnet(14, 10, width=4)
    x = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)
    derived = layers_of(model, x, head="head", verbose=False, train=False)
    assert {layer.path: layer for layer in derived} == {
        layer.path: layer for layer in model.layer_table()
    }


def test_layers_with_feedback_are_those_of_flax():
    def net(conv, dense):
        return nn.Sequential([conv(3, (3, 3)), nn.relu, lambda x: x.reshape(len(x), -1), dense(2)])

    x = jax.ShapeDtypeStruct((2, 6, 6, 1), jnp.float32)
    ours, plain = (
        layers_of(net(*kinds), x, head="layers_3", verbose=False)
        for kinds in ((FeedbackConv, FeedbackDense), (nn.Conv, nn.Dense))
    )
    assert ours == plain and len(ours) == 2
    model = FeedbackMLP((5,), 3)
    assert layers_of(model, x, head="head", verbose=False) == model.layer_table()


class Tied(nn.Module):
    @nn.compact
    def __call__(self, x):
        dense = nn.Dense(3, name="shared")
        return dense(dense(x))


class PreActivation(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Dense(3)(x) + x
        return nn.BatchNorm(use_running_average=True, name="odd")(x)


class Odd(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x @ self.param("kernel", nn.initializers.ones, (3, 3))


@pytest.mark.parametrize(
    ("model", "kwargs", "message"),
    [
        (Tied(), {}, "'shared' is called twice"),
        (PreActivation(), {}, "normalisation 'odd' is not called on the output of one"),
        (nn.Sequential([Odd()]), {}, "unknown kind"),
        (nn.Sequential([nn.Dense(3)]), {"head": "top"}, "head='top' is not among.*layers_0"),
    ],
)
def test_models_without_a_clear_table_are_refused_by_name(model, kwargs, message):
    with pytest.raises(ValueError, match=message):
        layers_of(model, jnp.ones((2, 3)), verbose=False, **kwargs)


def test_attention_embedding_and_depthwise_kernels(capsys):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, tokens):
            x = nn.Embed(7, 8, name="embed")(tokens)
            x = nn.MultiHeadDotProductAttention(2, name="attention")(x)
            x = nn.Conv(16, (3,), feature_group_count=8, name="depthwise")(x)
            return nn.Dense(3, name="head")(x)

    tokens = jnp.zeros((2, 5), jnp.int32)
    model = Net()
    layers = layers_of(model, tokens, head="head")
    printed = capsys.readouterr().out
    assert "embed  embedding, not scaled" in printed
    axes = {layer.name: layer.axes.post for layer in layers}
    assert axes["attention/query"] == (-2, -1) and axes["attention/out"] == -1
    assert axes["depthwise"] == -1
    variables = model.init(jax.random.key(0), tokens)
    _, _, collected = apply_collecting(model, variables, tokens, layers=layers)
    assert collected.activity["attention"]["query"].shape == (2, 4)
    tx = ss.synscaw(0.1, layers=layers)
    params = variables["params"]
    updates, _ = tx.update(
        optax.tree.zeros_like(params), tx.init(params), params, activity=collected.activity
    )
    assert float(jnp.abs(updates["attention"]["query"]["kernel"]).max()) > 0
    assert float(jnp.abs(updates["embed"]["embedding"]).max()) == 0


def test_a_layer_that_is_not_called_is_told():
    model = MLP((4,), 2)
    x = jnp.ones((2, 3))
    variables = model.init(jax.random.key(0), x)
    with pytest.raises(ValueError, match="'nowhere' was called 0 times"):
        apply_collecting(model, variables, x, layers=[ss.Layer(("nowhere",))])


def test_train_state_hands_activity_on():
    model = MLP((4,), 2)
    x = jnp.ones((2, 3))
    layers = model.layer_table()
    variables = model.init(jax.random.key(0), x)
    state = ScalingTrainState.create(
        apply_fn=model.apply, params=variables["params"], tx=ss.synscaw(0.5, layers=layers)
    )
    _, _, collected = apply_collecting(model, variables, x, layers=layers)
    grads = optax.tree.zeros_like(state.params)
    moved = state.apply_gradients(grads=grads, extra={"activity": collected.activity})
    assert int(moved.step) == 1
    assert (
        float(jnp.abs(moved.params["dense0"]["kernel"] - state.params["dense0"]["kernel"]).max())
        > 0
    )
    with pytest.raises(ValueError, match="apply_gradients"):
        state.apply_gradients(grads=grads)
