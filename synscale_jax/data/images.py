"""Image sets as arrays in a canonical order, with a hash that says which data they are."""

import dataclasses
import os
from typing import Any, NamedTuple

import numpy as np

from synscale_jax.data import _cache, _prepare
from synscale_jax.data._archives import SOURCES
from synscale_jax.data._errors import DataNotAvailable

NAMES = (*SOURCES, "digits")

_DIGITS_TEST = 360


class Split(NamedTuple):
    """Images and their classes, in canonical order.

    Attributes:
      images: uint8 array (examples, height, width, channels), C-contiguous.
      labels: int32 array (examples,).
    """

    images: np.ndarray
    labels: np.ndarray

    def __repr__(self) -> str:
        return f"Split(images={_brief(self.images)}, labels={_brief(self.labels)})"


def _brief(array: Any) -> str:
    # As a tree, a split may hold anything.
    return f"{array.dtype}{list(array.shape)}" if hasattr(array, "shape") else repr(array)


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """An image set with its official training and test split.

    Attributes:
      name: the name it was loaded by.
      train: the training split; cut a validation split off with :func:`split_validation`.
      test: the test split.
      class_names: one name for each class, by label.
      data_hash: SHA-256 in hex over shapes and bytes of the canonical training and test arrays.
    """

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    data_hash: str

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of one image."""
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels


def load_images(
    name: str, *, data_dir: str | os.PathLike | None = None, download: bool = True
) -> ImageSet:
    """Loads an image set as uint8 arrays in canonical order.

    Examples are ordered, within each split, by the SHA-256 of their pixels and then by label,
    before anything else is done with them: the same seed gives the same batches whatever order the
    source had. MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100 come through TFDS, read and where need
    be prepared without TensorFlow (:func:`prepare_images`). They are decoded once and then kept in
    ``$SYNSCALE_DATA_DIR`` or ``~/.cache/synscale_jax``; a damaged or outdated file there is
    decoded anew.

    ``"digits"`` is scikit-learn's set of 1797 images (8, 8, 1), which needs neither network nor
    preparation. Its intensities 0..16 are scaled to 0..255; the first 1437 in canonical order are
    the training split and the last 360 the test split.

    Args:
      name: ``"mnist"``, ``"fashion_mnist"``, ``"cifar10"``, ``"cifar100"`` or ``"digits"``.
      data_dir: the folder of TFDS; ``$TFDS_DATA_DIR`` or ``~/tensorflow_datasets`` if left out.
      download: whether a set that is not there may be downloaded.

    Returns:
      An :class:`ImageSet`: uint8 images (examples, height, width, channels), int32 labels
      (examples,).

    Raises:
      ValueError: if no such set is known.
      DataNotAvailable: if the set is not prepared and cannot be, within 10 seconds if there is no
        network; its message says what to do.

    Examples:
      >>> from synscale_jax.data import load_images
      >>> digits = load_images("digits")
      >>> digits.train
      Split(images=uint8[1437, 8, 8, 1], labels=int32[1437])
      >>> digits.num_classes, digits.data_hash[:8]
      (10, '6e5771d0')

    References:
      LeCun et al., Gradient-based learning applied to document recognition, 1998;
      Xiao et al., `Fashion-MNIST <https://arxiv.org/abs/1708.07747>`_, 2017;
      Krizhevsky, Learning multiple layers of features from tiny images, 2009.
    """
    if name not in NAMES:
        raise ValueError(f"There is no image set {name!r}: choose one of {list(NAMES)}.")
    if name == "digits":
        return _image_set(name, _digits())
    folder = _prepare.find_prepared(name, data_dir)
    if folder is None:
        if not download:
            raise DataNotAvailable(
                f"{name} is not prepared in {_prepare.tfds_folder(data_dir)}: "
                f"run `{_prepare.command(name, data_dir)}`."
            )
        folder = _prepare.prepare_images(name, data_dir=data_dir)
    return _image_set(name, _cache.cached_arrays(folder))


def split_validation(split: Split, size: int | float) -> tuple[Split, Split]:
    """Cuts a validation split off the tail of a split.

    The canonical order is by hash, so that the tail is as good as a random choice and the same on
    every machine. Both parts share memory with ``split``.

    Args:
      split: the examples to divide, n of them.
      size: how many to keep for validation, an int in 1..n-1, or which fraction, a float in (0, 1)
        that is rounded to whole examples.

    Returns:
      The training and the validation split.

    Raises:
      ValueError: if either part would be empty.

    Examples:
      >>> from synscale_jax.data import load_images, split_validation
      >>> train, validation = split_validation(load_images("digits").train, 0.1)
      >>> len(train.labels), len(validation.labels)
      (1293, 144)
    """
    total = len(split.labels)
    count = round(size * total) if isinstance(size, float) and 0 < size < 1 else size
    if not _is_whole(count) or not 0 < count < total:
        raise ValueError(
            f"A validation split of {size!r} cannot be cut off {total} examples: "
            f"give a whole number from 1 to {total - 1} or a fraction between 0 and 1."
        )
    cut = total - int(count)
    return _slice(split, 0, cut), _slice(split, cut, total)


def subset(split: Split, count: int) -> Split:
    """Takes the first examples of a split, for short runs.

    The canonical order is by hash, so that the head is as good as a random choice, and it never
    meets the tail that :func:`split_validation` cuts off the whole as long as both fit.

    Args:
      split: n examples.
      count: how many to take, 1..n.

    Returns:
      A split that shares memory with ``split``.

    Raises:
      ValueError: if there are not that many.

    Examples:
      >>> from synscale_jax.data import load_images, subset
      >>> subset(load_images("digits").train, 100).images.shape
      (100, 8, 8, 1)
    """
    total = len(split.labels)
    if not _is_whole(count) or not 0 < count <= total:
        raise ValueError(
            f"A subset of {count!r} cannot be taken of {total} examples: "
            f"give a whole number from 1 to {total}."
        )
    return _slice(split, 0, int(count))


def _is_whole(count: object) -> bool:
    return isinstance(count, (int, np.integer)) and not isinstance(count, bool)


def _slice(split: Split, start: int, stop: int) -> Split:
    return Split(split.images[start:stop], split.labels[start:stop])


def _image_set(name: str, arrays: _cache.Arrays) -> ImageSet:
    return ImageSet(
        name=name,
        train=Split(arrays["train_images"], arrays["train_labels"]),
        test=Split(arrays["test_images"], arrays["test_labels"]),
        class_names=tuple(arrays["class_names"].tolist()),
        data_hash=str(arrays["data_hash"]),
    )


def _digits() -> _cache.Arrays:
    from sklearn.datasets import load_digits

    intensities, labels = load_digits(return_X_y=True)
    images = np.rint(intensities * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    labels = labels.astype(np.int32)
    order = _cache.canonical_order(images, labels)
    train, test = order[:-_DIGITS_TEST], order[-_DIGITS_TEST:]
    arrays = {
        "train_images": images[train],
        "train_labels": labels[train],
        "test_images": images[test],
        "test_labels": labels[test],
        "class_names": np.array([str(digit) for digit in range(10)]),
    }
    arrays["data_hash"] = np.array(_cache.data_hash(arrays))
    return arrays
