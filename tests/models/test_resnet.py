import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from synscale_jax.models import ResNet, cifar_resnet, resnet34, resnet50


def shapes(model, image=(1, 32, 32, 3)):
    init = lambda key, x: model.init(key, x, train=False)  # noqa: E731
    return jax.eval_shape(init, jax.random.key(0), jnp.zeros(image))


def small(**kwargs):
    kwargs = {"stage_sizes": (1, 1), "num_classes": 3, "width": 4, "stem": "cifar"} | kwargs
    return ResNet(**kwargs)


@pytest.mark.parametrize(
    ("model", "image", "count"),
    [
        (resnet34(10), (1, 32, 32, 3), 21_289_802),
        (resnet34(100), (1, 32, 32, 3), 21_335_972),
        (resnet34(10), (1, 28, 28, 1), 21_283_530),
        (resnet50(1000), (1, 64, 64, 3), 25_557_032),
        (cifar_resnet(32, 10, "zero_pad"), (1, 32, 32, 3), 464_154),
        # a projection adds its kernel and its norm's scale and bias, twice
        (cifar_resnet(32, 10), (1, 32, 32, 3), 464_154 + 16 * 32 + 64 + 32 * 64 + 128),
    ],
)
def test_parameter_counts(model, image, count):
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes(model, image)["params"])) == count


@pytest.mark.parametrize("depth", [8, 14, 20, 26, 32, 44, 56, 110])
def test_depth_counts_the_layers_on_the_longest_path(depth):
    table = cifar_resnet(depth, 10).layer_table()
    assert sum("shortcut" not in layer.name for layer in table) == depth


@pytest.mark.parametrize("depth", [2, 9, 33, -4])
def test_bad_depth_is_named_with_the_valid_ones(depth):
    with pytest.raises(ValueError, match=rf"8, 14, 20, 26, 32, 44, 56, 110, …\), got {depth}\."):
        cifar_resnet(depth, 10)


@pytest.mark.parametrize(("field", "value"), [("stem", "cifra"), ("shortcut", "conv")])
def test_unknown_names_are_told_at_construction(field, value):
    with pytest.raises(ValueError, match=f"{field} must be one of .*, got '{value}'"):
        small(**{field: value})


@pytest.mark.parametrize(
    "model",
    [
        resnet34(10),
        resnet50(10, "cifar"),
        cifar_resnet(20, 10),
        cifar_resnet(20, 10, "zero_pad"),
    ],
    ids=["resnet34", "resnet50", "projection", "zero_pad"],
)
def test_layer_table_is_the_parameter_tree(model):
    params = flatten_dict(shapes(model)["params"])
    table = model.layer_table()
    kernels = [(*layer.path, layer.kernel) for layer in table]
    assert len(set(kernels)) == len(kernels)
    assert set(kernels) == {path for path in params if path[-1] == "kernel"}

    for layer, kernel in zip(table[:-1], kernels[:-1], strict=True):
        assert layer.norm is not None
        assert params[(*layer.norm, "scale")].shape == params[kernel].shape[layer.axes.post :]
        assert (*layer.path, "bias") not in params
        assert (layer.bias, layer.activation, layer.output) == (None, "relu", False)
    norms = [layer.norm for layer in table[:-1]]
    assert {path[:-1] for path in params if path[-1] == "scale"} == set(norms)
    assert len(set(norms)) == len(norms)

    assert table[-1].output
    assert (table[-1].path, table[-1].norm) == (("head",), None)
    assert (*table[-1].path, table[-1].bias) in params


def test_layer_table_is_in_call_order():
    model = small(shortcut="projection", bottleneck=True)
    calls = []

    def record(next_fun, args, kwargs, context):
        if isinstance(context.module, nn.Conv | nn.Dense):
            calls.append(context.module.path)
        return next_fun(*args, **kwargs)

    with nn.intercept_methods(record):
        shapes(model)
    assert calls == [layer.path for layer in model.layer_table()]


@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
@pytest.mark.parametrize("image", [(2, 9, 9, 1), (2, 32, 28, 3)])
def test_images_of_any_size(stem, image):
    for kwargs in ({"shortcut": "zero_pad"}, {"bottleneck": True}):
        model = small(stem=stem, **kwargs)
        x = jnp.zeros(image)
        variables = shapes(model, image)
        apply = lambda variables, x, model=model: model.apply(variables, x, train=False)  # noqa: E731
        assert jax.eval_shape(apply, variables, x).shape == (2, 3)


