from synscale_jax.data._augment import augment
from synscale_jax.data._errors import DataNotAvailable
from synscale_jax.data._prepare import prepare_images
from synscale_jax.data.images import (
    ImageSet,
    Split,
    load_images,
    split_validation,
    subset,
)

__all__ = [
    "DataNotAvailable",
    "ImageSet",
    "Split",
    "augment",
    "load_images",
    "prepare_images",
    "split_validation",
    "subset",
]
