"""Synaptic scaling for JAX: SynScaW and SynScaL, and the experiments of the paper."""

from synscale_jax.scaling import (
    STATIC_ARGS,
    Layer,
    SynapseAxes,
    SynScaWState,
    layers_from_names,
    synscaw,
)

__version__ = "0.1.0"
