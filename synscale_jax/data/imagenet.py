"""Images too many to hold in memory: ImageNet, or folders of JPEGs, streamed through grain."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import grain
import numpy as np

from synscale_jax.data._errors import DataNotAvailable
from synscale_jax.data._prepare import find_prepared, tfds_folder

NAME = "imagenet2012"
MEAN = (0.485, 0.456, 0.406)
"""Of ImageNet's pixels in [0, 1], red, green and blue."""
DEVIATION = (0.229, 0.224, 0.225)
"""Standard deviation of the same."""

_SUFFIXES = (".jpg", ".jpeg", ".png")
_RESIZE = 256 / 224  # shorter side of a test image, by the side of what is cut out of it
_AREA, _RATIO = (0.08, 1.0), (3 / 4, 4 / 3)  # of a random crop
_TRIES = 10


class Example(NamedTuple):
    """One image as it is stored.

    Attributes:
      name: of the file, for messages.
      image: the bytes of a JPEG or PNG.
      label: its class.
    """

    name: str
    image: bytes
    label: int


class Source(Protocol):
    """Examples by their number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...


class StreamedBatch(NamedTuple):
    """Images as they go to the device.

    Attributes:
      images: uint8 array (examples, size, size, 3).
      labels: int32 array (examples,).
    """

    images: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class StreamedSet:
    """An image set that is read while it is used.

    Attributes:
      name: the name of the set.
      train: the training examples.
      test: the test examples.
      class_names: one name for each class, by label.
      data_hash: SHA-256 in hex over the names and sizes of the files. Their content is too much
        to be hashed before each run.
    """

    name: str
    train: Source
    test: Source
    class_names: tuple[str, ...]
    data_hash: str

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)


def open_imagenet(*, data_dir: str | os.PathLike | None = None) -> StreamedSet:
    """Opens ImageNet (ILSVRC 2012) where TFDS keeps it.

    ImageNet may not be passed on, so that nothing is downloaded here: the set must have been
    prepared by TFDS, as ``imagenet2012`` in the ``array_record`` format. Its validation split is
    the test split. Examples are in the order of the files.

    Args:
      data_dir: the folder of TFDS; ``$TFDS_DATA_DIR`` or ``~/tensorflow_datasets`` if left out.

    Returns:
      A :class:`StreamedSet` of 1 281 167 training and 50 000 test images.

    Raises:
      DataNotAvailable: if it is not there in that format; the message says what to do.

    References:
      Russakovsky et al., `ImageNet Large Scale Visual Recognition Challenge
      <https://arxiv.org/abs/1409.0575>`_, 2015.
    """
    import tensorflow_datasets as tfds

    try:
        folder = find_prepared(NAME, data_dir)
    except DataNotAvailable:  # there, but as TFRECORD
        folder = None
    if folder is None:
        raise DataNotAvailable(
            f"{tfds_folder(data_dir)} holds no {NAME} in the array_record format, and ImageNet may "
            "not be passed on: get its archives from image-net.org and run `tfds build "
            f"{NAME} --file_format=array_record` (TFDS_DATA_DIR names its folder), or name a "
            "folder with train/CLASS/*.jpg and val/CLASS/*.jpg with --images."
        )
    try:
        builder: Any = tfds.builder_from_directory(folder)
        train, test = (
            _Prepared(
                builder.as_data_source(
                    split,
                    decoders={"image": tfds.decode.SkipDecoding()},
                    file_format="array_record",
                )
            )
            for split in ("train", "validation")
        )
        names = tuple(builder.info.features["label"].names)
    except Exception as error:  # whatever a damaged file makes TFDS or array_record raise
        raise DataNotAvailable(
            f"{folder} could not be read ({error}): prepare {NAME} again."
        ) from error
    files = ((file.name, file.stat().st_size) for file in folder.glob("*.array_record-*"))
    return StreamedSet(NAME, train, test, names, _hash(names, files))


def open_folder(folder: str | os.PathLike) -> StreamedSet:
    """Opens a folder of images by class, e.g. Imagenette, a public subset of ImageNet.

    The training images are ``train/CLASS/*.jpg``, the test images ``val/CLASS/*.jpg``; ``.jpeg``
    and ``.png`` will do, in capitals, too. Classes and images are in the order of their names.

    Args:
      folder: that holds ``train`` and ``val``.

    Returns:
      A :class:`StreamedSet`, called by the folder's name.

    Raises:
      DataNotAvailable: if the folder is not laid out so; the message says where.
    """
    folder = pathlib.Path(folder).expanduser()
    classes = _subfolders(folder / "train")
    if strangers := sorted(set(_subfolders(folder / "val")) - set(classes)):
        raise DataNotAvailable(
            f"{folder / 'val'} has the class {strangers[0]!r}, which {folder / 'train'} has not: "
            "give both the same classes."
        )
    train, test = (_images(folder / split, classes) for split in ("train", "val"))
    files = (
        (f"{file.parent.parent.name}/{file.parent.name}/{file.name}", file.stat().st_size)
        for source in (train, test)
        for file in source.files
    )
    return StreamedSet(folder.resolve().name, train, test, classes, _hash(classes, files))


def training_batches(
    source: Source, batch: int, size: int, seed: int, start: int = 0
) -> Iterator[StreamedBatch]:
    """Shuffled and augmented batches without end, from any of them on.

    Each pass over the examples has an order of its own, and what is left at its end is dropped.
    An image is cut out at random, 8 to 100 % of its area at an aspect of 3/4 to 4/3, resized to
    ``size`` × ``size``, and mirrored half of the time. Batch n depends on nothing but the source,
    the seed and n, so that a run is taken up by ``start`` alone.

    Args:
      source: the examples.
      batch: examples in a batch.
      size: height and width of the images.
      seed: of order and augmentation, below 2³².
      start: the batch to begin with.

    Yields:
      uint8 images (batch, size, size, 3) and int32 labels (batch,).

    Raises:
      DataNotAvailable: if an image cannot be read.

    References:
      Szegedy et al., `Going Deeper with Convolutions <https://arxiv.org/abs/1409.4842>`_, 2015,
      section 6.
    """
    if not 0 < batch <= len(source):
        raise ValueError(f"batch={batch} of {len(source)} examples: use 1 to {len(source)}.")
    data = (
        _dataset(source)
        .shuffle(seed=seed)
        .random_map(_RandomCrop(size), seed=seed)
        .batch(batch, drop_remainder=True, batch_fn=_stack)
        .repeat()[start:]
    )
    return _read_ahead(data)


def test_batches(source: Source, batch: int, size: int) -> Iterator[StreamedBatch]:
    """All examples in their order, the last batch as short as it comes.

    The shorter side is resized to 256/224 of ``size`` and the middle cut out.

    Args:
      source: the examples.
      batch: examples in a batch.
      size: height and width of the images.

    Yields:
      uint8 images (examples, size, size, 3) and int32 labels (examples,).

    Raises:
      DataNotAvailable: if an image cannot be read.
    """
    data = _dataset(source).map(_CentreCrop(size)).batch(batch, batch_fn=_stack)
    return _read_ahead(data)


test_batches.__test__ = False  # pyright: ignore[reportFunctionMemberAccess]  # no test of pytest's


class Spread:
    """Some examples of a source, evenly spread over it, since neighbours may share a class.

    Args:
      source: n examples.
      count: how many to take, 1..n.

    Raises:
      ValueError: if there are not that many.
    """

    def __init__(self, source: Source, count: int) -> None:
        if not 0 < count <= len(source):
            raise ValueError(
                f"{count} examples cannot be taken of {len(source)}: give a whole number from 1 to "
                f"{len(source)}."
            )
        self._source, self._count = source, count

    def __len__(self) -> int:
        """How many examples are taken."""
        return self._count

    def __getitem__(self, index: int) -> Example:
        """One of them."""
        return self._source[index * len(self._source) // self._count]


class _Prepared:
    """A split that TFDS has prepared."""

    def __init__(self, split: Any) -> None:
        self._split = split

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, index: int) -> Example:
        record = self._split[index]
        name = record["file_name"]
        name = name.decode() if isinstance(name, bytes) else str(name)
        return Example(name, record["image"], int(record["label"]))


class _Files(NamedTuple):
    files: tuple[pathlib.Path, ...]
    labels: tuple[int, ...]


class _Folder:
    """The images of one split of a folder."""

    def __init__(self, content: _Files) -> None:
        self.files, self._labels = content

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Example:
        file = self.files[index]
        try:
            return Example(str(file), file.read_bytes(), self._labels[index])
        except OSError as error:
            raise DataNotAvailable(
                f"{file} cannot be read ({error.strerror}): mend that."
            ) from None


def _subfolders(folder: pathlib.Path) -> tuple[str, ...]:
    """Names of the classes of a split."""
    if not folder.is_dir():
        raise DataNotAvailable(
            f"there is no folder {folder}: images by class are train/CLASS/*.jpg and "
            "val/CLASS/*.jpg in the folder that --images names."
        )
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    return tuple(name for name in names if not name.startswith("."))


def _images(folder: pathlib.Path, classes: Sequence[str]) -> _Folder:
    """The images of a split, in order."""
    found = [
        (file, label)
        for label, name in enumerate(classes)
        if (folder / name).is_dir()
        for file in sorted((folder / name).iterdir())
        if file.suffix.lower() in _SUFFIXES and not file.name.startswith(".")
    ]
    if not found:
        raise DataNotAvailable(
            f"{folder} holds no images: put them into folders by class, {folder}/CLASS/*.jpg."
        )
    files, labels = zip(*found, strict=True)
    return _Folder(_Files(files, labels))


def _hash(classes: Sequence[str], files: Iterable[tuple[str, int]]) -> str:
    digest = hashlib.sha256("\n".join(classes).encode())
    for name, size in sorted(files):
        digest.update(f"\n{name} {size}".encode())
    return digest.hexdigest()


def _dataset(source: Source) -> Any:
    return grain.MapDataset.source(source)  # pyright: ignore[reportArgumentType]


def _read_ahead(data: Any) -> Iterator[StreamedBatch]:
    """Batches in order, prepared by threads while others are used; Pillow lets go of the GIL."""
    threads = os.cpu_count() or 1
    # The unit is a batch, tens of megabytes each.
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 1)
    return iter(data.to_iter_dataset(options))


def _stack(examples: Sequence[tuple[np.ndarray, int]]) -> StreamedBatch:
    images, labels = zip(*examples, strict=True)
    return StreamedBatch(np.stack(images), np.array(labels, np.int32))


@dataclasses.dataclass(frozen=True)
class _CentreCrop:
    """Resize the shorter side, cut out the middle."""

    size: int

    def __call__(self, example: Example) -> tuple[np.ndarray, int]:
        image = _decoded(example)
        scale = round(self.size * _RESIZE) / min(image.size)
        width, height = (max(self.size, round(side * scale)) for side in image.size)
        left, top = (width - self.size) // 2, (height - self.size) // 2
        image = image.resize((width, height), _bilinear())
        image = image.crop((left, top, left + self.size, top + self.size))
        return np.asarray(image), example.label


@dataclasses.dataclass(frozen=True)
class _RandomCrop:
    """Cut out a part at random, resize it, mirror it half of the time."""

    size: int

    def __call__(self, example: Example, random: np.random.Generator) -> tuple[np.ndarray, int]:
        image = _decoded(example)
        width, height = image.size
        box = _random_box(width, height, random)
        pixels = np.asarray(image.resize((self.size, self.size), _bilinear(), box=box))
        return pixels[:, ::-1] if random.random() < 0.5 else pixels, example.label


def _random_box(width: int, height: int, random: np.random.Generator) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a crop of random area, aspect and place."""
    for _ in range(_TRIES):
        area = random.uniform(*_AREA) * width * height
        ratio = np.exp(random.uniform(*np.log(_RATIO)))
        wide, high = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
        if 0 < wide <= width and 0 < high <= height:
            left, top = random.integers(width - wide + 1), random.integers(height - high + 1)
            return int(left), int(top), int(left + wide), int(top + high)
    # The image is too long for any of them: the middle, at the nearest aspect there is.
    wide, high = min(width, round(height * _RATIO[1])), min(height, round(width / _RATIO[0]))
    left, top = (width - wide) // 2, (height - high) // 2
    return left, top, left + wide, top + high


def _bilinear() -> Any:
    from PIL import Image

    return Image.Resampling.BILINEAR


def _decoded(example: Example) -> Any:
    """An image in red, green and blue, whatever the file has."""
    from PIL import Image

    try:
        return Image.open(io.BytesIO(example.image)).convert("RGB")
    except Exception as error:  # whatever a damaged file makes Pillow raise
        raise DataNotAvailable(
            f"{example.name} cannot be read as an image ({type(error).__name__}): replace or "
            "remove it."
        ) from error
