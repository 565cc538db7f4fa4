"""Sizes of the published networks, pooling, and where gradients may not go."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from synscale_jax.models.convnet import (
    CNN,
    CNN2,
    FCN,
    SIMPLE,
    SIMPLE_CIFAR,
    DropoutCNN,
    HebbNet,
    LightCNN,
    Readout,
    max_pool,
)

MNIST, CIFAR = (1, 28, 28, 1), (1, 32, 32, 3)


@pytest.mark.parametrize(
    ("model", "shape", "parameters"),
    [
        (LightCNN(CNN, 10), MNIST, 28_938),
        (LightCNN(CNN, 10), CIFAR, 34_538),
        (LightCNN(CNN2, 10), MNIST, 4_010),
        (LightCNN(CNN2, 10), CIFAR, 5_354),
        (FCN((8, 8), 10), MNIST, 6_442),
        (FCN((8, 8), 10), CIFAR, 24_746),
        (DropoutCNN(SIMPLE, 10), MNIST, 21_840),
        (DropoutCNN(SIMPLE_CIFAR, 10, "alignment"), CIFAR, 117_008),
    ],
)
def test_parameters_are_as_many_as_published(model, shape, parameters):
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == parameters


def test_pooling_is_flax_pooling():
    x = jax.random.normal(jax.random.key(0), (2, 7, 6, 3))
    weights = jax.random.normal(jax.random.key(1), (2, 3, 3, 3))

    def loss(pool, x):
        return jnp.vdot(pool(x), weights)

    def theirs(x):
        return nn.max_pool(x, (2, 2), (2, 2))

    np.testing.assert_array_equal(max_pool(x), theirs(x))
    np.testing.assert_array_equal(jax.grad(loss, 1)(max_pool, x), jax.grad(loss, 1)(theirs, x))


def test_no_gradient_enters_local_layers():
    model, x = HebbNet((6, 5), (4,), 3), jax.random.normal(jax.random.key(0), (8, 7))
    params = model.init(jax.random.key(1), x)
    grads = jax.grad(lambda p: jnp.square(model.apply(p, x)).sum())(params)["params"]
    assert all(not grads[f"hebb{i}"]["kernel"].any() for i in range(2))
    assert all(grads[name]["kernel"].any() for name in ("readout0", "head"))


def test_initial_weights_are_pytorchs():
    x = jnp.ones((1, 400))
    params = FCN((2000,), 10).init(jax.random.key(0), x)["params"]["dense0"]
    for leaf in (params["kernel"], params["bias"]):
        assert 0.99 / 20 < float(jnp.abs(leaf).max()) <= 1 / 20
        assert float(leaf.std()) == pytest.approx(1 / 20 / 3**0.5, rel=0.05)


def test_dropout_is_for_training_alone():
    model, x = DropoutCNN(SIMPLE, 10), jax.random.normal(jax.random.key(0), (2, 28, 28, 1))
    params = model.init(jax.random.key(1), x)
    once, again = (
        model.apply(params, x, train=True, rngs={"dropout": jax.random.key(k)}) for k in (2, 3)
    )
    assert jnp.abs(once - again).max() > 1e-3
    np.testing.assert_array_equal(model.apply(params, x), model.apply(params, x))


def test_readout_of_units_with_bias_starts_as_relu():
    x = jax.random.normal(jax.random.key(0), (4, 6))
    model = Readout(3, unit_bias="relu")
    variables = model.init(jax.random.key(1), x)
    plain = Readout(3).apply({"params": {"head": variables["params"]["head"]}}, nn.relu(x))
    np.testing.assert_allclose(model.apply(variables, x), plain, rtol=1e-6)


@pytest.mark.parametrize(
    "model", [LightCNN(CNN2, 10), FCN((8,), 10), HebbNet((6,), (5,), 10), DropoutCNN(SIMPLE, 10)]
)
def test_layer_table_names_every_kernel(model):
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(MNIST))["params"]
    table = model.layer_table()
    assert {layer.name for layer in table} == set(shapes)
    assert [layer.output for layer in table] == [False] * (len(table) - 1) + [True]
    for layer in table:
        assert (layer.bias is not None) == ("bias" in shapes[layer.name])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Readout(3, feedback="direct"), "feedback='direct'"),
        (lambda: Readout(3, unit_bias="foo"), "unit_bias='foo'"),
        (lambda: DropoutCNN(SIMPLE, 10, "foo"), "feedback='foo'"),
        (lambda: FCN((8,), 10, "foo"), "activation='foo'"),
        (lambda: HebbNet((8,), (), 10, "foo"), "activation='foo'"),
    ],
)
def test_unknown_names_are_refused_at_once(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        (LightCNN(CNN, 10), (1, 3, 28, 1), "too small for conv1"),
        (DropoutCNN(SIMPLE, 10), (1, 12, 12, 1), "too small for conv1"),
        (LightCNN(CNN2, 10), (1, 784), "takes images"),
    ],
)
def test_images_that_no_block_can_pool_are_refused(model, shape, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape))
