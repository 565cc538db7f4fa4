"""The regularizers that synaptic scaling is compared with, as losses and as a linen module."""

from synscale_jax.regularizers.bottleneck import (
    REGULARIZERS,
    Bottleneck,
    bottleneck_layers,
    bottleneck_loss,
)
from synscale_jax.regularizers.losses import confidence_penalty, smoothed_cross_entropy

__all__ = [
    "REGULARIZERS",
    "Bottleneck",
    "bottleneck_layers",
    "bottleneck_loss",
    "confidence_penalty",
    "smoothed_cross_entropy",
]
