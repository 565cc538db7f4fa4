"""One bilinear primitive for convolutions and all their derivatives.

A convolution, its input gradient and its kernel gradient are the three derivatives of one
trilinear form. They are one JAX primitive here, whose transposes are itself again: every order of
derivative stays inside it, and each platform chooses how to run the three.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax._src import dispatch
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from synscale_jax.kernels import _small_images, onednn

Pair = tuple[int, int]

LAYOUT = ("NHWC", "HWIO", "NHWC")

# `result` says which of the three it computes, and so its operands: "output" takes (x, kernel),
# "input" (y, kernel) and "kernel" (x, y), where y has the output's shape; `size` is the result's
# spatial size. Both operands may carry one leading axis over which the primitive is mapped: that is
# vmap over images and kernels at once.
convolution_p = Primitive("synscale_convolution")
convolution_p.def_impl(
    jax.jit(
        convolution_p.bind,
        static_argnames=("result", "size", "strides", "padding", "precision"),
    )
)
# oneDNN's calls are partitioned by JAX, which has no public way to ask for the mesh's devices.
dispatch.prim_requires_devices_during_lowering.add(convolution_p)


def _result_shape(a: Sequence[int], b: Sequence[int], result: str, size: Pair) -> tuple[int, ...]:
    if result == "kernel":
        return (*a[:-4], *size, a[-1], b[-1])
    return (*a[:-3], *size, b[-1] if result == "output" else b[-2])


@convolution_p.def_abstract_eval
def _abstract_eval(a: Any, b: Any, *, result: str, size: Pair, **_: Any) -> Any:
    return a.update(shape=_result_shape(a.shape, b.shape, result, size), weak_type=False)


def _transpose_first(cotangent: jax.Array, a: Any, b: jax.Array, *, result: str, **params: Any):
    operands = (b, cotangent) if result == "kernel" else (cotangent, b)
    to = "output" if result == "input" else "input"
    return convolution_p.bind(*operands, **params | {"result": to, "size": a.aval.shape[-3:-1]})


def _transpose_second(cotangent: jax.Array, a: jax.Array, b: Any, *, result: str, **params: Any):
    shape = b.aval.shape
    operands = (cotangent, a) if result == "input" else (a, cotangent)
    if result == "kernel":
        return convolution_p.bind(*operands, **params | {"result": "output", "size": shape[-3:-1]})
    return convolution_p.bind(*operands, **params | {"result": "kernel", "size": shape[-4:-2]})


ad.defbilinear(convolution_p, _transpose_first, _transpose_second)

# Where a mapped axis of one operand goes: (axis of that operand, axis of the result) it joins.
_FOLDS = {
    ("output", 0): (0, 0),
    ("output", 1): (3, 3),
    ("input", 0): (0, 0),
    ("input", 1): (2, 3),
    ("kernel", 0): (3, 2),
    ("kernel", 1): (3, 3),
}


def _batch(operands: Sequence[jax.Array], dims: Sequence[int | None], **params: Any) -> Any:
    mapped = [(i, d) for i, d in enumerate(dims) if d is not None]
    which, dim = mapped[0]
    if len(mapped) == 1 and operands[which].ndim == 5:
        return _batch_one(list(operands), which, dim, **params)
    n = operands[which].shape[dim]
    fronted = [
        jnp.broadcast_to(a, (n, *a.shape)) if d is None else jnp.moveaxis(a, d, 0)
        for a, d in zip(operands, dims, strict=True)
    ]
    lead = fronted[0].shape[:-4]
    a, b = (a.reshape(math.prod(lead), *a.shape[-4:]) for a in fronted)
    out = convolution_p.bind(a, b, **params)
    return out.reshape(*lead, *out.shape[1:]), 0


def _batch_one(operands: list[jax.Array], which: int, dim: int, **params: Any):
    into, out_of = _FOLDS[params["result"], which]
    a = jnp.moveaxis(operands[which], dim, into)
    n, single = a.shape[into], (*a.shape[:into], *a.shape[into + 1 :])
    operands[which] = a.reshape(*a.shape[:into], n * a.shape[into + 1], *a.shape[into + 2 :])
    a_shape, b_shape = (single if i == which else operands[i].shape for i in (0, 1))
    shape = _result_shape(a_shape, b_shape, params["result"], params["size"])
    out = convolution_p.bind(*operands, **params)
    return out.reshape(*shape[:out_of], n, *shape[out_of:]), out_of


batching.primitive_batchers[convolution_p] = _batch


def _plain(a: jax.Array, b: jax.Array, *, result: str, size: Pair, **window: Any) -> jax.Array:
    """The three results by ``lax`` and its own transposes."""
    if a.ndim == 5:
        return jax.vmap(partial(_plain, result=result, size=size, **window))(a, b)
    convolve = partial(_convolve, **window)
    if result == "output":
        return convolve(a, b)
    missing = jax.ShapeDtypeStruct(_result_shape(a.shape, b.shape, result, size), a.dtype)
    if result == "input":
        return jax.linear_transpose(lambda x: convolve(x, b), missing)(a)[0]
    return jax.linear_transpose(lambda kernel: convolve(a, kernel), missing)(b)[0]


def _on_cpu(a: jax.Array, b: jax.Array, **params: Any) -> jax.Array:
    """The three results: tiny images as matrices, others by oneDNN or in XLA's fast layout."""
    shape = _result_shape(a.shape, b.shape, params["result"], params["size"])
    if a.size == 0 or b.size == 0 or 0 in shape:
        return jnp.zeros(shape, a.dtype)
    if a.ndim == 5:  # one by one: the grouped convolution of vmap is several times slower
        return lax.map(lambda operands: _on_cpu(*operands, **params), (a, b))
    if _small_images.covers(a, b, **params):
        return _small_images.convolve(a, b, **params)
    run = onednn.convolve if onednn.covers(a, b, **params) else _canonical
    return run(a, b, **params)


