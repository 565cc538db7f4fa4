"""Collect activities from flax.nnx models."""

from __future__ import annotations

import contextlib
import functools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from flax import nnx

from synscale_jax.adapters._collected import Collected, collected, places
from synscale_jax.scaling._layers import Layer, Path


def call_collecting(
    model: nnx.Module,
    *inputs: Any,
    layers: Sequence[Layer],
    norm_reading: str = "pre_norm",
    presynaptic: bool = False,
    postsynaptic: bool = False,
    **kwargs: Any,
) -> tuple[Any, Collected]:
    """Call an nnx model and collect the mean activity of its layers.

    The activity of a neuron is the mean of φ(W x + b) over the batch and all positions; the
    gradient is stopped. Layers inside ``nnx.scan``, ``nnx.vmap`` or ``nnx.remat`` of the model's
    own are traced apart and cannot be collected.

    Args:
      model: the model.
      *inputs: what it is called with.
      layers: the layer table, with attribute names as paths;
        ``synscale_jax.layers_from_names(nnx.state(model, nnx.Param))`` makes a simple one.
      norm_reading: where normalised layers are read, as in :func:`synscale_jax.synscaw`.
      presynaptic: whether to return what entered each layer, too.
      postsynaptic: whether to return what each layer's neurons put out, batch kept.
      **kwargs: keyword arguments of the model.

    Returns:
      The model's output and a :class:`Collected`.

    Raises:
      ValueError: if a layer of the table was called more or less than once.

    Examples:
      >>> import jax, jax.numpy as jnp, synscale_jax as ss
      >>> from flax import nnx
      >>> from synscale_jax.adapters.nnx import call_collecting
      >>> model = nnx.Sequential(nnx.Linear(3, 4, rngs=nnx.Rngs(0)), nnx.relu)
      >>> layers = ss.layers_from_names(nnx.state(model, nnx.Param))
      >>> output, collected = call_collecting(model, jnp.ones((8, 3)), layers=layers)
      >>> jax.tree.map(jnp.shape, collected.activity)
      {'layers': {'0': (4,)}}
    """
    wanted = set(places(layers, norm_reading)) | {layer.path for layer in layers}
    with _recording(model, wanted) as calls:
        output = model(*inputs, **kwargs)
    return output, collected(
        layers,
        norm_reading,
        lambda path: [out for _, out in calls[path]],
        (lambda path: [entered for entered, _ in calls[path]]) if presynaptic else None,
        postsynaptic,
    )


@contextlib.contextmanager
def _recording(model: nnx.Module, wanted: set[Path]) -> Iterator[dict[Path, list]]:
    """Let the wanted modules note input and output of each call, and put them back as they were."""
    calls: dict[Path, list] = defaultdict(list)
    changed = []
    for key_path, module in nnx.iter_modules(model):
        path = tuple(str(part) for part in key_path)
        if path in wanted:
            changed.append((module, type(module)))
            object.__setattr__(module, "__class__", _recorded(type(module)))
            _RECORDS[id(module)] = calls[path]
    try:
        yield calls
    finally:
        for module, kind in changed:
            object.__setattr__(module, "__class__", kind)
            del _RECORDS[id(module)]


_RECORDS: dict[int, list] = {}


@functools.cache
def _recorded(kind: type) -> type:
    """A subclass that notes its calls: Python looks ``__call__`` up on the class alone."""

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = kind.__call__(self, *args, **kwargs)
        record = _RECORDS.get(id(self))  # a copy, as nnx.jit makes one, has none
        if record is not None:
            record.append((args[0] if args else next(iter(kwargs.values())), output))
        return output

    return type(kind)(f"Recorded{kind.__name__}", (kind,), {"__call__": call})
