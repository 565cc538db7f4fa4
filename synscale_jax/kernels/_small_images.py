"""Convolutions of images no larger than their kernel, as products with one matrix.

Deep layers see images of 1 × 1 or 2 × 2, where most of a kernel meets padding alone: the matrix
from all inputs to all outputs is then hardly larger than the kernel, and has few zeros.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Pair = tuple[int, int]


def covers(a: jax.Array, b: jax.Array, *, result: str, size: Pair, **_: Any) -> bool:
    """Whether the image has no more pixels than the kernel, and the matrix at most twice as many.

    Takes the operands and the parameters of the convolution's primitive.
    """
    image, kernel, output = _sizes(a.shape, b.shape, result, size)
    pixels, taps = math.prod(image), math.prod(kernel)
    return pixels <= taps and pixels * math.prod(output) <= 2 * taps


def convolve(
    a: jax.Array,
    b: jax.Array,
    *,
    result: str,
    size: Pair,
    strides: Pair,
    padding: tuple[Pair, Pair],
    precision: Any,
) -> jax.Array:
    """One of the primitive's results."""
    image, kernel, output = _sizes(a.shape, b.shape, result, size)
    matrix = partial(_matrix, image=image, output=output, strides=strides, padding=padding)
    dot = partial(lax.dot_general, precision=precision)
    batch = a.shape[0]
    if result == "output":
        out = dot(a.reshape(batch, -1), matrix(b), (((1,), (0,)), ((), ())))
        return out.reshape(batch, *output, b.shape[3])
    if result == "input":
        out = dot(a.reshape(batch, -1), matrix(b), (((1,), (1,)), ((), ())))
        return out.reshape(batch, *image, b.shape[2])
    of_matrix = dot(a.reshape(batch, -1), b.reshape(batch, -1), (((0,), (0,)), ((), ())))
    shape = jax.ShapeDtypeStruct((*kernel, a.shape[3], b.shape[3]), a.dtype)
    return jax.linear_transpose(matrix, shape)(of_matrix)[0]


def _sizes(a: Sequence[int], b: Sequence[int], result: str, size: Pair) -> tuple[Pair, Pair, Pair]:
    """Rows and columns of image, kernel and output."""
    first, second = (a[1], a[2]), (b[0], b[1])
    if result == "kernel":
        return first, size, (b[1], b[2])
    return (first, second, size) if result == "output" else (size, second, first)


def _matrix(kernel: jax.Array, *, image: Pair, output: Pair, strides: Pair, padding: Any):
    """Shape (pixels · channels, output pixels · output channels).

    What an output pixel takes from the image is a window of the kernel, with zeros around it.
    """
    config = [
        (max(s * (m - 1) - low, 0), max(n + low - k, 0), 0)
        for n, m, k, s, (low, _) in zip(image, output, kernel.shape, strides, padding, strict=False)
    ]
    padded = lax.pad(kernel, jnp.zeros((), kernel.dtype), [*config, (0, 0, 0), (0, 0, 0)])
    rows, columns = (
        [before + low - s * i for i in range(m)]
        for m, s, (low, _), (before, _, _) in zip(output, strides, padding, config, strict=True)
    )
    height, width = image
    windows = [padded[r : r + height, c : c + width] for r in rows for c in columns]
    out_channels = kernel.shape[3]
    return jnp.concatenate([w.reshape(-1, out_channels) for w in windows], axis=1)
