"""Weights trained in PyTorch, for the models of this package."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from synscale_jax.models.mlp import MLP
from synscale_jax.models.resnet import ResNet

Leaf = tuple[str, ...]  # ("params", "head", "kernel")
Sources = dict[Leaf, tuple[str, np.ndarray]]  # the entry's name in PyTorch, and its value in flax

_BLOCK = r"layer(\d+)\.(\d+)\."
_MODULES = {  # torchvision's names and those of the usual CIFAR ResNets
    r"conv1": "conv_stem",
    r"bn1": "norm_stem",
    r"fc|linear": "head",
    _BLOCK + r"conv(\d)": r"stage\1_block\2/conv\3",
    _BLOCK + r"bn(\d)": r"stage\1_block\2/norm\3",
    _BLOCK + r"(?:downsample|shortcut)\.0": r"stage\1_block\2/conv_shortcut",
    _BLOCK + r"(?:downsample|shortcut)\.1": r"stage\1_block\2/norm_shortcut",
}
_NORM_LEAVES = {
    "weight": ("params", "scale"),
    "bias": ("params", "bias"),
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
}
_LEAVES = {"weight": ("params", "kernel"), "bias": ("params", "bias")}


def from_pytorch(
    state_dict: Mapping[str, Any] | str | os.PathLike[str],
    model: MLP | ResNet,
    *,
    image_shape: tuple[int, int, int] | None = None,
) -> dict[str, Any]:
    r"""Converts a PyTorch state dict to the variables of a model; the logits stay the same.

    Linear weights (out, in) become kernels (in, out), convolutions OIHW become HWIO, and a batch
    norm's weight, bias, running mean and variance become scale, bias, mean and var. ResNets go by
    name: torchvision's (``layer1.0.conv1``, ``downsample.0``, ``fc``) or the usual CIFAR ones
    (``shortcut.0``, ``linear``). MLPs go by order, whatever their linear layers are called: the
    state dict's own order, or the names' natural order in ``.safetensors``, which keeps none.
    ``module.`` in front of every name and ``num_batches_tracked`` are dropped.

    Args:
      state_dict: arrays or tensors by name, alone or below the key ``"state_dict"``, or the path
        of a ``.npz``, ``.safetensors`` (needs safetensors), ``.pt`` or ``.pth`` file (needs
        PyTorch; loaded with ``weights_only=True``). No file can run code.
      model: the model to fill.
      image_shape: ``(height, width, channels)`` of the images an :class:`MLP` was trained on.
        PyTorch flattens (channels, height, width) and this package (height, width, channels), so
        with more than one channel the first kernel's rows must be permuted: give it then.

    Returns:
      ``{"params": …}`` and for a :class:`ResNet` ``"batch_stats"`` as well; parameters in
      ``model.param_dtype``, statistics in float32.

    Raises:
      ValueError: if entries are missing, unexpected or misshapen, if ``image_shape`` does not
        fit, or if the file has another suffix.
      ImportError: if the package that reads the file is not installed.

    Examples:
      >>> import jax.numpy as jnp, numpy as np
      >>> from synscale_jax.models import MLP, from_pytorch
      >>> state_dict = {
      ...     "0.weight": np.ones((8, 4)), "0.bias": np.zeros(8),
      ...     "2.weight": np.ones((3, 8)), "2.bias": np.zeros(3),
      ... }
      >>> model = MLP(features=(8,), num_classes=3)
      >>> variables = from_pytorch(state_dict, model)
      >>> print(model.apply(variables, jnp.ones((1, 4))))
      [[32. 32. 32.]]

    References:
      `torchvision.models.resnet
      <https://docs.pytorch.org/vision/stable/models/resnet.html>`_, for the names.
    """
    entries, ordered = _read(state_dict)
    if isinstance(model, MLP):
        sources, unexpected = _mlp_sources(entries, ordered, len(model.features), image_shape)
    else:
        if image_shape is not None:
            raise ValueError(f"image_shape is for an MLP, got {image_shape} with a ResNet.")
        sources, unexpected = _resnet_sources(entries)
    return _assemble(sources, unexpected, _template(model, sources))


def _read(source: Mapping[str, Any] | str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], bool]:
    """Returns the entries, and whether they stand in the order of definition."""
    loaded = source if isinstance(source, Mapping) else _read_file(Path(source))
    ordered = isinstance(source, Mapping) or Path(source).suffix != ".safetensors"
    loaded = loaded.get("state_dict", loaded)
    entries = {name: _to_numpy(value) for name, value in loaded.items()}
    if all(name.startswith("module.") for name in entries):  # DataParallel's
        entries = {name.removeprefix("module."): value for name, value in entries.items()}
    entries = {name: v for name, v in entries.items() if not name.endswith("num_batches_tracked")}
    return entries, ordered


def _read_file(path: Path) -> Mapping[str, Any]:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    if path.suffix == ".safetensors":
        return _import("safetensors.numpy", "safetensors", path).load_file(path)
    if path.suffix in (".pt", ".pth"):
        return _import("torch", "torch", path).load(path, map_location="cpu", weights_only=True)
    raise ValueError(f"A state dict is read from .npz, .safetensors, .pt or .pth, got {path}.")


def _import(module: str, package: str, path: Path) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"Reading {path.name} needs {package}: pip install {package}, or save the state dict "
            "as .npz with numpy.savez."
        ) from error


def _to_numpy(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):  # a tensor; numpy knows no bfloat16
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() else value).numpy()
    return np.asarray(value)


def _mlp_sources(
    entries: dict[str, np.ndarray],
    ordered: bool,
    hidden: int,
    image_shape: tuple[int, int, int] | None,
) -> tuple[Sources, list[str]]:
    layers = [
        name.removesuffix(".weight")
        for name, value in entries.items()
        if name.endswith(".weight") and value.ndim == 2
    ]
    if not ordered:
        layers.sort(key=_natural)
    names = [*(f"dense{i}" for i in range(hidden)), "head"]
    sources: Sources = {}
    for ours, theirs in zip(names, layers, strict=False):
        for theirs_leaf, (collection, leaf) in _LEAVES.items():
            name = f"{theirs}.{theirs_leaf}"
            if name in entries:
                sources[collection, ours, leaf] = (name, entries[name].T)
    if image_shape is not None and layers:
        first = ("params", names[0], "kernel")
        name, kernel = sources[first]
        sources[first] = (name, _rows_channels_last(kernel, image_shape))
    return sources, _unused(entries, sources)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key by which layer 10 follows layer 9."""
    parts = re.findall(r"\d+|\D+", name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def _rows_channels_last(kernel: np.ndarray, image_shape: tuple[int, int, int]) -> np.ndarray:
    height, width, channels = image_shape
    if height * width * channels != kernel.shape[0]:
        raise ValueError(
            f"image_shape {image_shape} has {height * width * channels} values, but the first "
            f"linear layer takes {kernel.shape[0]}."
        )
    rows = kernel.reshape(channels, height, width, -1)
    return rows.transpose(1, 2, 0, 3).reshape(kernel.shape)


def _resnet_sources(entries: dict[str, np.ndarray]) -> tuple[Sources, list[str]]:
    sources: Sources = {}
    for name, value in entries.items():
        module, _, leaf = name.rpartition(".")
        matches = ((re.fullmatch(theirs, module), ours) for theirs, ours in _MODULES.items())
        path = next((match.expand(ours) for match, ours in matches if match), "")
        leaves = _NORM_LEAVES if "norm" in path else _LEAVES
        if path and leaf in leaves:
            collection, ours = leaves[leaf]
            value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
            sources[collection, *path.split("/"), ours] = (name, value)
    return sources, _unused(entries, sources)


def _unused(entries: dict[str, np.ndarray], sources: Sources) -> list[str]:
    used = {name for name, _ in sources.values()}
    return [name for name in entries if name not in used]


def _template(model: MLP | ResNet, sources: Sources) -> dict[Leaf, jax.ShapeDtypeStruct]:
    """The model's variables by shape and dtype; the inputs' width is what the weights say."""
    first = model.layer_table()[0]
    _, kernel = sources.get(("params", *first.path, first.kernel), ("", np.zeros(0)))
    inputs = kernel.shape[-2] if kernel.ndim > 1 else 1
    x = jnp.zeros((1, inputs) if isinstance(model, MLP) else (1, 8, 8, inputs))
    shapes: Any = jax.eval_shape(lambda key: model.init(key, x, train=False), jax.random.key(0))
    flat: Any = flatten_dict(shapes)
    return flat


def _assemble(
    sources: Sources, unexpected: list[str], template: dict[Leaf, jax.ShapeDtypeStruct]
) -> dict[str, Any]:
    missing = ["/".join(leaf[1:]) for leaf in template if leaf not in sources]
    unexpected = unexpected + [name for leaf, (name, _) in sources.items() if leaf not in template]
    misshapen = [
        f"{name} for {'/'.join(leaf[1:])} (shape {value.shape} in flax's layout, "
        f"needs {template[leaf].shape})"
        for leaf, (name, value) in sources.items()
        if leaf in template and value.shape != template[leaf].shape
    ]
    lists = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen}
    faults = [f"{what}: {', '.join(names)}" for what, names in lists.items() if names]
    if faults:
        raise ValueError(f"The state dict does not fit the model; {'; '.join(faults)}.")
    leaves = {leaf: jnp.asarray(sources[leaf][1], like.dtype) for leaf, like in template.items()}
    return unflatten_dict(leaves)
