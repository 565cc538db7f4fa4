"""What knows flax: collectors of activities and layer tables for foreign models."""

from synscale_jax._lazy import submodules_of

__getattr__ = submodules_of(__name__)
