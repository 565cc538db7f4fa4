"""What comes back through the random weights, and what does not."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from synscale_jax.models.feedback_alignment import (
    FeedbackConv,
    FeedbackDense,
    FeedbackMLP,
    alignment_angles,
    exact_feedback,
)


def gradients(model, variables, x, labels):
    def loss(params):
        logits = model.apply({**variables, "params": params}, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    return jax.grad(loss)(variables["params"])


@pytest.fixture
def batch():
    keys = jax.random.split(jax.random.key(0))
    return jax.random.normal(keys[0], (16, 12)), jax.random.randint(keys[1], (16,), 0, 4)


def models():
    return {
        kind: FeedbackMLP((9, 7), 4, feedback=kind) for kind in ("backprop", "alignment", "direct")
    }


def test_all_three_start_alike_and_differ_on_the_way_back_only(batch):
    x, labels = batch
    variables = {name: m.init(jax.random.key(1), x) for name, m in models().items()}
    grads = {name: gradients(m, variables[name], x, labels) for name, m in models().items()}
    for name in ("alignment", "direct"):
        np.testing.assert_array_equal(
            models()[name].apply(variables[name], x),
            models()["backprop"].apply(variables["backprop"], x),
        )
        for leaf in ("kernel", "bias"):  # the last layer's gradient is backprop's
            np.testing.assert_allclose(
                grads[name]["head"][leaf], grads["backprop"]["head"][leaf], rtol=1e-6, atol=1e-8
            )
        assert (
            jnp.abs(grads[name]["dense0"]["kernel"] - grads["backprop"]["dense0"]["kernel"]).max()
            > 1e-3
        )


def test_gradient_by_hand(batch):
    x, labels = batch
    model = FeedbackMLP((9,), 4, feedback="alignment")
    variables = model.init(jax.random.key(1), x)
    params, B = variables["params"], variables["feedback"]["head"]["kernel"]
    drive = x @ params["dense0"]["kernel"]
    logits = model.apply(variables, x)
    error = (jax.nn.softmax(logits) - jax.nn.one_hot(labels, 4)) / 16
    by_hand = x.T @ ((error @ B.T) * (drive > 0))
    grads = gradients(model, variables, x, labels)
    np.testing.assert_allclose(grads["dense0"]["kernel"], by_hand, rtol=1e-4, atol=1e-6)


def test_direct_gradient_by_hand(batch):
    x, labels = batch
    model = models()["direct"]
    variables = model.init(jax.random.key(1), x)
    error = (jax.nn.softmax(model.apply(variables, x)) - jax.nn.one_hot(labels, 4)) / 16
    drive = x @ variables["params"]["dense0"]["kernel"]
    by_hand = x.T @ ((error @ variables["feedback"]["direct"]["kernel0"].T) * (drive > 0))
    grads = gradients(model, variables, x, labels)
    np.testing.assert_allclose(grads["dense0"]["kernel"], by_hand, rtol=1e-4, atol=1e-6)


def test_own_weights_as_feedback_are_backprop(batch):
    x, labels = batch
    model = models()["alignment"]
    variables = exact_feedback(model.init(jax.random.key(1), x))
    plain = gradients(models()["backprop"], {"params": variables["params"]}, x, labels)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-8),
        gradients(model, variables, x, labels),
        plain,
    )


@pytest.mark.parametrize("strides", [(1, 1), (2, 2)])
def test_convolution_with_its_own_kernel_is_backprop(strides):
    x = jax.random.normal(jax.random.key(0), (2, 7, 7, 3))
    ours = FeedbackConv(4, (3, 3), strides, padding=((1, 1), (1, 1)))
    plain = nn.Conv(4, (3, 3), strides, padding=((1, 1), (1, 1)))
    variables = ours.init(jax.random.key(1), x)
    target = jax.random.normal(jax.random.key(2), ours.apply(variables, x).shape)

    def loss(model, variables, x):
        return jnp.vdot(model.apply(variables, x), target)

    exact = exact_feedback(variables)
    expected = jax.grad(loss, (1, 2))(plain, {"params": variables["params"]}, x)
    found = jax.grad(loss, (1, 2))(ours, exact, x)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        found[0]["params"]["kernel"], expected[0]["params"]["kernel"], rtol=1e-4, atol=1e-4
    )
    random = jax.grad(loss, 2)(ours, variables, x)
    np.testing.assert_allclose(
        random,
        jax.grad(loss, 2)(
            plain, {"params": {**variables["params"], "kernel": variables["feedback"]["kernel"]}}, x
        ),
        rtol=1e-4,
        atol=1e-5,
    )


def test_layer_above_frozen_weights_is_gradient_descent(batch):
    """The published hybrids' feedback alignment on the only trained layer does nothing."""
    x, labels = batch
    ours, plain = FeedbackDense(4), nn.Dense(4)
    variables = ours.init(jax.random.key(1), x)
    a = gradients(ours, variables, x, labels)
    b = gradients(plain, {"params": variables["params"]}, x, labels)
    # To rounding: the two products take their factors in another order, and processors differ.
    np.testing.assert_allclose(a["kernel"], b["kernel"], rtol=1e-5, atol=1e-6)


