"""The activation functions φ of a layer, and their mean under uniform and Gaussian input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import ndtr

Activation = str | Callable[[Array], Array]

LEAKY_SLOPE = 0.01

ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = MappingProxyType(
    {
        "relu": jax.nn.relu,
        "leaky_relu": lambda x: jax.nn.leaky_relu(x, LEAKY_SLOPE),
        "identity": lambda x: x,
        "sigmoid": jax.nn.sigmoid,
        "tanh": jnp.tanh,
        "gelu": jax.nn.gelu,
        "silu": jax.nn.silu,
        "elu": jax.nn.elu,
        "softplus": jax.nn.softplus,
    }
)
"""The activations that go by name."""


def activation_function(activation: Activation) -> Callable[[Array], Array]:
    """Return φ for a name or a callable.

    Raises:
      ValueError: if the name is not in :data:`ACTIVATIONS`.
    """
    if callable(activation):
        return activation
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"activation={activation!r} is not known: use one of {', '.join(ACTIVATIONS)}, "
            "or pass the function itself."
        )
    return ACTIVATIONS[activation]


def uniform_mean(activation: Activation) -> Array:
    """E[φ(u)] for u ~ U(−1, 1), by Gauss-Legendre quadrature on each side of zero.

    Exact where φ is a polynomial on either side (ReLU 1/4, leaky ReLU, identity); sigmoid gives
    1/2 and tanh 0 to machine precision.
    """
    nodes, weights = np.polynomial.legendre.leggauss(16)
    half = (nodes + 1) / 2
    points = jnp.asarray(np.concatenate([half, -half]), jnp.float32)
    return jnp.dot(
        activation_function(activation)(points),
        jnp.asarray(np.tile(weights, 2) / 4, jnp.float32),
    )


def gaussian_mean(activation: Activation, mean: Array, deviation: Array) -> Array:
    """E[φ(v)] for v ~ N(mean, deviation²), elementwise.

    ReLU has the closed form σ·pdf(m/σ) + m·cdf(m/σ), leaky ReLU and the identity follow from it;
    every other φ is integrated by Gauss-Hermite quadrature with 32 nodes.
    """
    if activation == "identity":
        return mean
    if activation in ("relu", "leaky_relu"):
        ratio = mean / jnp.maximum(deviation, jnp.finfo(deviation.dtype).tiny)
        density = jnp.exp(-0.5 * jnp.square(ratio)) / np.sqrt(2 * np.pi).astype(deviation.dtype)
        rectified = deviation * density + mean * ndtr(ratio)
        if activation == "relu":
            return rectified
        return LEAKY_SLOPE * mean + (1 - LEAKY_SLOPE) * rectified
    nodes, weights = np.polynomial.hermite_e.hermegauss(32)
    phi = activation_function(activation)
    terms = [
        float(weight) * phi(mean + float(node) * deviation)
        for node, weight in zip(nodes, weights / np.sqrt(2 * np.pi), strict=True)
    ]
    return sum(terms[1:], terms[0])
