"""Convolutions of the CPU by oneDNN, where it is installed and a C++ compiler is at hand."""

import ctypes
import functools
import logging
import threading
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

from synscale_jax.kernels import _native

_TARGET = "synscale_convolution"
_RESULTS = ("output", "input", "kernel")  # in the shim's order
_lock = threading.Lock()


def available() -> bool:
    """Tells whether oneDNN runs the CPU's float32 convolutions.

    The first call may compile the shim, which takes some seconds; later processes find it in the
    user's cache. ``SYNSCALE_ONEDNN=0`` in the environment switches oneDNN off, as
    :mod:`jax.export` needs, which writes no program that calls native code.

    Returns:
      Whether it does.

    Example:
      >>> from synscale_jax.kernels import available, why_not
      >>> available() == (why_not() is None)
      True
    """
    return why_not() is None


def why_not() -> str | None:
    """Gives the reason why oneDNN is not used.

    Returns:
      One sentence, or ``None`` where it is used.

    Example:
      >>> from synscale_jax.kernels import why_not
      >>> isinstance(why_not(), str | None)
      True
    """
    return _library()[1]


def version() -> str:
    """The version of the oneDNN that is used, such as ``"3.2.0"``."""
    return _shim().synscale_onednn_version().decode()


def implementation(problem: Sequence[int]) -> str:
    """The name of the implementation that oneDNN chooses for a :func:`problem_of`."""
    fields = (ctypes.c_int64 * len(problem))(*problem)
    return _shim().synscale_implementation(fields).decode()


def problem_of(
    a: Sequence[int], b: Sequence[int], result: str, size: Sequence[int], strides: Any, padding: Any
) -> tuple[int, ...]:
    """The sixteen integers that say everything to the shim, from the primitive's parameters."""
    if result == "output":
        (n, *image, c), (*kernel, _, o), output = a, b, size
    elif result == "input":
        (n, *output, o), (*kernel, c, _), image = a, b, size
    else:
        (n, *image, c), (_, *output, o), kernel = a, b, size
    (top, bottom), (left, right) = padding
    return (
        _RESULTS.index(result),
        *(n, *image, c, *kernel, *output, o),
        *(*strides, top, bottom, left, right),
    )


def covers(a: jax.Array, b: jax.Array, **params: Any) -> bool:
    """Whether oneDNN has a fast implementation for these operands of the primitive."""
    if a.dtype != jnp.float32 or b.dtype != jnp.float32 or not available():
        return False
    params.pop("precision")
    whole = problem_of(a.shape, b.shape, **params)
    one = (whole[0], 1, *whole[2:])  # the threads' parts of the batch may be as small
    return not any(implementation(p).startswith(("ref", "simple")) for p in (whole, one))


def convolve(a: jax.Array, b: jax.Array, **params: Any) -> jax.Array:
    """One of the primitive's results; under a mesh, each device takes its part of the batch."""
    window = {name: params[name] for name in ("result", "size", "strides", "padding")}
    if window["result"] == "output" and window["strides"] == (1, 1) and b.shape[2:] == (16, 16):
        # The same as the input gradient with the kernel turned round, which is faster here.
        pads = [
            (k - 1 - low, k - 1 - high)
            for k, (low, high) in zip(b.shape, window["padding"], strict=False)
        ]
        if min(map(min, pads)) >= 0:
            b = b[::-1, ::-1].transpose(0, 1, 3, 2)
            window |= {"result": "input", "padding": tuple(pads)}
    return _partitioned(**window)(a, b)


def _call(a: jax.Array, b: jax.Array, *, result: str, size: Any, **window: Any) -> jax.Array:
    if result == "kernel":
        shape = (*size, a.shape[3], b.shape[3])
    else:
        shape = (a.shape[0], *size, b.shape[3 if result == "output" else 2])
    problem = problem_of(a.shape, b.shape, result, size, **window)
    call = jax.ffi.ffi_call(_TARGET, jax.ShapeDtypeStruct(shape, a.dtype))
    return call(a, b, problem=np.array(problem, np.int64))


@functools.cache
def _partitioned(**window: Any) -> custom_partitioning:
    sums = window["result"] == "kernel"
    on_one_device = functools.partial(_call, **window)

    def partition(mesh: Any, args: Any, _: Any) -> Any:
        axes = args[0].sharding.spec[0]
        batch = NamedSharding(mesh, PartitionSpec(axes))
        whole = NamedSharding(mesh, PartitionSpec())

        def on_each_device(a: jax.Array, b: jax.Array) -> jax.Array:
            if not sums or axes is None:
                return on_one_device(a, b)
            if args[0].shape[0] != a.shape[0] * lax.axis_size(axes):
                # The devices' parts are padded to one size with rows of undefined values.
                row = a.shape[0] * lax.axis_index(axes) + jnp.arange(a.shape[0])
                real = (row < args[0].shape[0])[:, None, None, None]
                a, b = jnp.where(real, a, 0), jnp.where(real, b, 0)
            return lax.psum(on_one_device(a, b), axes)

        return mesh, on_each_device, whole if sums else batch, (batch, batch if sums else whole)

    @custom_partitioning
    def convolution(a: jax.Array, b: jax.Array) -> jax.Array:
        return on_one_device(a, b)

    # n is the batch; no other dimension is split.
    convolution.def_partition(
        partition,
        sharding_rule="n a b c, n d e f -> g h i j" if sums else "n a b c, d e f g -> n h i j",
        reduction_factors=("n",) if sums else (),
        need_replication_factors=tuple("abcdefghij"),
    )
    return convolution


def _shim() -> ctypes.CDLL:
    library, reason = _library()
    if library is None:
        raise RuntimeError(f"oneDNN is not used: {reason}")
    return library


def _library() -> tuple[ctypes.CDLL | None, str | None]:
    with _lock:  # one build, one line in the log, one registration
        return _library_once()


@functools.cache
def _library_once() -> tuple[ctypes.CDLL | None, str | None]:
    try:
        library = _native.load()
    except _native.UnavailableError as error:
        if "SYNSCALE_ONEDNN" not in str(error):
            logging.getLogger(__name__).warning("Convolutions run without oneDNN: %s", error)
        return None, str(error)
    for function in (library.synscale_implementation, library.synscale_onednn_version):
        function.restype = ctypes.c_char_p
    capsule = jax.ffi.pycapsule(library.synscale_convolution)
    jax.ffi.register_ffi_target(_TARGET, capsule, platform="cpu")
    return library, None
