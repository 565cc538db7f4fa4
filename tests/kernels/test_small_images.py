"""Convolutions of tiny images are matrix products, and the same numbers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from synscale_jax.kernels.convolution import convolution

LAYOUT = ("NHWC", "HWIO", "NHWC")
TORCH = ((1, 1), (1, 1))


def program(image, kernel, strides, padding):
    """Output and both gradients, compiled, and the arrays to call it with."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s) for s in ((5, *image, 3), (*kernel, 3, 4))]

    def pullback(conv, x, k):
        y, transpose = jax.vjp(partial(conv, padding=padding), x, k)
        return y, *transpose(jnp.cos(y))

    ours = partial(convolution, strides=strides)
    theirs = partial(lax.conv_general_dilated, window_strides=strides, dimension_numbers=LAYOUT)
    return jax.jit(partial(pullback, ours)), jax.jit(partial(pullback, theirs)), arrays


@pytest.mark.parametrize(
    ("image", "kernel", "strides", "padding"),
    [
        ((1, 1), (3, 3), (1, 1), TORCH),
        ((2, 2), (3, 3), (1, 1), TORCH),
        ((2, 2), (3, 3), (2, 2), TORCH),
        ((1, 1), (1, 1), (2, 2), ((0, 0), (0, 0))),
        ((3, 2), (3, 2), (1, 1), ((0, 0), (0, 0))),
        ((1, 2), (5, 3), (1, 2), ((4, 0), (0, 3))),
        ((2, 1), (3, 5), (2, 1), ((0, 3), (2, 2))),
        ((1, 1), (3, 3), (2, 2), ((3, 2), (2, 3))),  # windows that see nothing
    ],
)
def test_agrees_with_lax_in_float64(image, kernel, strides, padding):
    ours, theirs, arrays = program(image, kernel, strides, padding)
    with jax.enable_x64(True):
        wide = [np.asarray(a) for a in theirs(*map(jnp.asarray, arrays))]
        same = [np.asarray(a) for a in ours(*map(jnp.asarray, arrays))]
    narrow = [a.astype(np.float32) for a in arrays]
    assert "convolution" not in ours.lower(*narrow).as_text()
    for a, b, want in zip(same, ours(*narrow), wide, strict=True):
        np.testing.assert_allclose(a, want, rtol=0, atol=1e-12)
        np.testing.assert_allclose(b, want, rtol=0, atol=1e-5 * max(np.abs(want).max(), 1e-30))


@pytest.mark.parametrize(
    ("image", "kernel", "padding"),
    [((3, 3), (3, 3), TORCH), ((7, 7), (7, 7), ((3, 3), (3, 3))), ((2, 2), (1, 1), ((0, 0),) * 2)],
)
def test_a_matrix_much_larger_than_the_kernel_is_not_made(image, kernel, padding):
    ours, _, arrays = program(image, kernel, (1, 1), padding)
    narrow = [a.astype(np.float32) for a in arrays]
    assert "convolution" in ours.lower(*narrow).as_text()
