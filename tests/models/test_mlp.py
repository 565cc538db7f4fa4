import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from synscale_jax.models import MLP


def num_params(model, shape):
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape))
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize(
    ("features", "classes", "shape", "count"),
    [
        ((1024,), 10, (1, 28, 28, 1), 814_090),
        ((1024,), 10, (1, 32, 32, 3), 3_157_002),
        ((1024,), 100, (1, 32, 32, 3), 3_249_252),
        ((1024, 1024), 10, (1, 784), 1_863_690),
        ((), 3, (1, 4), 15),
    ],
)
def test_parameter_counts(features, classes, shape, count):
    assert num_params(MLP(features, classes), shape) == count


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "tanh", "sigmoid"])
def test_logits_are_the_formula(activation):
    model = MLP((5, 4), 3, activation=activation)
    x = jax.random.normal(jax.random.key(1), (6, 2, 2, 2))
    params = model.init(jax.random.key(0), x)["params"]
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)  # biases that are not zero

    phi = getattr(jax.nn, activation)
    h = np.asarray(x).reshape(6, 8)
    for name in ("dense0", "dense1"):
        h = np.asarray(phi(h @ params[name]["kernel"] + np.asarray(params[name]["bias"])[None]))
    want = h @ params["head"]["kernel"] + np.asarray(params["head"]["bias"])[None]

    np.testing.assert_allclose(model.apply({"params": params}, x), want, rtol=1e-5, atol=1e-6)


def test_train_changes_nothing():
    model, x = MLP((5,), 3), jnp.ones((2, 4))
    variables = model.init(jax.random.key(0), x)
    np.testing.assert_array_equal(
        model.apply(variables, x, train=True), model.apply(variables, x, train=False)
    )


def test_unknown_activation_is_named_at_construction():
    with pytest.raises(ValueError, match="'rulu'"):
        MLP((5,), 3, activation="rulu")
    with pytest.raises(ValueError, match=r"is no name, by which a run is known: use one of relu"):
        MLP((5,), 3, activation=jax.nn.relu)  # pyright: ignore


def test_computes_in_dtype_and_keeps_params_in_param_dtype():
    model = MLP((5,), 3, dtype=jnp.bfloat16, param_dtype=jnp.float32)
    x = jnp.ones((2, 4))
    variables = model.init(jax.random.key(0), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    assert model.apply(variables, x).dtype == jnp.bfloat16


def test_kernel_init_reaches_every_kernel():
    model = MLP((5,), 3, kernel_init=jax.nn.initializers.constant(0.5))
    params = model.init(jax.random.key(0), jnp.ones((2, 4)))["params"]
    for path, leaf in flatten_dict(params).items():
        np.testing.assert_array_equal(leaf, 0.5 if path[-1] == "kernel" else 0.0)


def test_layer_table_covers_every_kernel_once_in_call_order():
    model = MLP((5, 4), 3, activation="tanh")
    params = flatten_dict(model.init(jax.random.key(0), jnp.ones((2, 6)))["params"])
    table = model.layer_table()
    assert [layer.name for layer in table] == ["dense0", "dense1", "head"]
    assert {(*layer.path, layer.kernel) for layer in table} == {
        path for path in params if path[-1] == "kernel"
    }
    assert all((*layer.path, layer.bias) in params for layer in table)
    assert [layer.output for layer in table] == [False, False, True]
    assert {layer.activation for layer in table} == {"tanh"}
