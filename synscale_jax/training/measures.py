"""What runs keep beside loss and accuracy: how large weights get, how log-normal they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from synscale_jax.scaling._layers import leaves_by_path
from synscale_jax.training.loop import Measures
from synscale_jax.training.program import Program, TrainState


def kernels(program: Program, state: TrainState) -> dict[str, Any]:
    """Layer name -> its kernel, for every layer of the program's table."""
    leaves = leaves_by_path(state.params)
    return {layer.name: leaves[(*layer.path, layer.kernel)] for layer in program.layers}


def largest_weight(program: Program, state: TrainState) -> Mapping[str, Any]:
    """The largest magnitude of all kernels."""
    largest = max(float(jnp.abs(kernel).max()) for kernel in kernels(program, state).values())
    return {"largest_weight": largest}


WEIGHTS = Measures(each_epoch=largest_weight)
"""How large the weights get, after each epoch."""
