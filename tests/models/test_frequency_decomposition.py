import jax
import jax.numpy as jnp
import numpy as np
import pytest

from synscale_jax.models import FrequencyDecompositionNetwork
from synscale_jax.models.frequency_decomposition import _Dilated


def test_it_has_the_papers_1_9_million_parameters():
    model = FrequencyDecompositionNetwork(5)
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 512)))["params"]
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert count == 1_937_043
    assert round(count / 1e6, 1) == 1.9


def test_dilated_convolutions_are_numpys():
    x = jax.random.normal(jax.random.key(0), (2, 512))
    dilated = _Dilated()
    params = dilated.init(jax.random.key(1), x)
    found = dilated.apply(params, x)
    assert found.shape == (2, 128, 128, 3)
    kernel = params["params"]["kernel"]
    for dilation in (1, 77, 128):
        taps = np.zeros(dilation + 1)
        taps[0], taps[-1] = kernel[0, dilation - 1, 2], kernel[1, dilation - 1, 2]
        whole = np.correlate(np.asarray(x[1]), taps, "valid")
        np.testing.assert_allclose(found[1, dilation - 1, :, 2], whole[: 3 * 128 : 3], atol=1e-5)


def test_every_parameter_is_reached_and_the_table_names_kernels():
    model = FrequencyDecompositionNetwork(3, widths=(2, 2, 2, 4))
    x = jax.random.normal(jax.random.key(0), (2, 512))
    variables = jax.jit(model.init)(jax.random.key(1), x)

    def loss(params):
        logits, _ = model.apply(
            {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
        )
        return jnp.sum(logits**2)

    grads = jax.jit(jax.grad(loss))(variables["params"])
    kernels = [leaf for path, leaf in jax.tree.leaves_with_path(grads) if "kernel" in str(path[-1])]
    assert all(jnp.any(kernel != 0) for kernel in kernels)
    for layer in model.layer_table():
        assert "kernel" in variables["params"][layer.path[0]]


def test_dropout_acts_in_training_only():
    x = jax.random.normal(jax.random.key(0), (2, 512))
    plain = FrequencyDecompositionNetwork(3, widths=(2, 2, 2, 4))
    dropping = plain.clone(dropout=(0.2, 0.5))
    variables = jax.jit(plain.init)(jax.random.key(1), x)

    @jax.jit
    def train(key):
        rngs = {"dropout": key}
        return dropping.apply(variables, x, train=True, rngs=rngs, mutable=["batch_stats"])[0]

    same = (jax.jit(model.apply)(variables, x) for model in (dropping, plain))
    np.testing.assert_array_equal(*same)
    assert jnp.any(train(jax.random.key(0)) != train(jax.random.key(1)))
    with pytest.raises(ValueError, match=r"dropout=\(0.2, 1.0\) are no rates"):
        plain.clone(dropout=(0.2, 1.0))


def test_a_short_signal_is_refused():
    with pytest.raises(ValueError, match="500 samples are too few: give 510 or more"):
        FrequencyDecompositionNetwork(2).init(jax.random.key(0), jnp.zeros((1, 500)))
