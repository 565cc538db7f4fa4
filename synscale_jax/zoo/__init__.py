"""Small pretrained networks that come with the package."""

from synscale_jax.zoo.pretrained import ZooError, ZooModel, available, load

__all__ = ["ZooError", "ZooModel", "available", "load"]
