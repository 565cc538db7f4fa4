"""Synaptic scaling for JAX: SynScaW and SynScaL, and the experiments of the paper."""

from synscale_jax._lazy import submodules_of
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

# flax and the data stay out of the start.
__getattr__ = submodules_of(__name__)
