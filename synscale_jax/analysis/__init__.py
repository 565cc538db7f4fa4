"""Analysis of trained networks and of differences between methods, on arrays alone."""

from synscale_jax._lazy import submodules_of

__getattr__ = submodules_of(__name__)
