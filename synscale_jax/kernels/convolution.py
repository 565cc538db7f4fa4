"""Two-dimensional convolutions, the same numbers on every platform, fast in compiled loops."""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax

from synscale_jax.kernels import onednn
from synscale_jax.kernels._primitive import LAYOUT, convolution_p

Pair = tuple[int, int]
Padding = Literal["SAME", "VALID"] | Sequence[Pair]


def convolution(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: Pair = (1, 1),
    padding: Padding = "SAME",
) -> jax.Array:
    r"""Convolves images with a kernel.

    .. math::
        y_{n,h,w,o} = \sum_{i,j,c} x_{n,\, s h + i - p,\, s w + j - p,\, c} \; k_{i,j,c,o}

    Args:
      x: images, shape (batch, height, width, channels), floating point.
      kernel: shape (kernel height, kernel width, channels, output channels), dtype of ``x``.
      strides: rows and columns the window moves on.
      padding: ``"SAME"``, ``"VALID"`` or the zeros added ((top, bottom), (left, right)).

    Returns:
      Shape (batch, output height, output width, output channels), dtype of ``x``.

    Raises:
      ValueError: if a rank, the channels, the strides or the padding do not fit.
      TypeError: if the dtypes differ or are not floating point.

    Example:
      >>> import jax.numpy as jnp
      >>> from synscale_jax.kernels.convolution import convolution
      >>> y = convolution(jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 2)))
      >>> y.shape
      (1, 4, 4, 2)
      >>> print(y[0, :, :, 0])
      [[4. 6. 6. 4.]
       [6. 9. 9. 6.]
       [6. 9. 9. 6.]
       [4. 6. 6. 4.]]

    References:
      Dumoulin & Visin, `A guide to convolution arithmetic for deep learning
      <https://arxiv.org/abs/1603.07285>`_, 2016.
    """
    if x.ndim != 4 or kernel.ndim != 4 or x.shape[3] != kernel.shape[2]:
        raise ValueError(
            "x must be (batch, height, width, channels) and kernel (height, width, channels, "
            f"output channels), got {x.shape} and {kernel.shape}"
        )
    if x.dtype != kernel.dtype or not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"x and kernel must have one floating dtype, got {x.dtype} and {kernel.dtype}"
        )
    if len(strides) != 2 or min(strides) < 1:
        raise ValueError(f"strides must be two positive integers, got {strides}")
    pads = _explicit_padding(x.shape, kernel.shape, strides, padding)
    if len(pads) != 2 or min(map(min, pads)) < 0:
        raise ValueError(f"padding must be two pairs of integers of at least 0, got {padding}")
    return conv_general_dilated(x, kernel, strides, pads, dimension_numbers=LAYOUT)


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[Pair],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: Any = None,
    preferred_element_type: Any = None,
    **kwargs: Any,
) -> jax.Array:
    """Drop-in for :func:`jax.lax.conv_general_dilated`, as flax's convolutions accept it.

    Two-dimensional convolutions NHWC, HWIO -> NHWC of one floating dtype, without dilation or
    groups, run as :func:`convolution`; everything else goes to :mod:`jax.lax` unchanged.

    Args:
      lhs: images, any layout that ``dimension_numbers`` names.
      rhs: kernel, likewise.
      window_strides: one integer a spatial dimension.
      padding: ``"SAME"``, ``"VALID"``, ``"SAME_LOWER"`` or pairs (low, high).
      lhs_dilation: dilation of ``lhs``, ``None`` for none.
      rhs_dilation: dilation of ``rhs``, ``None`` for none.
      dimension_numbers: as :func:`jax.lax.conv_general_dilated` takes them.
      feature_group_count: groups of channels.
      batch_group_count: groups of the batch.
      precision: as :class:`jax.lax.Precision`; the CPU ignores it.
      preferred_element_type: dtype of the result, ``None`` for that of ``lhs``.
      **kwargs: handed to :func:`jax.lax.conv_general_dilated`.

    Returns:
      The convolution, in the layout that ``dimension_numbers`` names.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp
      >>> from synscale_jax.kernels import conv_general_dilated
      >>> layer = nn.Conv(8, (3, 3), conv_general_dilated=conv_general_dilated)
      >>> y, _ = layer.init_with_output(jax.random.key(0), jnp.ones((2, 6, 6, 3)))
      >>> y.shape
      (2, 6, 6, 8)
    """
    covered = (
        lhs.ndim == rhs.ndim == 4
        and all(isinstance(n, int) for n in (*lhs.shape, *rhs.shape))  # none symbolic
        and all(d == 1 for d in (*(lhs_dilation or ()), *(rhs_dilation or ())))
        and feature_group_count == batch_group_count == 1
        and lhs.dtype == rhs.dtype
        and jnp.issubdtype(lhs.dtype, jnp.floating)
        and preferred_element_type is None
        and not any(value is not None for value in kwargs.values())
        and _is_canonical(lhs, rhs, dimension_numbers)
        and lhs.shape[3] == rhs.shape[2]
        # Sharding in types: lax alone knows how to propagate it.
        and not any((*jax.typeof(lhs).sharding.spec, *jax.typeof(rhs).sharding.spec))
    )
    if covered:
        pads = _explicit_padding(lhs.shape, rhs.shape, window_strides, padding)
        if len(window_strides) == len(pads) == 2 and min(map(min, pads)) >= 0:
            return _convolution(lhs, rhs, window_strides, pads, precision)
    return lax.conv_general_dilated(
        lhs,
        rhs,
        window_strides,
        padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=dimension_numbers,
        feature_group_count=feature_group_count,
        batch_group_count=batch_group_count,
        precision=precision,
        preferred_element_type=preferred_element_type,
        **kwargs,
    )


