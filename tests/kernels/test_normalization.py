"""Batch normalization of our own is flax's, in every derivative, and takes fewer reductions."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from synscale_jax.kernels.normalization import batch_norm, normalize
from synscale_jax.models._batch_norm import BatchNorm


def plain(x, scale, bias, epsilon=1e-5):
    """The formula, derived by JAX."""
    with jax.numpy_rank_promotion("allow"):
        axes = tuple(range(x.ndim - 1))
        mean, variance = x.mean(axes), x.var(axes)
        return (x - mean) / jnp.sqrt(variance + epsilon) * scale + bias, mean, variance


def arguments(shape, seed=0, dtype=np.float64, shift=0.5):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape) * rng.uniform(0.1, 3, shape[-1]) + shift
    scale, bias = rng.uniform(-2, 2, (2, shape[-1]))
    return tuple(jnp.asarray(a, dtype) for a in (x, scale, bias))


def close(ours, theirs, tolerance):
    def check(a, b):
        b = np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(np.abs(b).max(), 1e-3))

    jax.tree.map(check, ours, theirs)


@partial(jax.jit, static_argnums=0)
def value_and_pullback(f, arguments, cotangents):
    y, transpose = jax.vjp(f, *arguments)
    return y, transpose(cotangents)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=3),
    st.integers(1, 20),
    st.floats(-4, 4, width=32),
)
@example([1], 1, 0.0)  # no variance at all
def test_float32_agrees_with_the_formula_in_float64(leading, channels, shift):
    shape = (*leading, channels)
    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        wide = arguments(shape, shift=shift)
        cotangents = tuple(jnp.asarray(rng.standard_normal(s)) for s in (shape, channels, channels))
        theirs = value_and_pullback(plain, wide, cotangents)
        theirs = jax.tree.map(np.asarray, theirs)
        narrow = [tuple(a.astype(np.float32) for a in each) for each in (wide, cotangents)]
    ours = value_and_pullback(batch_norm, *narrow)
    # Two or three values may lie close together: their float32 variance is what is off then.
    spread = float(np.sqrt(1 + shift**2) / np.sqrt(theirs[0][2].min() + 1e-5))
    close(ours, theirs, 1e-5 * max(1, spread) ** 2)


def test_second_derivatives_agree_with_the_formula():
    with jax.enable_x64(True):
        primals, tangents = arguments((4, 3, 2)), arguments((4, 3, 2), seed=1)

        def loss(f, *primals):
            y, mean, variance = f(*primals)
            return jnp.sum(jnp.sin(y)) + jnp.vdot(mean, variance)

        @partial(jax.jit, static_argnums=0)
        def second(f):
            gradient = jax.grad(partial(loss, f), (0, 1, 2))
            return (
                jax.jvp(gradient, primals, tangents),
                jax.grad(lambda *a: sum(map(jnp.vdot, gradient(*a), tangents)), (0, 1, 2))(
                    *primals
                ),
            )

        close(second(batch_norm), second(plain), 1e-11)


def test_gradient_agrees_with_finite_differences():
    with jax.enable_x64(True):
        primals, moves = arguments((5, 2, 3)), arguments((5, 2, 3), seed=1)

        @jax.jit
        def loss(*primals):
            return jnp.sum(batch_norm(*primals)[0] ** 3)

        def at(h):
            return loss(*(a + h * b for a, b in zip(primals, moves, strict=True)))

        slope = sum(map(jnp.vdot, jax.grad(loss, (0, 1, 2))(*primals), moves))
        np.testing.assert_allclose(slope, (at(1e-6) - at(-1e-6)) / 2e-6, rtol=1e-6)


def test_vmap_and_scan_are_loops():
    x, scale, bias = arguments((3, 6, 4), dtype=np.float32)

    @jax.jit
    @partial(jax.grad, argnums=(0, 1))
    def gradient(x, scale):
        return jnp.sum(batch_norm(x, scale, bias)[0] ** 3)

    scales = jnp.stack([scale, 2 * scale, -scale])
    looped = [gradient(*each) for each in zip(x, scales, strict=True)]
    looped = jax.tree.map(lambda *a: jnp.stack(a), *looped)
    close(jax.vmap(gradient)(x, scales), looped, 1e-6)
    _, scanned = jax.lax.scan(lambda _, each: (None, gradient(*each)), None, (x, scales))
    close(scanned, looped, 1e-6)


def test_four_sums_do():
    """Two forward and two backward: what the step's speed hangs on."""
    x, scale, bias = arguments((4, 5, 5, 3), dtype=np.float32)
    first = lambda *a: batch_norm(*a)[0]  # noqa: E731
    program = value_and_pullback.lower(first, (x, scale, bias), x).as_text()
    assert program.count("stablehlo.reduce(") == 4


def both(train, **options):
    options = {"use_running_average": not train, "momentum": 0.9, "epsilon": 1e-5} | options
    return BatchNorm(**{"dtype": jnp.float32} | options), nn.BatchNorm(**options)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_module_is_flax_s(train, dtype):
    x = arguments((6, 5, 4, 3), dtype=np.float32)[0].astype(dtype)
    ours, theirs = both(train, dtype=dtype)
    variables = ours.init(jax.random.key(0), x)
    with jax.numpy_dtype_promotion("standard"):
        reference = theirs.init(jax.random.key(0), x)
        assert jax.tree.structure(variables) == jax.tree.structure(reference)
        jax.tree.map(np.testing.assert_array_equal, variables, reference)
        stats = {"mean": jnp.array([1.0, -1.0, 0.5]), "var": jnp.array([0.5, 2.0, 4.0])}
        scale = {"scale": jnp.array([2.0, -1.0, 0.5]), "bias": jnp.array([1.0, 0.0, -1.0])}
        variables = {"params": scale, "batch_stats": stats}
        reference = theirs.apply(variables, x, mutable=["batch_stats"])
    y, updated = ours.apply(variables, x, mutable=["batch_stats"])
    assert y.dtype == reference[0].dtype == dtype
    close((y, updated), reference, 1e-5 if dtype == "float32" else 1e-2)


def test_normalize_takes_statistics_as_they_are():
    x, scale, bias = (np.asarray(a, np.float64) for a in arguments((4, 3), dtype=np.float32))
    mean, variance = np.array([1.0, 0.0, -1.0]), np.array([0.0, 1.0, 9.0])
    want = (x - mean) / np.sqrt(variance + 0.01) * scale + bias
    given = [jnp.asarray(a, jnp.float32) for a in (x, mean, variance, scale, bias)]
    close(normalize(*given, epsilon=0.01), want, 1e-6)


@pytest.mark.parametrize(
    ("shape", "channels", "dtype", "error", "message"),
    [
        ((3,), 3, "float32", ValueError, r"got \(3,\), \(3,\) and \(3,\)"),
        ((2, 3), 4, "float32", ValueError, r"got \(2, 3\), \(4,\) and \(4,\)"),
        ((2, 3), 3, "int32", TypeError, "got int32, float32, float32"),
    ],
)
def test_bad_input(shape, channels, dtype, error, message):
    with pytest.raises(error, match=message):
        batch_norm(jnp.ones(shape, dtype), jnp.ones(channels), jnp.zeros(channels))
