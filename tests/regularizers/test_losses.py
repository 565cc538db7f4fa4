"""Confidence penalty and label smoothing: golden values, closed forms, masks, refusals."""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis.extra import numpy as arrays
from jax.test_util import check_grads

import synscale_jax as ss
from synscale_jax.regularizers import confidence_penalty, smoothed_cross_entropy

scores = arrays.arrays(
    np.float32,
    arrays.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=6),
    elements=hypothesis.strategies.floats(-30, 30, width=32),
)


@pytest.mark.parametrize("case", [0, 1, 2])
def test_golden_values_and_gradients(golden, case):
    recorded = np.load(golden / "losses.npz")
    labels = recorded[f"case{case}_labels"]

    def loss(logits):
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(entropy + confidence_penalty(logits, strength=0.3))

    with jax.numpy_rank_promotion("allow"):  # optax's own losses promote
        value, grad = jax.value_and_grad(loss)(jnp.asarray(recorded[f"case{case}_logits"]))
    name = f"case{case}_confidence_penalty_beta0.3"
    np.testing.assert_allclose(value, recorded[f"{name}_loss"], rtol=2e-6, atol=1e-7)
    np.testing.assert_allclose(grad, recorded[f"{name}_grad"], atol=1e-7)


@hypothesis.given(scores)
@hypothesis.settings(deadline=None, max_examples=30)
def test_penalty_lies_between_uniform_and_certain(logits):
    penalty = np.asarray(confidence_penalty(jnp.asarray(logits), strength=2.0))
    assert (penalty <= 1e-6).all()
    assert (penalty >= -2 * np.log(logits.shape[1]) - 1e-5).all()


@hypothesis.given(scores)
@hypothesis.settings(deadline=None, max_examples=30)
def test_synscal_per_example_is_a_quadratic_confidence_penalty(logits):
    p = np.asarray(jax.nn.softmax(jnp.asarray(logits)), np.float64)
    quadratic = np.sum(p**2, -1) - 1 / logits.shape[1]
    np.testing.assert_allclose(ss.synscal(jnp.asarray(logits)), quadratic, atol=2e-6)


def test_gradient_agrees_with_finite_differences():
    logits = jax.random.normal(jax.random.key(0), (4, 5))
    check_grads(
        lambda a: confidence_penalty(a, strength=0.7).sum(), (logits,), order=2, modes=("rev",),
        atol=2e-2, rtol=2e-2,
    )  # fmt: skip


def test_a_class_that_cannot_be_adds_nothing():
    logits = jnp.array([[1.0, 0.5, -jnp.inf]])

    def total(a):
        return confidence_penalty(a, strength=1.0).sum()

    with jax.numpy_rank_promotion("allow"):
        value, grad = jax.value_and_grad(total)(logits)
        want, want_grad = jax.value_and_grad(total)(logits[:, :2])
    np.testing.assert_allclose(value, want, rtol=1e-6)
    np.testing.assert_allclose(grad[:, :2], want_grad, rtol=1e-6)
    assert grad[0, 2] == 0


def test_masked_examples_count_nothing():
    logits = jax.random.normal(jax.random.key(0), (6, 3))
    padded = jnp.concatenate([logits, jnp.full((4, 3), jnp.nan)])
    where = jnp.arange(10) < 6
    masked = confidence_penalty(padded, strength=1.0, where=where)
    np.testing.assert_allclose(
        masked.mean(where=where), confidence_penalty(logits, strength=1.0).mean(), rtol=1e-6
    )
    np.testing.assert_array_equal(masked[6:], 0)


def test_class_axis():
    logits = jax.random.normal(jax.random.key(0), (4, 2, 3))
    turned = confidence_penalty(jnp.moveaxis(logits, -1, 0), strength=1.0, axis=0)
    np.testing.assert_allclose(turned, confidence_penalty(logits, strength=1.0), rtol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_smoothing_is_what_optax_makes_of_smooth_labels(smoothing):
    logits = 3 * jax.random.normal(jax.random.key(0), (7, 5))
    labels = jnp.arange(7) % 5
    with jax.numpy_rank_promotion("allow"):
        smooth = optax.smooth_labels(jax.nn.one_hot(labels, 5), smoothing)
        want = optax.softmax_cross_entropy(logits, smooth)
        got = smoothed_cross_entropy(logits, labels, smoothing=smoothing)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_unsmoothed_labels_allow_a_class_that_is_ruled_out():
    logits, labels = jnp.array([[2.0, 0.0, -jnp.inf]]), jnp.array([0])
    want = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    np.testing.assert_array_equal(smoothed_cross_entropy(logits, labels, smoothing=0), want)


@pytest.mark.parametrize(
    ("call", "shown"),
    [
        (lambda: confidence_penalty(jnp.ones((2, 3)), strength=-0.5), "strength=-0.5"),
        (lambda: confidence_penalty(jnp.ones((2, 1)), strength=0.5), "(2, 1)"),
        (lambda: confidence_penalty(jnp.ones((2, 3), int), strength=0.5), "int32"),
        (
            lambda: confidence_penalty(jnp.ones((2, 3)), strength=1, where=jnp.ones((2, 1), bool)),
            "where has shape (2, 1): give one flag an example, of shape (2,)",
        ),
        (
            lambda: smoothed_cross_entropy(jnp.ones((2, 3)), jnp.zeros(2, int), smoothing=1.5),
            "smoothing=1.5",
        ),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call, shown):
    with pytest.raises(ValueError) as refused:
        call()
    assert shown in str(refused.value) and "\n" not in str(refused.value)
