"""Collect activities from flax.linen models, and derive the layer table of foreign ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from flax import linen as nn
from flax.training.train_state import TrainState

from synscale_jax.adapters._collected import Collected, collected, places
from synscale_jax.scaling._activations import Activation
from synscale_jax.scaling._layers import Layer, Path, SynapseAxes, leaves_by_path

Context = nn.module.InterceptorContext

ACTIVITY = "synapses"
"""The collection into which a module may sow its own mean activity, as ``"activity"``."""

_KERNELS = (nn.Dense, nn.Conv, nn.ConvTranspose, nn.DenseGeneral)
_NORMS = (nn.BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.InstanceNorm)


def apply_collecting(
    model: nn.Module,
    variables: Any,
    *inputs: Any,
    layers: Sequence[Layer],
    norm_reading: str = "pre_norm",
    presynaptic: bool = False,
    postsynaptic: bool = False,
    mutable: str | Sequence[str] = (),
    where: jax.Array | None = None,
    **kwargs: Any,
) -> tuple[Any, dict[str, Any], Collected]:
    """Apply a linen model and collect the mean activity of its layers.

    The activity of a neuron is the mean of φ(W x + b) over the batch and all positions; the
    gradient is stopped. A module that knows better, as a recurrent cell does, sows its mean
    activity as ``self.sow(ACTIVITY, "activity", value)``, and that is taken.

    Args:
      model: the model.
      variables: its variables, ``{"params": ..., "batch_stats": ...}``.
      *inputs: what the model is called with.
      layers: the layer table, from ``model.layer_table()`` or :func:`layers_of`.
      norm_reading: where normalised layers are read, as in :func:`synscale_jax.synscaw`.
      presynaptic: whether to return what entered each layer, too.
      postsynaptic: whether to return what each layer's neurons put out, batch kept.
      mutable: collections the model may change, e.g. ``"batch_stats"`` or several of them.
      where: which examples count, bool, shape (batch,); None: all.
      **kwargs: keyword arguments of the model, and ``rngs``.

    Returns:
      The model's output, the changed collections, and a :class:`Collected`.

    Raises:
      ValueError: if a layer of the table was called more or less than once, or ``where`` is given
        for a module that sows its own activity.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from flax import linen as nn
      >>> from synscale_jax.adapters.linen import apply_collecting, layers_of
      >>> model = nn.Sequential([nn.Dense(4), nn.relu, nn.Dense(2)])
      >>> x = jnp.ones((8, 3))
      >>> layers = layers_of(model, x, head="layers_2", verbose=False)
      >>> variables = model.init(jax.random.key(0), x)
      >>> logits, _, collected = apply_collecting(model, variables, x, layers=layers)
      >>> jax.tree.map(jnp.shape, collected.activity)
      {'layers_0': (4,), 'layers_2': (2,)}
    """
    outputs_at = places(layers, norm_reading)
    changeable = [mutable] if isinstance(mutable, str) else mutable or ()
    inputs_at = {layer.path for layer in layers} if presynaptic else set()

    def record(
        next_call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext
    ) -> Any:
        output = next_call(*args, **kwargs)
        if context.method_name == "__call__":
            if context.module.path in outputs_at:
                context.module.sow(ACTIVITY, "output", output)
            if context.module.path in inputs_at:
                entered = args[0] if args else next(iter(kwargs.values()))
                context.module.sow(ACTIVITY, "input", entered)
        return output

    with nn.intercept_methods(record):
        output, collections = model.apply(
            variables, *inputs, mutable=[*changeable, ACTIVITY], **kwargs
        )
    changed: dict[str, Any] = dict(collections)
    recorded = changed.pop(ACTIVITY, {})

    def read(path: Path, name: str) -> Sequence[Any]:
        node = recorded
        for part in path:
            node = node.get(part, {})
        return node.get(name, ())

    return (
        output,
        changed,
        collected(
            layers,
            norm_reading,
            lambda path: read(path, "output"),
            (lambda path: read(path, "input")) if presynaptic else None,
            postsynaptic,
            activities=lambda path: read(path, "activity"),
            where=where,
        ),
    )


class ScalingTrainState(TrainState):
    """A linen ``TrainState`` whose ``apply_gradients`` hands ``activity`` on to the optimizer."""

    def apply_gradients(self, *, grads: Any, extra: dict[str, Any] | None = None, **kwargs: Any):
        """Update the parameters; ``extra`` holds the optimizer's extra arguments.

        Args:
          grads: gradients, of the parameters' structure.
          extra: e.g. ``{"activity": collected.activity}``.
          **kwargs: fields to replace, as in ``TrainState``.
        """
        updates, opt_state = self.tx.update(grads, self.opt_state, self.params, **(extra or {}))
        params = jax.tree.map(lambda p, u: (p + u).astype(p.dtype), self.params, updates)
        return self.replace(step=self.step + 1, params=params, opt_state=opt_state, **kwargs)


def layers_of(
    model: nn.Module,
    *inputs: Any,
    activation: Activation = "relu",
    head: str | None = None,
    verbose: bool = True,
    **kwargs: Any,
) -> tuple[Layer, ...]:
    """Derive the layer table of a linen model from its Dense and Conv calls, in call order.

    The model is traced, not run. A normalisation called on the very output of a layer belongs to
    that layer. φ cannot be seen from outside and must be said.

    Args:
      model: a linen model.
      *inputs: what it is called with: arrays, or ``jax.ShapeDtypeStruct``.
      activation: φ of every layer.
      head: path of the output layer, e.g. ``"head"`` or ``"decoder/out"``; None marks none, and
        ``synscaw`` then scales every layer.
      verbose: whether to print the table.
      **kwargs: keyword arguments of the model.

    Returns:
      One :class:`synscale_jax.Layer` a kernel. Embeddings are listed in print and not scaled.

    Raises:
      ValueError: if a layer is called twice (tied), a normalisation does not belong to one layer,
        a kernel belongs to a module of unknown kind, or ``head`` is not found.

    Examples:
      >>> import jax.numpy as jnp
      >>> from flax import linen as nn
      >>> from synscale_jax.adapters.linen import layers_of
      >>> model = nn.Sequential([nn.Dense(4), nn.relu, nn.Dense(2)])
      >>> table = layers_of(model, jnp.ones((8, 3)), head="layers_2")
      layers_0  kernel (3, 4)  neurons on axis -1  relu
      layers_2  kernel (4, 2)  neurons on axis -1  relu  output
    """
    # Here, because some of our models import this module.
    from synscale_jax.models.feedback_alignment import FeedbackConv, FeedbackDense

    kinds = (*_KERNELS, FeedbackConv, FeedbackDense)
    calls: dict[Path, Layer] = {}
    notes: list[str] = []
    made_by: dict[int, Path] = {}
    alive: list[Any] = []  # keeps ids of traced outputs unique

    def watch(next_call: Any, args: Any, kwargs: Any, context: Context) -> Any:
        output = next_call(*args, **kwargs)
        module, path = context.module, context.module.path
        if context.method_name == "__call__":
            if isinstance(module, kinds):
                if path in calls:
                    raise ValueError(
                        f"layer {'/'.join(path)!r} is called twice (tied weights): "
                        "give synscaw a table without it."
                    )
                calls[path] = _layer(module, activation, head)
                made_by[id(output)] = path
                alive.append(output)
            elif isinstance(module, _NORMS):
                _pair(module, args[0], calls, made_by)
            elif isinstance(module, nn.Embed):
                notes.append(f"{'/'.join(path)}  embedding, not scaled")
        return output

    with nn.intercept_methods(watch):
        variables = jax.eval_shape(lambda *x: model.init(jax.random.key(0), *x, **kwargs), *inputs)
    return _checked(calls, variables["params"], head, notes, verbose)


def _layer(module: Any, activation: Activation, head: str | None) -> Layer:
    features = module.features if isinstance(module, nn.DenseGeneral) else 1
    rank = len(features) if isinstance(features, tuple | list) else 1
    if isinstance(module, nn.ConvTranspose) and module.transpose_kernel:
        axes = SynapseAxes(-2)
    else:
        axes = SynapseAxes(-1 if rank == 1 else tuple(range(-rank, 0)))
    path = module.path
    bias = "bias" if module.use_bias else None
    return Layer(path, "kernel", bias, None, activation, axes, output="/".join(path) == head)


def _pair(norm: nn.Module, entered: Any, calls: dict[Path, Layer], made_by: dict) -> None:
    path = made_by.get(id(entered))
    if path is None:
        raise ValueError(
            f"normalisation {'/'.join(norm.path)!r} is not called on the output of one Dense or "
            "Conv, so no layer can be paired with it: write the table by hand, "
            "layers=[synscale_jax.Layer(path, norm=...), ...]."
        )
    if isinstance(norm, nn.BatchNorm):
        calls[path] = calls[path]._replace(norm=norm.path)


def _checked(
    calls: dict[Path, Layer], params: Any, head: str | None, notes: list[str], verbose: bool
) -> tuple[Layer, ...]:
    """Compare the calls with the parameters, print the table and return it."""
    leaves = leaves_by_path(params)
    for path in leaves:
        if path[-1] == "kernel" and path[:-1] not in calls:
            raise ValueError(
                f"kernel {'/'.join(path)!r} belongs to a module of unknown kind: write the table "
                "by hand, layers=[synscale_jax.Layer(path, axes=...), ...]."
            )
    if head is not None and not any(layer.output for layer in calls.values()):
        known = ", ".join(layer.name for layer in calls.values())
        raise ValueError(f"head={head!r} is not among the layers {known}.")
    if verbose:
        for layer in calls.values():
            parts = [
                layer.name,
                f"kernel {leaves[(*layer.path, layer.kernel)].shape}",
                f"neurons on axis {layer.axes.post}",
                f"norm {'/'.join(layer.norm)}" if layer.norm else "",
                str(layer.activation),
                "output" if layer.output else "",
            ]
            print("  ".join(part for part in parts if part))
        print(*notes, sep="\n", end="\n" if notes else "")
    return tuple(calls.values())
