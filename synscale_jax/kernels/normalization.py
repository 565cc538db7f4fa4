"""Batch normalization whose derivatives read memory as few times as XLA allows.

On the CPU the norms take as long as memory takes. Derived automatically, the gradient keeps
``x - mean`` from the forward pass and reduces three arrays, one of them made for that alone; here
two reductions and one elementwise pass over ``x`` and the incoming gradient do.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax


def batch_norm(
    x: jax.Array, scale: jax.Array, bias: jax.Array, *, epsilon: float = 1e-5
) -> tuple[jax.Array, jax.Array, jax.Array]:
    r"""Normalizes each channel by its mean and variance over everything else.

    .. math::
        y = \gamma \, \frac{x - \mu}{\sqrt{\sigma^2 + \varepsilon}} + \beta, \qquad
        \mu = \langle x \rangle, \quad \sigma^2 = \max(\langle x^2 \rangle - \mu^2, 0)

    Any order of derivative, forward or reverse, is that of this formula.

    Args:
      x: shape (..., channels), floating point.
      scale: :math:`\gamma`, shape (channels,), floating point.
      bias: :math:`\beta`, likewise.
      epsilon: :math:`\varepsilon`, added to the variance.

    Returns:
      The normalized values in the shape of ``x``, the means and the variances, shape (channels,);
      all in float32, or in float64 if an argument is.

    Raises:
      ValueError: if ``x`` has no axis beside its channels, or ``scale`` or ``bias`` another shape.
      TypeError: if an argument is not floating point.

    Example:
      >>> import jax.numpy as jnp
      >>> from synscale_jax.kernels.normalization import batch_norm
      >>> x = jnp.array([[1.0, 5.0], [3.0, 5.0]])
      >>> y, mean, variance = batch_norm(x, jnp.ones(2), jnp.zeros(2), epsilon=0.0625)
      >>> print(mean, variance)
      [2. 5.] [1. 0.]
      >>> print(y.round(3))
      [[-0.97  0.  ]
       [ 0.97  0.  ]]

    References:
      Ioffe & Szegedy, `Batch Normalization <https://arxiv.org/abs/1502.03167>`_, 2015.
    """
    if x.ndim < 2 or not scale.shape == bias.shape == x.shape[-1:]:
        raise ValueError(
            "x must be (..., channels), scale and bias (channels,), "
            f"got {x.shape}, {scale.shape} and {bias.shape}"
        )
    arguments = (x, scale, bias)
    if not all(jnp.issubdtype(a.dtype, jnp.floating) for a in arguments):
        raise TypeError(
            f"x, scale and bias must be floating point, got {x.dtype}, {scale.dtype}, {bias.dtype}"
        )
    wide = any(a.dtype == jnp.float64 for a in arguments)
    dtype = jnp.float64 if wide else jnp.float32
    return _batch_norm(*(a.astype(dtype) for a in arguments), epsilon)


def normalize(
    x: jax.Array,
    mean: jax.Array,
    variance: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    *,
    epsilon: float = 1e-5,
) -> jax.Array:
    """The formula of :func:`batch_norm` with a mean and a variance that are given.

    Args:
      x: shape (..., channels), floating point.
      mean: shape (channels,), as are the others.
      variance: at least 0.
      scale: what the normalized values are multiplied by.
      bias: what is added then.
      epsilon: added to the variance.

    Returns:
      The shape of ``x``, in the widest dtype of the arguments.

    Example:
      >>> import jax.numpy as jnp
      >>> from synscale_jax.kernels.normalization import normalize
      >>> mean, variance = jnp.array([2.0]), jnp.array([4.0])
      >>> print(normalize(jnp.array([[6.0]]), mean, variance, jnp.ones(1), jnp.zeros(1)).round(3))
      [[2.]]
    """
    dtype = jnp.result_type(x, mean, variance, scale, bias)
    x, mean, bias = (a.astype(dtype) for a in (x, mean, bias))
    multiplier = (lax.rsqrt(variance + epsilon) * scale).astype(dtype)
    return (x - _wide(mean, x)) * _wide(multiplier, x) + _wide(bias, x)


@partial(jax.custom_jvp, nondiff_argnums=(3,))
def _batch_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float):
    mean = _mean(x)
    variance = jnp.maximum(_mean(x * x) - mean * mean, 0)
    return normalize(x, mean, variance, scale, bias, epsilon=epsilon), mean, variance


@_batch_norm.defjvp
def _batch_norm_jvp(epsilon, primals, tangents):
    """One product with the tangent and one with x, whose transposes are the gradient's two sums."""
    x, scale, _ = primals
    dx, dscale, dbias = tangents
    y, mean, variance = _batch_norm(*primals, epsilon)
    inverse = lax.rsqrt(variance + epsilon)
    dmean = _mean(dx)
    dvariance = 2 * _mean((x - _wide(mean, x)) * dx)
    slope = dscale * inverse - 0.5 * scale * inverse**3 * dvariance
    shift = dbias - scale * inverse * dmean - mean * slope
    dy = _wide(scale * inverse, x) * dx + x * _wide(slope, x) + _wide(shift, x)
    return (y, mean, variance), (dy, dmean, dvariance)


def _mean(x: jax.Array) -> jax.Array:
    return x.mean(tuple(range(x.ndim - 1)))


def _wide(channels: jax.Array, x: jax.Array) -> jax.Array:
    return channels.reshape(*[1] * (x.ndim - 1), -1)
