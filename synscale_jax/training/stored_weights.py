"""Kernels of trained networks, from the folder of a run or from a safetensors file."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import jax
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp

from synscale_jax.analysis.lognormal import kernels
from synscale_jax.data import load_images
from synscale_jax.training.cells import cells_named
from synscale_jax.training.config import TrainConfig
from synscale_jax.training.methods import baseline
from synscale_jax.training.program import Program
from synscale_jax.training.runs import RunError

_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": ml_dtypes.bfloat16}


def safetensors_kernels(path: pathlib.Path) -> dict[str, Any]:
    """The kernels in a safetensors file: its floating-point tensors of two or more dimensions.

    Biases, normalisations and integers are left out by that. The file is mapped, not read, so that
    a large one needs no memory.

    Args:
      path: the file, of any framework.

    Returns:
      Name -> array, in the file's dtype.

    Raises:
      RunError: if the file is damaged, or holds no kernel.
    """
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        data = np.memmap(path, np.uint8, "r", offset=8 + length)
        found = {
            name: data[slice(*entry["data_offsets"])]
            .view(_DTYPES[entry["dtype"]])
            .reshape(entry["shape"])
            for name, entry in header.items()
            if name != "__metadata__" and entry["dtype"] in _DTYPES and len(entry["shape"]) > 1
        }
    except (OSError, ValueError, KeyError, TypeError, OverflowError, MemoryError) as error:
        raise RunError(f"{path} is no safetensors file ({error}): name another one.") from None
    if not found:
        raise RunError(f"{path} holds no kernel: name the weights of a network.")
    return found


def run_kernels(folder: pathlib.Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The kernels of a run at its newest checkpoint, and those it started from.

    Args:
      folder: ``…/<cell>/<method>/seed<k>``, as the experiments on tables and figures write it.

    Returns:
      Two mappings of layer name to kernel: trained and initial. Layers that a method adds to the
      cell's network, such as a bottleneck, are left out.

    Raises:
      RunError: if there is no such run, or it has no checkpoint.
    """
    try:
        identity = json.loads((folder / "config.json").read_text())
        (cell,) = cells_named([folder.absolute().parent.parent.name])
    except (OSError, ValueError) as error:
        raise RunError(
            f"{folder} is no run of a cell ({error}): name <cell>/<method>/seed<k>."
        ) from None
    manager = ocp.CheckpointManager((folder / "checkpoints").absolute())
    step = manager.latest_step()
    if step is None:
        raise RunError(f"{folder} has no checkpoint: give the run's command again.")
    restored: Any = manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore()))
    images = load_images(identity["data"]["name"])
    model = cell.model(images.num_classes)
    program = Program(model, baseline(), TrainConfig(), images)
    first = program.init(jax.random.key(identity["seed"]))
    trained = restored.state["params"]
    table = [layer for layer in program.layers if layer.path[0] in trained]
    layers = [layer for layer in table if layer.kernel in _at(trained, layer.path)]
    return kernels(trained, layers), kernels(first.params, layers)


def _at(tree: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        tree = tree.get(name, {})
    return tree
