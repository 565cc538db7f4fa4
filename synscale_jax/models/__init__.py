"""Models of the experiments, in flax.linen."""

from synscale_jax.models.mlp import MLP

__all__ = ["MLP"]