def test_angles_fall_below_ninety_degrees_and_feedback_stays(batch):
    keys = jax.random.split(jax.random.key(3), 2)
    x = jax.random.normal(keys[0], (256, 12))
    labels = jnp.argmax(x @ jax.random.normal(keys[1], (12, 4)), -1)
    model = FeedbackMLP((32,), 4)
    variables = model.init(jax.random.key(1), x)
    feedback = variables["feedback"]
    optimizer = optax.adam(1e-2)
    state = optimizer.init(variables["params"])

    @jax.jit
    def step(params, state):
        grads = gradients(model, {"params": params, "feedback": feedback}, x, labels)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    def angle(params):
        here = {"params": params, "feedback": feedback}
        exact = gradients(model, exact_feedback(here), x, labels)
        return float(alignment_angles(gradients(model, here, x, labels), exact)["dense0"])

    params, before = variables["params"], angle(variables["params"])
    for _ in range(100):
        params, state = step(params, state)
    assert before > 75
    assert angle(params) < min(75, before - 15)
    assert "feedback" not in variables["params"]


def test_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="feedback='random'"):
        FeedbackMLP((3,), 2, feedback="random")


@pytest.mark.parametrize("kind", ["backprop", "direct"])
def test_only_layers_with_feedback_of_their_own_can_have_it_exact(kind, batch):
    variables = models()[kind].init(jax.random.key(0), batch[0])
    with pytest.raises(ValueError, match="not in place of layers' own"):
        exact_feedback(variables)


@pytest.mark.parametrize(
    ("strides", "padding"), [(2, 1), (None, "VALID"), ((2, 1), (1, 2)), (1, ((0, 1), (2, 0)))]
)
def test_convolution_takes_strides_and_padding_as_flax_does(strides, padding):
    x = jax.random.normal(jax.random.key(0), (2, 7, 8, 3))
    ours = FeedbackConv(4, (3, 3), strides, padding)
    variables = ours.init(jax.random.key(1), x)
    plain = nn.Conv(4, (3, 3), strides, padding)
    expected = plain.apply({"params": variables["params"]}, x)
    np.testing.assert_allclose(ours.apply(variables, x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kernel_size": 3}, "kernel_size=3"),
        ({"strides": (2,)}, r"strides=\(2,\)"),
        ({"padding": "CIRCULAR"}, "padding='CIRCULAR'"),
        ({"padding": (1, 2, 3)}, "sequence of len 2"),
    ],
)
def test_convolutions_not_of_two_dimensions_are_refused(settings, message):
    layer = FeedbackConv(**{"features": 4, "kernel_size": (3, 3), **settings})
    with pytest.raises(ValueError, match=message):
        layer.init(jax.random.key(0), jnp.ones((2, 7, 8, 3)))


@pytest.mark.parametrize(
    ("layer", "shape"), [(FeedbackDense, (2, 5)), (FeedbackConv, (2, 6, 6, 2))]
)
def test_dtypes_are_those_of_flax(layer, shape):
    size = ((3, 3),) if layer is FeedbackConv else ()
    made = layer(4, *size, dtype=jnp.bfloat16, param_dtype=jnp.float16)
    y, variables = made.init_with_output(jax.random.key(0), jnp.ones(shape))
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float16")}
    grads = jax.grad(lambda x: made.apply(variables, x).astype(jnp.float32).sum())(jnp.ones(shape))
    assert grads.dtype == jnp.float32 and bool(jnp.isfinite(grads).all())
