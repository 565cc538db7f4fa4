"""Synaptic scaling for JAX: SynScaW and SynScaL, and the experiments of the paper."""

import importlib
from typing import Any

from synscale_jax.scaling import (
    STATIC_ARGS,
    Layer,
    SynapseAxes,
    SynScaWState,
    layers_from_names,
    synscal,
    synscal_regression,
    synscaw,
)

__version__ = "0.1.0"

_SUBMODULES = (
    "adapters",
    "analysis",
    "data",
    "kernels",
    "models",
    "plasticity",
    "pruning",
    "regularizers",
    "report",
    "scaling",
    "spiking",
    "training",
    "zoo",
)

__all__ = [
    "STATIC_ARGS",
    "Layer",
    "SynScaWState",
    "SynapseAxes",
    "layers_from_names",
    "synscal",
    "synscal_regression",
    "synscaw",
]


def __getattr__(name: str) -> Any:
    """Import a submodule when it is first asked for: flax and the data stay out of the start."""
    if name in _SUBMODULES:
        return importlib.import_module(f"synscale_jax.{name}")
    raise AttributeError(f"module 'synscale_jax' has no attribute {name!r}")
