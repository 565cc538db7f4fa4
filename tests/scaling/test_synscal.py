"""SynScaL: golden values and gradients, masks, devices, refusals."""

import os
import subprocess
import sys
import textwrap

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis.extra import numpy as arrays
from jax.test_util import check_grads

import synscale_jax as ss

GOLDEN_NAMES = {
    "mean_logit": "mean_logit",
    "per_example_mean": "prob_mean",
    "per_example": "prob_sum",
    "batch_mean": "batch_mean_sum",
}
readings = pytest.mark.parametrize("reading", GOLDEN_NAMES)


@readings
@pytest.mark.parametrize("case", [0, 1, 2])
def test_golden_values_and_gradients(golden, reading, case):
    recorded = np.load(golden / "losses.npz")
    labels, gamma = recorded[f"case{case}_labels"], float(recorded[f"case{case}_gamma"])

    def loss(logits):
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(entropy + ss.synscal(logits, scaling_rate=gamma, reading=reading))

    with jax.numpy_rank_promotion("allow"):  # optax's own losses promote
        value, grad = jax.value_and_grad(loss)(jnp.asarray(recorded[f"case{case}_logits"]))
    name = f"case{case}_{GOLDEN_NAMES[reading]}"
    np.testing.assert_allclose(value, recorded[f"{name}_loss"], rtol=1e-6)
    np.testing.assert_allclose(grad, recorded[f"{name}_grad"], atol=1e-7)


@readings
def test_gradient_agrees_with_finite_differences(reading):
    logits = jax.random.normal(jax.random.key(0), (4, 5))
    check_grads(
        lambda a: ss.synscal(a, reading=reading).sum(), (logits,), order=2, modes=("rev",),
        atol=2e-2, rtol=2e-2,
    )  # fmt: skip


@readings
def test_padded_equals_unpadded(reading):
    logits = jax.random.normal(jax.random.key(0), (6, 3))
    padded = jnp.concatenate([logits, jnp.full((4, 3), 7.0)])
    where = jnp.arange(10) < 6

    def mean(term, where=None):
        return term if term.ndim == 0 else term.mean(where=where)

    plain = mean(ss.synscal(logits, reading=reading))
    masked = mean(ss.synscal(padded, reading=reading, where=where), where)
    np.testing.assert_allclose(masked, plain, rtol=1e-6)


@readings
def test_an_empty_batch_is_no_nan(reading):
    term = ss.synscal(jnp.ones((3, 2)), reading=reading, where=jnp.zeros(3, bool))
    assert np.all(np.isfinite(term))


@readings
def test_class_axis(reading):
    logits = jax.random.normal(jax.random.key(0), (4, 2, 3))
    turned = ss.synscal(jnp.moveaxis(logits, -1, 0), reading=reading, axis=0)
    np.testing.assert_allclose(turned, ss.synscal(logits, reading=reading), rtol=1e-6)


@pytest.mark.parametrize("reading", ["per_example", "per_example_mean"])
def test_per_example_readings_have_the_shape_of_optax_losses(reading):
    logits = jnp.ones((2, 3, 5))
    expected = optax.softmax_cross_entropy(logits, logits).shape
    assert ss.synscal(logits, reading=reading).shape == expected


@hypothesis.given(arrays.arrays(np.float32, (3, 4), elements={"min_value": -8, "max_value": 8}))
@hypothesis.settings(deadline=None, max_examples=30)
def test_per_example_is_a_quadratic_confidence_penalty(logits):
    squares = jnp.square(jax.nn.softmax(jnp.asarray(logits))).sum(-1)
    np.testing.assert_allclose(ss.synscal(jnp.asarray(logits)), squares - 0.25, atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@readings
def test_dtype_is_kept(reading, dtype):
    assert ss.synscal(jnp.ones((3, 2), dtype), reading=reading).dtype == dtype


def test_regression_form():
    predictions = jnp.array([[1.0, 10.0], [3.0, 20.0]])
    term = ss.synscal_regression(predictions, jnp.array([2.0, 10.0]), scaling_rate=0.5)
    np.testing.assert_allclose(term, [[0.5, 0.0], [0.5, 50.0]])
    np.testing.assert_allclose(ss.synscal_regression(predictions, 2.0, scaling_rate=1.0)[0, 1], 64)


def test_shard_map_equals_one_device():
    script = textwrap.dedent("""
        import functools, jax, jax.numpy as jnp, numpy as np, synscale_jax as ss
        from jax.sharding import AxisType, PartitionSpec as P
        mesh = jax.make_mesh((8,), ("data",), (AxisType.Auto,))
        logits = jax.random.normal(jax.random.key(0), (16, 5))
        where = jnp.arange(16) < 13
        for reading in ("batch_mean", "mean_logit", "per_example"):
            spread = reading == "per_example"
            def term(a, w):
                return ss.synscal(a, reading=reading, where=w, axis_name="data")
            mapped = jax.shard_map(term, mesh=mesh, in_specs=(P("data"), P("data")),
                                   out_specs=P("data") if spread else P())
            one = lambda a, w: ss.synscal(a, reading=reading, where=w)
            np.testing.assert_allclose(mapped(logits, where), one(logits, where), rtol=1e-5)
            a, b = (jax.grad(lambda a: f(a, where).sum())(logits) for f in (mapped, one))
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-8)
        print("agree")
    """)
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "agree", done.stderr


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"logits": jnp.ones((3, 1))}, "two logits"),
        ({"logits": jnp.ones((3, 2)), "reading": "mean"}, "reading='mean'.*per_example"),
        ({"logits": jnp.ones((3, 2)), "scaling_rate": -1.0}, "scaling_rate=-1.0"),
        ({"logits": jnp.ones((3, 2), jnp.int32)}, "int32"),
        ({"logits": [[1.0, 2.0]]}, "logits of dtype list"),
        ({"logits": jnp.ones((2, 3)), "scaling_rate": "1"}, "scaling_rate='1'"),
        (
            {"logits": jnp.ones((2, 3)), "where": jnp.ones((2, 1), bool)},
            r"where has shape \(2, 1\)",
        ),
    ],
)
def test_bad_input_is_refused_in_one_sentence(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ss.synscal(kwargs.pop("logits"), **kwargs)


def test_a_mean_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"target_mean of shape \(4, 1\)"):
        ss.synscal_regression(jnp.ones(4), jnp.ones((4, 1)))
    for mean in (jnp.ones(2), jnp.ones((3, 1)), jnp.ones(())):
        assert ss.synscal_regression(jnp.ones((3, 2)), mean).shape == (3, 2)


def test_float16_counts_many_examples():
    logits = jnp.zeros((70_000, 4), jnp.float16)
    assert ss.synscal(logits, reading="batch_mean") == 0
    assert ss.synscal(logits + 1, reading="mean_logit") == 0.5625


def test_what_does_not_count_may_be_anything():
    logits = jnp.array([[1.0, 2.0], [-jnp.inf, -jnp.inf]])
    where = jnp.array([True, False])
    for reading in ("per_example", "batch_mean", "mean_logit"):
        value, slope = jax.value_and_grad(
            lambda x, r=reading: ss.synscal(x, where=where, reading=r).sum()
        )(logits)
        assert jnp.isfinite(value) and jnp.isfinite(slope).all() and (slope[1] == 0).all()