def test_zero_pad_takes_every_second_pixel_and_pads_both_sides(random_variables):
    model = small(shortcut="zero_pad")
    x = jax.random.normal(jax.random.key(1), (2, 5, 5, 3))
    variables = random_variables(model, x.shape, train=False)
    # residual branches off: what is left is the stem and the shortcuts
    params = dict(variables["params"])
    for name in ("stage1_block0", "stage2_block0"):
        params[name] = params[name] | {"norm2": jax.tree.map(jnp.zeros_like, params[name]["norm2"])}
    params["head"] = {"kernel": jnp.eye(8, 3) + jnp.eye(8, 3, -2), "bias": jnp.zeros(3)}
    logits = model.apply(variables | {"params": params}, x, train=False)

    stem = jax.lax.conv_general_dilated(
        x,
        params["conv_stem"]["kernel"],
        (1, 1),
        ((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    norm, stats = jax.tree.map(
        np.asarray, (params["norm_stem"], variables["batch_stats"]["norm_stem"])
    )
    stem = (np.asarray(stem) - stats["mean"]) / np.sqrt(stats["var"] + 1e-5)
    stem = np.maximum(stem * norm["scale"] + norm["bias"], 0)
    # channels 2 to 5 of 8 hold the stem's four; the head adds channel c and channel c + 2
    pooled = np.pad(stem[:, ::2, ::2].mean((1, 2)), ((0, 0), (2, 2)))
    want = pooled[:, :3] + pooled[:, 2:5]
    np.testing.assert_allclose(logits, want, rtol=1e-4, atol=1e-6)


def test_convolutions_start_kaiming_normal_fan_out():
    model = small(stage_sizes=(1,), width=64)
    params = model.init(jax.random.key(0), jnp.zeros((1, 4, 4, 3)), train=False)["params"]
    kernel = np.asarray(params["stage1_block0"]["conv1"]["kernel"])
    assert np.std(kernel) == pytest.approx(np.sqrt(2 / (9 * 64)), rel=0.02)
    assert np.max(np.abs(kernel)) > 3 * np.std(kernel)  # not truncated


def test_train_updates_running_statistics_with_momentum_and_eval_does_not(random_variables):
    model = small()
    x = jax.random.normal(jax.random.key(1), (16, 6, 6, 3))
    variables = random_variables(model, x.shape, train=False)
    _, updated = model.apply(variables, x, train=True, mutable=["batch_stats"])
    stem, captured = model.apply(
        variables,
        x,
        train=False,
        mutable=["intermediates", "batch_stats"],
        capture_intermediates=lambda module, _: module.name == "conv_stem",
    )
    (stem,) = captured["intermediates"]["conv_stem"]["__call__"]
    old = variables["batch_stats"]["norm_stem"]["var"]
    want = 0.9 * old + 0.1 * np.var(np.asarray(stem), axis=(0, 1, 2))
    np.testing.assert_allclose(updated["batch_stats"]["norm_stem"]["var"], want, rtol=1e-4)
    jax.tree.map(np.testing.assert_array_equal, captured["batch_stats"], variables["batch_stats"])


def test_logits_in_eval_do_not_depend_on_the_rest_of_the_batch(random_variables):
    model = small()
    x = jax.random.normal(jax.random.key(1), (4, 6, 6, 3))
    variables = random_variables(model, x.shape, train=False)
    whole = model.apply(variables, x, train=False)
    np.testing.assert_allclose(
        model.apply(variables, x[:1], train=False), whole[:1], rtol=1e-5, atol=1e-6
    )


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_variables(random_variables):
    model = small(dtype=jnp.bfloat16, shortcut="zero_pad")
    x = jnp.ones((2, 6, 6, 3))
    # flax's BatchNorm relies on float32 statistics meeting a bfloat16 input
    with jax.numpy_dtype_promotion("standard"):
        variables = random_variables(model, x.shape, train=False)
        logits, updated = model.apply(variables, x, train=True, mutable=["batch_stats"])
    assert logits.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves((variables, updated))} == {
        jnp.dtype(jnp.float32)
    }


def test_every_parameter_gets_a_gradient(random_variables):
    model = small(bottleneck=True, stem="imagenet")
    x = jax.random.normal(jax.random.key(1), (8, 32, 32, 3))
    variables = random_variables(model, x.shape, train=False)

    def loss(params):
        logits, _ = model.apply(
            variables | {"params": params}, x, train=True, mutable=["batch_stats"]
        )
        return -jax.nn.log_softmax(logits)[:, 0].mean()

    gradients = jax.jit(jax.grad(loss))(variables["params"])
    assert all(np.any(np.asarray(leaf) != 0) for leaf in jax.tree.leaves(gradients))
