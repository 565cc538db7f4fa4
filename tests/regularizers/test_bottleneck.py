"""The information bottleneck: its KL, its objective, its modes and its place in the models."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from synscale_jax.models import MLP, cifar_resnet
from synscale_jax.regularizers import Bottleneck, bottleneck_loss


@pytest.fixture
def head():
    module = Bottleneck(features=6, classes=3)
    x = jax.random.normal(jax.random.key(0), (8, 4))
    params = module.init(jax.random.key(1), x)["params"]
    # Deviations of some size: softplus(s − 5) of the first weights is nearly zero.
    params["encoder"]["bias"] = params["encoder"]["bias"].at[6:].set(5.0)
    return module, params, x


def train(module, params, x, key=2):
    return module.apply(
        {"params": params},
        x,
        train=True,
        rngs={"dropout": jax.random.key(key)},
        mutable=["regularizers"],
    )


def encoded(params, x):
    code = np.asarray(x, np.float64) @ params["encoder"]["kernel"] + params["encoder"]["bias"][None]
    mean, spread = np.split(np.asarray(code, np.float64), 2, -1)
    return mean, np.log1p(np.exp(spread - 5))


def test_kl_is_the_mean_log_ratio_of_the_densities(head):
    module, params, x = head
    (terms,) = train(module, params, x)[1]["regularizers"]["bottleneck"]
    mean, deviation = encoded(params, x)
    noise = np.random.default_rng(0).normal(size=(20_000, *mean.shape))
    codes = mean + deviation * noise
    log_ratio = -0.5 * noise**2 - np.log(deviation) + 0.5 * codes**2
    np.testing.assert_allclose(terms.kl, log_ratio.sum(-1).mean(0), rtol=0.03)


def test_kl_of_a_float16_network_is_finite(head):
    module, params, x = head
    params["encoder"]["bias"] = params["encoder"]["bias"].at[:6].set(300.0)  # squared: 90 000
    (terms,) = train(module.clone(dtype=jnp.float16), params, x)[1]["regularizers"]["bottleneck"]
    (want,) = train(module, params, x)[1]["regularizers"]["bottleneck"]
    np.testing.assert_allclose(terms.kl, want.kl, rtol=2e-3)


def test_objective_is_the_mean_of_the_samples_cross_entropies(head):
    module, params, x = head
    labels = jnp.arange(8) % 3
    # 20 000 samples stand for the expectation, which is drawn anew here.
    many = module.clone(samples=20_000)
    objective = bottleneck_loss(train(many, params, x)[1]["regularizers"], labels, strength=0.0)
    mean, deviation = encoded(params, x)
    codes = mean + deviation * np.random.default_rng(1).normal(size=(20_000, *mean.shape))
    logits = codes @ np.asarray(params["decoder"]["kernel"], np.float64)
    logits = jnp.asarray(logits, jnp.float32)
    log_p = np.asarray(jax.nn.log_softmax(logits), np.float64)
    want = -log_p[:, np.arange(8), labels].mean(0)
    np.testing.assert_allclose(objective, want, rtol=0.03, atol=0.01)


def test_logits_of_few_classes_are_distributed_as_those_of_codes(head):
    """Three classes with two samples are drawn as codes, with three samples as logits."""
    module, params, x = head
    labels = jnp.arange(8) % 3

    def losses(params, samples):
        def of_key(key):
            _, sown = module.clone(samples=samples).apply(
                {"params": params},
                x,
                train=True,
                rngs={"dropout": key},
                mutable=["regularizers"],
            )
            return bottleneck_loss(sown["regularizers"], labels, strength=0.0)

        return jax.vmap(of_key)(jax.random.split(jax.random.key(3), 20_000))

    two, three = losses(params, 2), losses(params, 3)
    np.testing.assert_allclose(three.mean(0), two.mean(0), rtol=0.03)
    np.testing.assert_allclose(3 * three.var(0), 2 * two.var(0), rtol=0.1)  # of one sample
    two, three = (jax.grad(lambda p, s=s: losses(p, s).mean())(params) for s in (2, 3))
    for a, b in zip(jax.tree.leaves(two), jax.tree.leaves(three), strict=True):
        np.testing.assert_allclose(a, b, atol=0.02)


def test_a_decoder_of_dependent_columns_keeps_finite_gradients(head):
    module, params, x = head
    for scale in (0.0, 1.0):
        params["decoder"]["kernel"] = scale * jnp.ones((6, 3))
        grads = jax.grad(
            lambda params: bottleneck_loss(
                train(module, params, x)[1]["regularizers"], jnp.zeros(8, int), strength=1e-3
            ).mean()
        )(params)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_strength_weighs_the_kl(head):
    module, params, x = head
    _, sown = train(module, params, x)
    labels = jnp.zeros(8, int)
    plain = bottleneck_loss(sown["regularizers"], labels, strength=0.0)
    weighed = bottleneck_loss(sown["regularizers"], labels, strength=0.25)
    (terms,) = sown["regularizers"]["bottleneck"]
    np.testing.assert_allclose(weighed - plain, 0.25 * terms.kl, rtol=1e-4)


def test_training_puts_out_the_mean_prediction_whose_loss_is_smaller(head):
    module, params, x = head
    labels = jnp.arange(8) % 3
    logits, sown = train(module, params, x)
    np.testing.assert_allclose(jax.nn.softmax(logits), jnp.exp(logits), rtol=1e-5)
    with jax.numpy_rank_promotion("allow"):
        of_mean = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    mean_of = bottleneck_loss(sown["regularizers"], labels, strength=0.0)
    assert (np.asarray(of_mean) < np.asarray(mean_of)).all()


def test_evaluation_decodes_the_mean_without_random_numbers(head):
    module, params, x = head
    mean, _ = encoded(params, x)
    want = mean @ np.asarray(params["decoder"]["kernel"], np.float64)
    np.testing.assert_allclose(module.apply({"params": params}, x), want, rtol=1e-4, atol=1e-5)


def test_samples_follow_the_key(head):
    module, params, x = head
    first, again, other = (train(module, params, x, key)[0] for key in (2, 2, 3))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


def test_init_leaves_nothing_sown():
    variables = Bottleneck(4, 3).init(
        {"params": jax.random.key(0), "dropout": jax.random.key(1)}, jnp.ones((2, 5)), train=True
    )
    assert set(variables) == {"params"}


@pytest.mark.parametrize(
    ("model", "shape"), [(MLP((5,), 3), (2, 4)), (cifar_resnet(8, 3, width=2), (2, 8, 8, 1))]
)
def test_models_put_it_in_place_of_the_head(model, shape):
    model = model.clone(information_bottleneck=(6, 12))
    x = jnp.ones(shape)
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))["params"]
    assert params["head"]["encoder"]["kernel"].shape[1] == 12
    assert params["head"]["decoder"]["kernel"].shape == (6, 3)
    names = [layer.name for layer in model.layer_table()]
    assert names[-2:] == ["head/encoder", "head/decoder"]
    assert [layer.output for layer in model.layer_table()] == [False] * (len(names) - 1) + [True]


@pytest.mark.parametrize(
    ("call", "shown"),
    [
        (lambda: Bottleneck(0, 3), "features=0"),
        (lambda: Bottleneck(4, 3, samples=0), "samples=0"),
        (lambda: bottleneck_loss({}, jnp.zeros(2, int), strength=1.0), "0 bottlenecks"),
        (lambda: bottleneck_loss({}, jnp.zeros(2, int), strength=-1.0), "strength=-1.0"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call, shown):
    with pytest.raises(ValueError) as refused:
        call()
    assert shown in str(refused.value) and "\n" not in str(refused.value)
