"""Local rules in optax chains, fed by the collectors."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx

import synscale_jax as ss
from synscale_jax.adapters.linen import apply_collecting, layers_of
from synscale_jax.adapters.nnx import call_collecting
from synscale_jax.plasticity import hebb, krotov_hopfield, local_learning, oja


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = jax.lax.stop_gradient(nn.relu(nn.Dense(5, use_bias=False, name="hidden")(x)))
        return nn.Dense(3, name="head")(x)


@pytest.fixture
def problem():
    x = jax.random.normal(jax.random.key(0), (8, 4))
    model = Net()
    params = model.init(jax.random.key(1), x)["params"]
    layers = layers_of(model, x, head="head", verbose=False)
    return model, params, layers, x


def step(model, params, layers, x, optimizer, state):
    def loss_fn(params):
        logits, _, seen = apply_collecting(
            model, {"params": params}, x, layers=layers, presynaptic=True, postsynaptic=True
        )
        return jnp.square(logits).mean(), seen

    grads, seen = jax.grad(loss_fn, has_aux=True)(params)
    updates, state = optimizer.update(
        grads, state, params, presynaptic=seen.presynaptic, postsynaptic=seen.postsynaptic
    )
    return optax.apply_updates(params, updates), state


def test_hidden_layer_learns_by_its_rule_and_the_head_by_gradient(problem):
    model, params, layers, x = problem
    optimizer = optax.chain(optax.adam(0.1), local_learning({"hidden": hebb(0.5)}, layers=layers))
    alone = optax.adam(0.1)
    new, _ = step(model, params, layers, x, optimizer, optimizer.init(params))
    kernel = params["hidden"]["kernel"]
    np.testing.assert_allclose(
        new["hidden"]["kernel"], kernel + 0.5 * x.T @ nn.relu(x @ kernel) / 8, rtol=1e-5
    )
    plain, _ = step(model, params, layers, x, alone, alone.init(params))
    np.testing.assert_array_equal(new["head"]["kernel"], plain["head"]["kernel"])


def test_when_says_in_which_steps(problem):
    model, params, layers, x = problem
    optimizer = local_learning({"hidden": oja(0.1)}, layers=layers, when=lambda count: count == 1)
    state, kernels = optimizer.init(params), [params["hidden"]["kernel"]]
    for _ in range(3):
        params, state = step(model, params, layers, x, optimizer, state)
        kernels.append(params["hidden"]["kernel"])
    moved = [bool(jnp.any(a != b)) for a, b in itertools.pairwise(kernels)]
    assert moved == [False, True, False]
    assert int(state.rules["hidden"].count) == 1 and int(state.count) == 3


def test_competing_units_need_no_postsynaptic():
    params = {"units": {"kernel": jax.random.uniform(jax.random.key(0), (6, 4))}}
    optimizer, x = local_learning(krotov_hopfield(0.1)), jnp.ones((3, 6))
    zero = optax.tree.zeros_like(params)
    updates, _ = optimizer.update(zero, optimizer.init(params), params, presynaptic={"units": x})
    assert float(jnp.abs(updates["units"]["kernel"]).max()) == pytest.approx(0.1)


def test_nnx_collector_feeds_it():
    model = nnx.Linear(4, 3, use_bias=False, rngs=nnx.Rngs(0))
    model = nnx.Sequential(model, nnx.relu)
    layers = ss.layers_from_names(nnx.state(model, nnx.Param))
    x = jax.random.normal(jax.random.key(0), (5, 4))
    output, seen = call_collecting(model, x, layers=layers, presynaptic=True, postsynaptic=True)
    np.testing.assert_array_equal(seen.postsynaptic["layers"]["0"], output)
    np.testing.assert_array_equal(seen.presynaptic["layers"]["0"], x)


def test_refusals(problem):
    _, params, layers, _ = problem
    optimizer = local_learning(hebb(0.1), layers=layers)
    zero = optax.tree.zeros_like(params)
    with pytest.raises(ValueError, match="collector"):
        optimizer.update(zero, optimizer.init(params), params)
    with pytest.raises(ValueError, match="no layer 'dense'"):
        local_learning({"dense": hebb(0.1)}, layers=layers).init(params)
    with pytest.raises(ValueError, match="matrices"):
        local_learning(hebb(0.1)).init({"conv": {"kernel": jnp.ones((3, 3, 1, 2))}})


@pytest.mark.parametrize(
    ("rules", "message"),
    [({}, "learns nothing"), (0.1, "learns nothing"), ({"hidden": 0.1}, "'hidden'.*is no rule")],
)
def test_what_is_no_rule_is_refused_at_once(rules, message):
    with pytest.raises(ValueError, match=message):
        local_learning(rules)
