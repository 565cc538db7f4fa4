"""Which layers are scaled, and which axes of a kernel are postsynaptic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import optax

from synscale_jax.scaling._activations import Activation

Path = tuple[str, ...]


class SynapseAxes(NamedTuple):
    """Where a kernel keeps its neurons.

    Attributes:
      post: the postsynaptic axis or axes (output units, channels); the others are presynaptic.
    """

    post: int | tuple[int, ...] = -1

    def split(self, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the presynaptic and the postsynaptic axes of a kernel of this rank."""
        post = self.post if isinstance(self.post, tuple) else (self.post,)
        post = tuple(axis % rank for axis in post)
        return tuple(axis for axis in range(rank) if axis not in post), post


class Layer(NamedTuple):
    """One scaled layer: a kernel, what is added to its product, and what its neurons fire.

    Attributes:
      path: module names that lead to the layer, e.g. ``("stage1_block0", "conv1")``.
      kernel: name of the kernel's leaf below ``path``.
      bias: name of the bias leaf below ``path``, or None.
      norm: path of the normalisation that consumes the layer's output, or None.
      activation: φ, by name (see :data:`synscale_jax.scaling.ACTIVATIONS`) or as a function.
      axes: which axes of the kernel are postsynaptic.
      output: whether this is an output layer, whose activity the task sets.
    """

    path: Path
    kernel: str = "kernel"
    bias: str | None = "bias"
    norm: Path | None = None
    activation: Activation = "relu"
    axes: SynapseAxes = SynapseAxes()
    output: bool = False

    @property
    def name(self) -> str:
        """The path as text, e.g. ``"stage1_block0/conv1"``."""
        return "/".join(self.path)


def is_hole(leaf: Any) -> bool:
    """Whether a leaf is a gap in the tree: None, or what :func:`optax.masked` leaves behind."""
    return leaf is None or isinstance(leaf, optax.MaskedNode)


def path_of(key_path: Sequence[Any]) -> Path:
    """Module and leaf names of a key path, without flax's outer ``params`` or nnx's ``.value``."""
    # nnx.State ends its paths in an attribute `.value`; under nnx.Optimizer it does not. A module
    # of attention may be called "value", too, but that is a dictionary's key.
    if key_path and key_path[-1] == jax.tree_util.GetAttrKey("value"):
        key_path = key_path[:-1]
    names = tuple(jax.tree_util.keystr((key,), simple=True) for key in key_path)
    return names[1:] if names[:1] == ("params",) else names


def leaves_by_path(tree: Any) -> dict[Path, Any]:
    """Every leaf of a tree under its path, holes included."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_hole)
    return {path_of(key_path): leaf for key_path, leaf in leaves}


def layers_from_names(
    params: Any, activation: Activation = "relu", *, head: str | None = None
) -> tuple[Layer, ...]:
    """Derive the layer table from the parameters' own names.

    Every leaf called ``kernel`` is a layer: the ``bias`` beside it is its bias, the last axis is
    postsynaptic, and there is no normalisation. Leaves with other names (``embedding``, ``scale``)
    are no layers.

    Args:
      params: a tree of parameters, as nested dicts or an nnx state.
      activation: φ of every layer.
      head: name of the output layer, with ``/`` between modules; None marks none.

    Returns:
      One :class:`Layer` a kernel, in the tree's order.

    Raises:
      ValueError: if there is no kernel, or one whose postsynaptic axis its name does not tell, or
        no layer of the head's name.

    Examples:
      >>> import jax.numpy as jnp
      >>> from synscale_jax import layers_from_names
      >>> params = {"dense": {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)}}
      >>> [(layer.name, layer.bias) for layer in layers_from_names(params)]
      [('dense', 'bias')]
    """
    leaves = leaves_by_path(params)
    table = []
    for path, kernel in leaves.items():
        if path[-1] != "kernel" or is_hole(kernel):
            continue
        bias = leaves.get((*path[:-1], "bias"))
        _refuse_unclear_axes(path[:-1], kernel, bias)
        name = None if bias is None else "bias"
        output = head == "/".join(path[:-1])
        table.append(Layer(path[:-1], bias=name, activation=activation, output=output))
    if not table:
        found = ", ".join("/".join(path) for path in leaves) or "an empty tree"
        raise ValueError(
            f"no leaf called 'kernel' to scale among {found}: name the layers with layers=."
        )
    if head is not None and not any(layer.output for layer in table):
        found = ", ".join(layer.name for layer in table)
        raise ValueError(f"head={head!r} is no layer with a kernel: use one of {found}.")
    return tuple(table)


def _refuse_unclear_axes(path: Path, kernel: Any, bias: Any) -> None:
    """Refuse a kernel whose rank leaves open which axes are postsynaptic (DenseGeneral)."""
    if kernel.ndim < 2:
        reason = "is no matrix"
    elif bias is not None and not is_hole(bias) and bias.ndim != 1:
        reason = f"has a bias of shape {bias.shape}, so several output axes (DenseGeneral)"
    elif bias is None and kernel.ndim == 3:
        reason = "and no bias may be a DenseGeneral or a one-dimensional convolution"
    else:
        return
    raise ValueError(
        f"kernel {'/'.join(path)!r} of shape {kernel.shape} {reason}: say which axes are "
        "postsynaptic with layers=[Layer(path, axes=SynapseAxes(post=...)), ...]."
    )
