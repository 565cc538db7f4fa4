"""What runs keep beside loss and accuracy: how large weights get, how log-normal they are."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from synscale_jax.adapters.linen import apply_collecting
from synscale_jax.analysis.lognormal import (
    LogNormalFit,
    Tally,
    fit,
    held_out_likelihood,
    kernels,
    merge,
    tally,
    tally_all,
)
from synscale_jax.scaling._layers import leaves_by_path
from synscale_jax.training.loop import Measures
from synscale_jax.training.program import Program, TrainState


def largest_weight(program: Program, state: TrainState) -> Mapping[str, Any]:
    """The largest magnitude of all kernels."""
    largest = (jnp.abs(kernel).max() for kernel in kernels(state.params, program.layers).values())
    return {"largest_weight": max(map(float, largest))}


def weight_divergence(program: Program, state: TrainState) -> dict[str, Any]:
    """How far the positive weights are from a log-normal, by layer and pooled.

    Returns:
      Layer name or ``"pooled"`` -> the numbers of a
      :class:`~synscale_jax.analysis.lognormal.LogNormalFit`; pooled with ``"likelihood"``, mean
      log-likelihood of every second weight under distributions fitted to the others.
    """
    values = kernels(state.params, program.layers)
    fits = _fits({name: tally_all(kernel) for name, kernel in values.items()})
    every = np.concatenate([np.ravel(kernel) for kernel in values.values()])
    halves = tally_all(every[::2]), tally_all(every[1::2])
    fits["pooled"]["likelihood"] = held_out_likelihood(*halves)
    return fits


def activation_divergence(program: Program, state: TrainState) -> dict[str, Any]:
    """How far the positive activations on the test set are from a log-normal.

    The activations are what every scaled layer but the first one receives: all that hidden neurons
    put out. A shortcut receives what the convolution beside it does and is not counted again.

    Returns:
      As of :func:`weight_divergence`, by receiving layer and pooled.
    """
    count = _counter(program)
    images: Any = program.splits.test.images
    size = program.config.eval_batch
    parts = [
        jax.device_get(count(state, images[start : start + size]))
        for start in range(0, len(images), size)
    ]
    return _fits({name: merge(*(part[name] for part in parts)) for name in parts[0]})


@functools.lru_cache(maxsize=1)  # compiled once a program
def _counter(program: Program) -> Callable[[TrainState, Array], dict[str, Tally]]:
    """State and images -> a tally of what each layer but the first one receives."""
    hidden = [layer for layer in program.layers[1:] if not layer.name.endswith("shortcut")]

    @jax.jit
    def count(state: TrainState, images: Array) -> dict[str, Tally]:
        _, _, collected = apply_collecting(
            program.model,
            {"params": state.params, "batch_stats": state.batch_stats},
            program.pixels(images),
            layers=program.layers,
            presynaptic=True,
            train=False,
        )
        received = leaves_by_path(collected.presynaptic)
        return {layer.name: tally(received[layer.path]) for layer in hidden}

    return count


def divergences(program: Program, state: TrainState) -> dict[str, Any]:
    """Both divergences."""
    return {
        "weights": weight_divergence(program, state),
        "activations": activation_divergence(program, state),
    }


def _pooled(program: Program, state: TrainState) -> Mapping[str, Any]:
    """Both divergences of all layers together, as two numbers."""
    both = divergences(program, state)
    return {f"{name}_divergence": parts["pooled"]["divergence"] for name, parts in both.items()}


def _before_and_after(program: Program, first: TrainState, last: TrainState) -> Mapping[str, Any]:
    return {"initial": divergences(program, first), "final": divergences(program, last)}


def _fits(tallies: Mapping[str, Tally]) -> dict[str, Any]:
    fits = {name: fit(counted) for name, counted in tallies.items()}
    fits["pooled"] = fit(merge(*tallies.values()))
    return {name: _numbers(fitted) for name, fitted in fits.items()}


def _numbers(fitted: LogNormalFit) -> dict[str, Any]:
    """As JSON has it, which has no number for nan."""
    return {name: value if np.isfinite(value) else None for name, value in fitted._asdict().items()}


WEIGHTS = Measures(each_epoch=largest_weight)
"""How large the weights get, after each epoch."""

DIVERGENCES = Measures(each_epoch=largest_weight, at_end=_before_and_after)
"""Also how log-normal weights and test activations are, before and after training."""

DIVERGENCE_CURVES = Measures(each_epoch=_pooled, at_end=_before_and_after)
"""How log-normal weights and test activations are, after each epoch."""