def convolution_path() -> str:
    """Names what runs a float32 convolution on the default backend, for result files.

    Returns:
      On the CPU ``"onednn"`` and its version, or ``"canonical"`` (XLA, operands transposed to its
      fast layout) where :func:`synscale_jax.kernels.why_not` says why; ``"lax"`` elsewhere.

    Example:
      >>> from synscale_jax.kernels import convolution_path
      >>> convolution_path().split()[0] in ("onednn", "canonical", "lax")
      True
    """
    if jax.default_backend() != "cpu":
        return "lax"
    return f"onednn {onednn.version()}" if onednn.available() else "canonical"


def _is_canonical(lhs: jax.Array, rhs: jax.Array, dimension_numbers: Any) -> bool:
    numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    return numbers == lax.conv_dimension_numbers(lhs.shape, rhs.shape, LAYOUT)


def _explicit_padding(
    x_shape: Sequence[int],
    kernel_shape: Sequence[int],
    strides: Sequence[int],
    padding: str | Sequence[Pair],
) -> tuple[Pair, ...]:
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x_shape[1:3], kernel_shape[:2], strides, padding)
    return tuple((int(low), int(high)) for low, high in padding)


def _convolution(
    x: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: tuple[Pair, ...],
    precision: Any,
) -> jax.Array:
    size = tuple(
        max((n + low + high - k) // s + 1, 0)
        for n, k, s, (low, high) in zip(x.shape[1:3], kernel.shape, strides, padding, strict=False)
    )
    x, kernel = _vary_alike(x, kernel)
    return convolution_p.bind(
        x,
        kernel,
        result="output",
        size=size,
        strides=tuple(strides),
        padding=padding,
        precision=precision,
    )


def _vary_alike(*operands: jax.Array) -> list[jax.Array]:
    """Inside ``shard_map``, marks all operands as varying over the axes that any varies over."""
    varying = [jax.typeof(a).manual_axis_type.varying for a in operands]
    union = frozenset[Any]().union(*varying)
    return [
        lax.pcast(a, tuple(union - own), to="varying") if union - own else a
        for a, own in zip(operands, varying, strict=True)
    ]
