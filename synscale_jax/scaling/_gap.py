"""The gap ẑ between a layer's target activity and its measured one, in every reading."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from synscale_jax.scaling._activations import (
    activation_function,
    gaussian_mean,
    uniform_mean,
)
from synscale_jax.scaling._layers import Layer, is_hole, leaves_by_path

Number = float | Array

TARGETS: tuple[str, ...] = ("layer_noise", "layer_noise_sampled", "uniform")
MEASUREMENTS = ("batch", "noise")
GRANULARITIES = ("neuron", "layer")
NORM_READINGS = ("pre_norm", "batch_norm", "running_norm")

UNIFORM_VARIANCE = 1 / 3  # of U(−1, 1)
NOTEBOOK_NOISE_SHIFT = 0.1  # the authors' notebook measures on U(−1, 1) + 0.1
NORM_EPSILON = 1e-5


class NormLeaves(NamedTuple):
    """Parameters and running statistics of a batch normalisation, each of shape (channels,)."""

    scale: Array
    bias: Array
    mean: Array | None
    var: Array | None


@dataclasses.dataclass(frozen=True)
class Reading:
    """How target and activity are read from the paper; see :func:`synscale_jax.synscaw`."""

    target: str | Number = "layer_noise"
    measured_on: str = "batch"
    granularity: str = "neuron"
    norm_reading: str = "pre_norm"
    noise_batch: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        _one_of("measured_on", self.measured_on, MEASUREMENTS)
        _one_of("granularity", self.granularity, GRANULARITIES)
        _one_of("norm_reading", self.norm_reading, NORM_READINGS)
        finite = not isinstance(self.target, int | float | np.number) or math.isfinite(self.target)
        if np.ndim(self.target):
            raise ValueError(
                f"target of shape {np.shape(self.target)} is no reading: use one of "
                f"{', '.join(TARGETS)}, or one number for all neurons."
            )
        if isinstance(self.target, str | None) or not finite:
            _one_of("target", self.target, (*TARGETS, "or a number"))
        if self.measured_on == "noise" and self.norm_reading != "pre_norm":
            raise ValueError(
                f"norm_reading={self.norm_reading!r} reads behind the normalisation, "
                "measured_on='noise' in front of it: use norm_reading='pre_norm' with noise."
            )
        if self.noise_batch < 1:
            raise ValueError(f"noise_batch={self.noise_batch} is no batch: use 1 or more.")

    @property
    def needs_noise(self) -> bool:
        """Whether this reading draws random numbers."""
        return self.target == "layer_noise_sampled" or self.measured_on == "noise"

    @property
    def needs_bias(self) -> bool:
        """Whether the layer's bias enters the target or the measurement."""
        return self.measured_on == "noise" or self.target in ("layer_noise", "layer_noise_sampled")

    def gap(
        self,
        layer: Layer,
        kernel: Array,
        bias: Array | None,
        norm: NormLeaves | None,
        activity: Array | None,
        key: Array | None,
    ) -> Array:
        """ẑ = z̄_target − z̄ of one layer, of the shape of its postsynaptic axes, float32."""
        pre, post = layer.axes.split(kernel.ndim)
        weights = jnp.moveaxis(kernel, post, range(-len(post), 0)).astype(jnp.float32)
        neurons = weights.shape[len(pre) :]
        weights = weights.reshape(-1, *neurons)  # (synapses of a neuron, neurons...)
        shift = jnp.zeros(neurons, jnp.float32) if bias is None else bias.astype(jnp.float32)
        if self.measured_on == "noise":
            noise = self._noise(key, weights.shape[0], 1) + NOTEBOOK_NOISE_SHIFT
            measured = _noise_activity(layer, noise, weights, shift)
        else:
            assert activity is not None
            measured = activity.astype(jnp.float32)
        gap = self._target(layer, weights, shift, norm, key) - measured
        if self.granularity == "layer":
            gap = jnp.broadcast_to(jnp.mean(gap), gap.shape)
        return _computed_once(gap.astype(jnp.float32))

    def _noise(self, key: Array | None, inputs: int, stream: int) -> Array:
        assert key is not None
        return jax.random.uniform(
            jax.random.fold_in(key, stream), (self.noise_batch, inputs), jnp.float32, -1.0, 1.0
        )

    def _target(
        self, layer: Layer, weights: Array, bias: Array, norm: NormLeaves | None, key: Array | None
    ) -> Array:
        """z̄_target per neuron."""
        if not isinstance(self.target, str):
            return jnp.broadcast_to(jnp.asarray(self.target, jnp.float32), weights.shape[1:])
        if self.target == "uniform":
            return jnp.broadcast_to(uniform_mean(layer.activation), weights.shape[1:])
        through_norm = layer.norm is not None and self.norm_reading != "pre_norm"
        if self.target == "layer_noise_sampled":
            noise = self._noise(key, weights.shape[0], 0)
            drive = jnp.tensordot(noise, weights, 1) + bias[None]
            if through_norm:
                mean, deviation = drive.mean(0), drive.std(0)
                scale, shift = self._norm_line(norm, mean, deviation)
                drive = drive * scale[None] + shift[None]
            return activation_function(layer.activation)(drive).mean(0)
        mean = bias
        deviation = jnp.sqrt(UNIFORM_VARIANCE * jnp.sum(jnp.square(weights), 0))
        if through_norm:
            scale, shift = self._norm_line(norm, mean, deviation)
            mean, deviation = mean * scale + shift, deviation * jnp.abs(scale)
        return gaussian_mean(layer.activation, mean, deviation)

    def _norm_line(
        self, norm: NormLeaves | None, mean: Array, deviation: Array
    ) -> tuple[Array, Array]:
        """The normalisation of noise as a line y = scale·x + shift, per neuron."""
        assert norm is not None
        if self.norm_reading == "running_norm":
            assert norm.mean is not None and norm.var is not None
            mean, variance = norm.mean, norm.var
        else:
            variance = jnp.square(deviation)
        scale = norm.scale * jax.lax.rsqrt(variance + NORM_EPSILON)
        return scale, norm.bias - mean * scale


