"""What a collector returns, in one form for linen and nnx."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from synscale_jax.scaling._activations import activation_function
from synscale_jax.scaling._gap import NORM_READINGS
from synscale_jax.scaling._layers import Layer, Path


class Collected(NamedTuple):
    """What the layers of one forward pass did.

    Attributes:
      activity: mean of φ over the batch and all positions, one number a neuron, as nested dicts
        under the layers' module names: what ``synscaw`` takes as ``activity=``.
      presynaptic: what entered each layer, batch kept, in the same form, 0 for examples that do
        not count; empty unless asked for.
      postsynaptic: φ of each layer's drive, batch kept, in the same form; empty unless asked for.
    """

    activity: dict[str, Any]
    presynaptic: dict[str, Any]
    postsynaptic: dict[str, Any]


def places(layers: Sequence[Layer], norm_reading: str) -> dict[Path, Layer]:
    """Where each layer's activity is read: its own output, or that of its normalisation."""
    if norm_reading not in NORM_READINGS:
        raise ValueError(
            f"norm_reading={norm_reading!r} is no reading: use one of {', '.join(NORM_READINGS)}."
        )
    if any(not layer.path for layer in layers):
        raise ValueError(
            "a model that is a single layer has no name for it: put it into another, as in "
            "nn.Sequential([layer])."
        )
    behind = norm_reading != "pre_norm"
    return {layer.norm if behind and layer.norm else layer.path: layer for layer in layers}


def collected(
    layers: Sequence[Layer],
    norm_reading: str,
    outputs: Callable[[Path], Sequence[Array]],
    inputs: Callable[[Path], Sequence[Array]] | None,
    postsynaptic: bool,
    *,
    activities: Callable[[Path], Sequence[Array]] = lambda path: (),
    where: Array | None = None,
) -> Collected:
    """Turn what was recorded at each module path into mean activities.

    A module that sowed its own mean activity is believed; ``where`` says which examples count, and
    is refused for such a module.
    """
    activity: dict[str, Any] = {}
    presynaptic: dict[str, Any] = {}
    put_out: dict[str, Any] = {}
    for place, layer in places(layers, norm_reading).items():
        own = activities(layer.path)
        if own and where is not None:
            raise ValueError(
                f"where= cannot leave examples out of the mean activity that module "
                f"{layer.name!r} makes itself: leave them out of the batch."
            )
        if own:
            _put(activity, layer.path, jax.lax.stop_gradient(_only(own, layer.path)))
        if postsynaptic or not own:
            drive = jax.lax.stop_gradient(_only(outputs(place), place))
            fired = activation_function(layer.activation)(drive)
            if not own:
                _put(activity, layer.path, _mean(fired, layer, where))
            if postsynaptic:
                _put(put_out, layer.path, fired)
        if inputs is not None:
            entered = jax.lax.stop_gradient(_only(inputs(layer.path), layer.path))
            if where is not None:  # what does not count is silent
                entered = jnp.where(where.reshape(-1, *(1,) * (entered.ndim - 1)), entered, 0)
            _put(presynaptic, layer.path, entered)
    return Collected(activity, presynaptic, put_out)


def _mean(fired: Array, layer: Layer, where: Array | None) -> Array:
    """Mean over the batch and all positions, one number a neuron; 0 where no example counts."""
    neurons = len(layer.axes.post) if isinstance(layer.axes.post, tuple) else 1
    counts = None if where is None else where.reshape(-1, *(1,) * (fired.ndim - 1))
    mean = fired.mean(tuple(range(fired.ndim - neurons)), where=counts)
    return mean if counts is None else jnp.where(jnp.any(counts), mean, 0)


def _only(recorded: Sequence[Array], path: Path) -> Array:
    if len(recorded) != 1:
        raise ValueError(
            f"module {'/'.join(path)!r} was called {len(recorded)} times in one forward pass: an "
            "activity belongs to a layer that is called once. Leave it out of layers=, or give a "
            "tied layer two modules."
        )
    return recorded[0]


def _put(tree: dict[str, Any], path: Path, value: Array) -> None:
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
    tree[path[-1]] = value
