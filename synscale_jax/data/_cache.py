"""Decoded image sets, kept as one ``.npz`` each so that only the first run decodes PNG files."""

import hashlib
import io
import pathlib
import tempfile
import warnings
from typing import Any

import numpy as np

from synscale_jax.data._errors import DataNotAvailable
from synscale_jax.data._fetch import cache_folder

_LAYOUT = "v1"  # of the file; a change of layout or of canonical order needs another

Arrays = dict[str, np.ndarray]


def cached_arrays(folder: pathlib.Path) -> Arrays:
    """The decoded arrays of a prepared TFDS set, in canonical order, from the cache if it can be.

    Args:
      folder: the prepared set, ``<data_dir>/<name>/<version>``.

    Returns:
      ``train_images``, ``train_labels``, ``test_images``, ``test_labels``, ``class_names``, and the
      ``data_hash`` they have been checked against.

    Raises:
      DataNotAvailable: if the prepared set cannot be read.
    """
    path = cache_folder() / f"images-{_LAYOUT}" / f"{folder.parent.name}-{folder.name}.npz"
    fingerprint = _fingerprint(folder)
    try:
        arrays = _read(path)
        if arrays["fingerprint"].item() == fingerprint:
            return arrays
    except (FileNotFoundError, NotADirectoryError):
        pass
    except Exception as error:  # whatever a damaged file makes numpy and zipfile raise
        warnings.warn(f"{path} was damaged ({error}) and is decoded anew.", stacklevel=3)
    arrays = _decode(folder)
    arrays["data_hash"] = np.array(data_hash(arrays))
    arrays["fingerprint"] = np.array(fingerprint)
    try:
        _write(path, arrays)
    except OSError as error:
        warnings.warn(
            f"{path} could not be written ({error}), so that the next run decodes again: "
            "set SYNSCALE_DATA_DIR to a folder that can be written.",
            stacklevel=3,
        )
    return arrays


def canonical_order(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The order by (SHA-256 of the pixels, label): the same whatever order the source had."""
    digests = [hashlib.sha256(image.data).digest() for image in np.ascontiguousarray(images)]
    keys = list(zip(digests, labels.tolist(), strict=True))
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64)


def data_hash(arrays: Arrays) -> str:
    """SHA-256 over the shape and the bytes of the four canonical arrays, as hex."""
    digest = hashlib.sha256()
    for split in ("train", "test"):
        for dtype, part in (("|u1", "images"), ("<i4", "labels")):
            array = np.ascontiguousarray(arrays[f"{split}_{part}"], dtype)
            digest.update(f"{split}_{part}{array.shape}".encode())
            digest.update(array.data)
    return digest.hexdigest()


def _fingerprint(folder: pathlib.Path) -> str:
    """Changes when any file of the prepared set does."""
    files = sorted(file for file in folder.iterdir() if file.is_file())
    stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr(stats).encode()).hexdigest()


def _read(path: pathlib.Path) -> Arrays:
    with np.load(path, allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    if data_hash(arrays) != arrays["data_hash"].item():
        raise ValueError("its arrays do not have the hash written with them")
    return arrays


def _write(path: pathlib.Path, arrays: Arrays) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as scratch:
        part = pathlib.Path(scratch) / path.name
        np.savez(part, **arrays)  # pyright: ignore[reportArgumentType]
        part.replace(path)


def _decode(folder: pathlib.Path) -> Arrays:
    import tensorflow_datasets as tfds

    try:
        builder: Any = tfds.builder_from_directory(folder)
        arrays = {"class_names": np.array(builder.info.features["label"].names)}
        for split in ("train", "test"):
            source = builder.as_data_source(
                split, decoders={"image": tfds.decode.SkipDecoding()}, file_format="array_record"
            )
            images, labels = _decode_split(source)
            order = canonical_order(images, labels)
            arrays[f"{split}_images"] = images[order]
            arrays[f"{split}_labels"] = labels[order]
    except Exception as error:  # whatever a damaged file makes TFDS, array_record or PIL raise
        raise DataNotAvailable(
            f"{folder} could not be read ({error}): delete that folder and run "
            f"`python -m synscale_jax.data {folder.parent.name}`."
        ) from error
    return arrays


def _decode_split(source: Any) -> tuple[np.ndarray, np.ndarray]:
    from PIL import Image

    images, labels = [], []
    for start in range(0, len(source), 1024):  # batches spare array_record one seek per example
        batch = source.__getitems__(list(range(start, min(start + 1024, len(source)))))
        images += [np.asarray(Image.open(io.BytesIO(example["image"]))) for example in batch]
        labels += [example["label"] for example in batch]
    stacked = np.stack(images)
    if stacked.ndim == 3:
        stacked = stacked[..., None]
    if stacked.dtype != np.uint8:
        raise ValueError(f"the images are {stacked.dtype}, not uint8")
    return stacked, np.array(labels, np.int32)