def _computed_once(gap: Array) -> Array:
    """The gap, behind a sum that changes nothing.

    XLA fuses what is cheap into every use, so that each weight would compute its neuron's Gaussian
    integral anew, half of the cost of a scaling step. It never fuses the result of a reduction,
    and on the CPU it drops ``optimization_barrier`` before it fuses.
    """
    first = jax.lax.broadcasted_iota(jnp.int32, (2, *gap.shape), 0) == 0
    return jnp.sum(jnp.where(first, gap[None], 0), 0)


def sums_over(axes: tuple[int, ...], *terms: Array) -> list[Array]:
    """Sums of several terms over the same axes, which are kept, in one pass over memory.

    XLA's CPU backend writes the terms of separate sums to memory first; those of one reduction
    with several operands it computes in registers, fast if few elements meet in each result.
    """
    count = math.prod(terms[0].shape[axis] for axis in axes)
    few = math.gcd(count, 16)
    kept = [size for axis, size in enumerate(terms[0].shape) if axis not in axes]
    fronted = [jnp.moveaxis(term, axes, range(len(axes))) for term in terms]
    blocks = [term.reshape(few, count // few, *kept) for term in fronted]
    zeros = [jnp.zeros([], term.dtype) for term in terms]
    partial = jax.lax.reduce(blocks, zeros, lambda a, b: jax.tree.map(jnp.add, a, b), (0,))
    return [jnp.expand_dims(jnp.sum(part, 0), axes) for part in partial]


def _noise_activity(layer: Layer, noise: Array, weights: Array, bias: Array) -> Array:
    """Mean of φ(W u + b) over a batch of noise, the layer fed on its own."""
    drive = jnp.tensordot(noise, weights, 1) + bias[None]
    return activation_function(layer.activation)(drive).mean(0)


def _one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}={value!r} is no reading: use one of {', '.join(allowed)}.")


class LayerInputs:
    """Finds what a layer's gap is made of in the trees a user passed, or says what is wrong."""

    def __init__(self, params: Any, activity: Any, batch_stats: Any) -> None:
        self._params = leaves_by_path(params)
        self._activity = leaves_by_path({} if activity is None else activity)
        self._stats = leaves_by_path({} if batch_stats is None else batch_stats)

    def kernel(self, layer: Layer) -> Array | None:
        """The kernel, or None where a mask hides it."""
        path = (*layer.path, layer.kernel)
        if path not in self._params:
            known = ", ".join("/".join(path) for path in self._params)
            raise ValueError(
                f"layer {layer.name!r} has no leaf {layer.kernel!r} among the parameters: {known}."
            )
        kernel = self._params[path]
        return None if is_hole(kernel) else kernel

    def bias(self, layer: Layer, reading: Reading) -> Array | None:
        """The bias, where the layer has one and the reading asks for it."""
        if layer.bias is None or not reading.needs_bias:
            return None
        path = (*layer.path, layer.bias)
        if path not in self._params:
            raise ValueError(
                f"layer {layer.name!r} has no leaf {layer.bias!r} among the parameters: give "
                "Layer(..., bias=None) for one without bias."
            )
        bias = self._params[path]
        if is_hole(bias):
            raise ValueError(
                f"the bias of layer {layer.name!r} is hidden by optax.masked or optax.partition, "
                f"but target={reading.target!r} needs it: give the mask to synscaw(mask=...) "
                "instead, or label the whole layer."
            )
        return bias

    def norm(self, layer: Layer, reading: Reading) -> NormLeaves | None:
        """The normalisation's parameters and statistics, where the reading goes through it."""
        if layer.norm is None or reading.norm_reading == "pre_norm" or not reading.needs_bias:
            return None
        found: dict[str, Any] = {
            name: self._params.get((*layer.norm, name)) for name in ("scale", "bias")
        }
        found |= {name: self._stats.get((*layer.norm, name)) for name in ("mean", "var")}
        needed = ("scale", "bias")
        if reading.norm_reading == "running_norm":
            needed = (*needed, "mean", "var")
        for name in needed:
            if is_hole(found[name]):
                raise ValueError(
                    f"norm_reading={reading.norm_reading!r} needs {name!r} of the normalisation "
                    f"{'/'.join(layer.norm)!r} behind layer {layer.name!r}: pass batch_stats= to "
                    "update, and hide no norm from synscaw."
                )
        return NormLeaves(**found)

    def activity(self, layer: Layer, kernel: Array) -> Array:
        """The measured activity, one number a neuron."""
        if layer.path not in self._activity:
            known = ", ".join("/".join(path) for path in self._activity) or "nothing"
            raise ValueError(
                f"activity= has no entry for layer {layer.name!r} (it has {known}): key it by the "
                "parameters' own module names, as the collectors in synscale_jax.adapters do."
            )
        value = self._activity[layer.path]
        _, post = layer.axes.split(kernel.ndim)
        neurons = tuple(kernel.shape[axis] for axis in post)
        if value.shape != neurons:
            raise ValueError(
                f"activity of layer {layer.name!r} has shape {value.shape}, but kernel "
                f"{kernel.shape} has neurons of shape {neurons}: pass the mean of φ(W x + b) over "
                "the batch and all positions."
            )
        return value
