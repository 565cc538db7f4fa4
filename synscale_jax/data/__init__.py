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
from synscale_jax.data.tables import TABLES, Table, load_table, make_folds
from synscale_jax.data.text import load_imdb

__all__ = [
    "TABLES",
    "DataNotAvailable",
    "ImageSet",
    "Split",
    "Table",
    "augment",
    "load_images",
    "load_imdb",
    "load_table",
    "make_folds",
    "prepare_images",
    "split_validation",
    "subset",
]
