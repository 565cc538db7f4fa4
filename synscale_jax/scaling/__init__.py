"""SynScaW and SynScaL: the two regularizers of the paper, on pytrees and arrays alone."""

from synscale_jax.scaling._activations import ACTIVATIONS, Activation, gaussian_mean, uniform_mean
from synscale_jax.scaling._layers import Layer, SynapseAxes, layers_from_names
from synscale_jax.scaling._synscal import synscal, synscal_regression
from synscale_jax.scaling._synscaw import STATIC_ARGS, SynScaWState, synscaw
from synscale_jax.scaling._use_it_or_lose_it import UseItOrLoseItState, use_it_or_lose_it

__all__ = [
    "ACTIVATIONS",
    "STATIC_ARGS",
    "Activation",
    "Layer",
    "SynScaWState",
    "SynapseAxes",
    "UseItOrLoseItState",
    "gaussian_mean",
    "layers_from_names",
    "synscal",
    "synscal_regression",
    "synscaw",
    "uniform_mean",
    "use_it_or_lose_it",
]
