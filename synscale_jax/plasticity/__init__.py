"""Learning without backpropagation: local rules on arrays, and as optax transforms."""

from synscale_jax.plasticity._rule import PlasticityRule, StepCount, unit_norm
from synscale_jax.plasticity._transform import LocalLearningState, local_learning
from synscale_jax.plasticity.competing_units import (
    input_currents,
    krotov_hopfield,
    power_activation,
    power_loss,
    power_readout,
)
from synscale_jax.plasticity.hebbian import ThresholdState, hebb, oja, thresholded_hebb

__all__ = [
    "LocalLearningState",
    "PlasticityRule",
    "StepCount",
    "ThresholdState",
    "hebb",
    "input_currents",
    "krotov_hopfield",
    "local_learning",
    "oja",
    "power_activation",
    "power_loss",
    "power_readout",
    "thresholded_hebb",
    "unit_norm",
]
