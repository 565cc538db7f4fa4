"""Collecting activities from nnx models."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import synscale_jax as ss
from synscale_jax.adapters.nnx import call_collecting


class Net(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(3, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.head = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x):
        return self.head(nnx.relu(self.norm(self.hidden(x))))


LAYERS = (ss.Layer(("hidden",), norm=("norm",)), ss.Layer(("head",), output=True))


def test_activity_and_presynaptic():
    model, x = Net(nnx.Rngs(0)), jax.random.normal(jax.random.key(0), (6, 3))
    output, collected = call_collecting(model, x, layers=LAYERS, presynaptic=True)
    np.testing.assert_allclose(
        collected.activity["hidden"], jax.nn.relu(model.hidden(x)).mean(0), rtol=1e-6
    )
    np.testing.assert_allclose(collected.activity["head"], jax.nn.relu(output).mean(0), rtol=1e-6)
    np.testing.assert_array_equal(collected.presynaptic["hidden"], x)
    assert type(model.hidden) is nnx.Linear


def test_behind_the_norm():
    model, x = Net(nnx.Rngs(0)), jax.random.normal(jax.random.key(0), (6, 3))
    _, collected = call_collecting(model, x, layers=LAYERS, norm_reading="batch_norm")
    hidden = model.hidden(x)
    normed = (hidden - hidden.mean(0)[None]) / jnp.sqrt(hidden.var(0) + 1e-5)[None]
    np.testing.assert_allclose(collected.activity["hidden"], jax.nn.relu(normed).mean(0), rtol=1e-4)


def test_modules_are_put_back_after_an_error():
    model = Net(nnx.Rngs(0))
    with pytest.raises(TypeError):
        call_collecting(model, jnp.ones((6, 5)), layers=LAYERS)
    assert type(model.hidden) is nnx.Linear


@pytest.mark.parametrize("transform", [nnx.jit, lambda f: f])
def test_optimizer_scales_with_the_activity(transform):
    model, x = Net(nnx.Rngs(0)), jax.random.normal(jax.random.key(0), (6, 3))
    optimizer = nnx.Optimizer(
        model, optax.chain(optax.sgd(0.0), ss.synscaw(0.5, layers=LAYERS)), wrt=nnx.Param
    )

    @transform
    def step(model, optimizer):
        def loss(model):
            output, collected = call_collecting(model, x, layers=LAYERS)
            return jnp.square(output).mean(), collected.activity

        (_, activity), grads = nnx.value_and_grad(loss, has_aux=True)(model)
        optimizer.update(model, grads, activity=activity)

    before = jax.tree.map(jnp.array, nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    step(model, optimizer)
    after = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    assert float(jnp.abs(after["hidden"]["kernel"] - before["hidden"]["kernel"]).max()) > 0
    np.testing.assert_array_equal(after["hidden"]["bias"], before["hidden"]["bias"])
    np.testing.assert_array_equal(after["norm"]["scale"], before["norm"]["scale"])


def test_a_tied_layer_is_told():
    class Tied(nnx.Module):
        def __init__(self, rngs):
            self.shared = nnx.Linear(3, 3, rngs=rngs)

        def __call__(self, x):
            return self.shared(self.shared(x))

    with pytest.raises(ValueError, match="'shared' was called 2 times"):
        call_collecting(Tied(nnx.Rngs(0)), jnp.ones((2, 3)), layers=[ss.Layer(("shared",))])