def _canonical(a: jax.Array, b: jax.Array, *, result: str, size: Pair, **window: Any) -> jax.Array:
    """The three results as convolutions NHWC, HWIO -> NHWC on operands transposed explicitly.

    XLA's CPU backend runs this layout well everywhere; the layouts of lax's own gradients it runs
    up to a hundred times slower inside loops.
    """
    if result == "output":
        return _convolve(a, b, **window)
    return (_canonical_input if result == "input" else _canonical_kernel)(a, b, size, **window)


def _canonical_input(y, kernel, size, *, strides, padding, precision) -> jax.Array:
    """The flipped kernel slides over y, its pixels ``strides`` apart."""
    low = [k - 1 - p for k, (p, _) in zip(kernel.shape, padding, strict=False)]
    spread = [(m - 1) * s + 1 for m, s in zip(y.shape[1:], strides, strict=False)]
    high = [n + k - 1 - m - p for n, k, m, p in zip(size, kernel.shape, spread, low, strict=False)]
    y, pads = _crop(y, low, high, strides)
    kernel = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
    return _convolve(y, kernel, (1, 1), pads, precision)


def _canonical_kernel(x, y, size, *, strides, padding, precision) -> jax.Array:
    """Images become channels and channels images: y, ``strides`` apart, slides over x."""
    low = [p for p, _ in padding]
    spread = [(m - 1) * s + 1 for m, s in zip(y.shape[1:], strides, strict=False)]
    high = [k - 1 + m - n - p for k, m, n, p in zip(size, spread, x.shape[1:], low, strict=False)]
    x, pads = _crop(x.transpose(3, 1, 2, 0), low, high)
    out = _convolve(x, y.transpose(1, 2, 0, 3), (1, 1), pads, precision, rhs_dilation=strides)
    return out.transpose(1, 2, 0, 3)


def _crop(x, low, high, spread=(1, 1)) -> tuple[jax.Array, list[Pair]]:
    """Spreads the pixels of ``x``; cuts where padding is negative, as windows may miss an edge."""
    config = [(min(lo, 0), min(hi, 0), s - 1) for lo, hi, s in zip(low, high, spread, strict=True)]
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *config, (0, 0, 0)])
    return x, [(max(lo, 0), max(hi, 0)) for lo, hi in zip(low, high, strict=True)]


def _convolve(
    x: jax.Array, kernel: jax.Array, strides: Any, padding: Any, precision: Any, rhs_dilation=None
) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding,
        rhs_dilation=rhs_dilation,
        dimension_numbers=LAYOUT,
        precision=precision,
    )


mlir.register_lowering(convolution_p, mlir.lower_fun(_plain, multiple_results=False))
mlir.register_lowering(
    convolution_p, mlir.lower_fun(_on_cpu, multiple_results=False), platform="cpu"
)
