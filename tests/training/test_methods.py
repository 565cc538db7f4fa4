"""The methods of the comparison: what a step of each minimises, and what it leaves alone."""

import functools
import warnings

import jax
import jax.numpy as jnp
import job
import numpy as np
import optax
import pytest
from flax import linen as nn

from synscale_jax.models import MLP, ResNet
from synscale_jax.training import methods
from synscale_jax.training.loop import _identity

LOGITS = 2 * np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
LABELS = jnp.arange(6) % 4


ALL = {
    method.name: method
    for method in (
        methods.baseline(),
        methods.dropout(),
        methods.confidence_penalty(),
        methods.label_smoothing(),
        methods.bottleneck(0.5, features=8),
        methods.combined(methods.synscaw(0.01), methods.confidence_penalty()),
        methods.combined(methods.synscal(1.0), methods.confidence_penalty()),
    )
}


@functools.cache
def trained(name):
    """A program after two chunks of five steps, its state, and the metrics of these steps."""
    program = job.make_program(ALL[name], learning_rate=0.01)
    key = jax.random.key(0)
    state, first = program.chunk(program.init(key), key, 5)
    state, second = program.chunk(state, key, 5)
    assert first.finite and second.finite
    return program, state, np.concatenate([first.loss, second.loss]), first.entropy, second.entropy


@pytest.mark.parametrize("name", ALL)
def test_each_method_trains(name):
    _, _, loss, first, second = trained(name)
    assert np.isfinite(loss).all()
    assert second.mean() < first[0] - 0.1


def test_label_smoothing_adds_up_to_the_smoothed_loss():
    with jax.numpy_rank_promotion("allow"):
        plain = optax.softmax_cross_entropy_with_integer_labels(LOGITS, LABELS)
        got = plain + methods.label_smoothing(0.2).loss(jnp.asarray(LOGITS), LABELS)
        smooth = optax.smooth_labels(jax.nn.one_hot(LABELS, 4), 0.2)
        want = optax.softmax_cross_entropy(LOGITS, smooth)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_combination_adds_the_losses_and_keeps_the_transform():
    both = methods.combined(methods.synscaw(0.3), methods.confidence_penalty(0.5))
    logits = jnp.asarray(LOGITS)
    np.testing.assert_allclose(
        both.loss(logits, LABELS), methods.confidence_penalty(0.5).loss(logits, LABELS)
    )
    program, state, *_ = trained("synscaw_confidence_penalty")
    assert optax.tree.get(state.opt_state, "mean_gap").keys() == {"dense0"}
    assert program.method.label == "SynScaW + confidence penalty"


def test_bottleneck_minimises_the_kl_too():
    _, _, loss, entropy, _ = trained("bottleneck")
    kl = (loss[0] - entropy[0]) / 0.5  # and a little: the gap between mean and samples
    assert 8 * 3 < kl < 8 * 6  # the first deviations are about softplus(−5): 4.5 nats a unit
    assert loss[-1] < loss[0]


def test_dropout_acts_in_training_alone():
    program, state, _, entropy, _ = trained("dropout")
    assert entropy[0] != trained("baseline")[3][0]
    first, again = (program.evaluate(state, program.splits.test) for _ in range(2))
    assert first.loss == again.loss


def test_dropout_drops_at_its_rates_and_keeps_the_mean():
    model = MLP((), 1, dropout=(0.25, 0.0), kernel_init=nn.initializers.ones)
    x = jnp.ones((4, 5000))
    params = model.init(jax.random.key(0), x)
    sums = model.apply(params, x, train=True, rngs={"dropout": jax.random.key(1)})
    np.testing.assert_allclose(sums, 5000, rtol=0.05)
    kept = 0.75 * np.asarray(sums)  # each kept input is divided by 0.75
    np.testing.assert_allclose(kept, kept.round(), atol=0.01)


def test_dropout_on_a_resnet_warns_with_the_reason():
    model = ResNet((1,), 10, width=2, stem="cifar")
    with pytest.warns(UserWarning, match="shifts the variance"):
        changed = methods.dropout().model(model)
    assert changed.dropout == (0.2, 0.5)
    x = jnp.ones((2, 8, 8, 1))
    variables = changed.init(jax.random.key(0), x, train=False)
    rngs = {"dropout": jax.random.key(1)}
    dropped, _ = changed.apply(variables, x, train=True, rngs=rngs, mutable=["batch_stats"])
    plain, _ = model.apply(variables, x, train=True, mutable=["batch_stats"])
    assert not np.allclose(dropped, plain)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        methods.dropout().model(MLP((4,), 3))


def test_a_model_without_the_field_is_refused():
    for method in (methods.dropout(), methods.bottleneck()):
        with pytest.raises(ValueError, match="Dense has no field"):
            method.model(nn.Dense(3))


def test_identity_of_earlier_methods_is_as_it_was():
    for method in (methods.baseline(), methods.synscaw(0.01), methods.synscal(1.0)):
        identity = _identity(job.make_program(method), 0)
        assert identity["model"] == {
            "kind": "MLP",
            "features": (16,),
            "num_classes": 10,
            "activation": "relu",
            "dtype": "float32",
            "param_dtype": "float32",
        }
    assert identity["method"] == {"name": "synscal", "scaling_rate": 1.0, "reading": "per_example"}


def test_identity_tells_what_is_ours():
    identity = _identity(job.make_program(methods.bottleneck(0.01, features=8)), 0)
    assert identity["model"]["information_bottleneck"] == (8, 12)
    assert identity["method"] == {
        "name": "bottleneck",
        "strength": 0.01,
        "features": 8,
        "samples": 12,
        "ours": ("strength", "features"),
    }
    both = methods.combined(methods.synscal(1.0), methods.confidence_penalty(0.5))
    assert both.settings["confidence_penalty"] == {"strength": 0.5, "ours": ("strength",)}


def test_a_combination_has_a_form_for_regression_if_both_have():
    synscaw, synscal = methods.synscaw(), methods.synscal(1.0)
    pulled = methods.combined(synscaw, synscal).regression_loss
    np.testing.assert_array_equal(pulled(jnp.array([1.0, 2.0]), 0.0), [1.0, 4.0])
    for method in (synscaw, synscal):
        both = methods.combined(method, methods.confidence_penalty(0.5))
        assert both.regression_loss is methods.Method.regression_loss


@pytest.mark.parametrize(
    ("make", "shown"),
    [
        (lambda: methods.dropout(1.0), "input_rate=1.0"),
        (lambda: methods.dropout(0.2, -0.1), "hidden_rate=-0.1"),
        (lambda: methods.confidence_penalty(-1.0), "strength=-1.0"),
        (lambda: methods.label_smoothing(2.0), "smoothing=2.0"),
        (lambda: methods.bottleneck(-1.0), "strength=-1.0"),
        (lambda: methods.bottleneck(features=0), "features=0"),
        (lambda: methods.bottleneck(samples=0), "samples=0"),
        (lambda: methods.combined(methods.synscaw(), methods.synscaw(0.1)), "synscaw"),
    ],
)
def test_impossible_methods_are_refused(make, shown):
    with pytest.raises(ValueError) as refused:
        make()
    assert shown in str(refused.value) and "\n" not in str(refused.value)
