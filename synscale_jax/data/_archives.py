"""The official archives of the four image sets, read with the standard library into arrays.

Nothing is unpacked to disk: members are checked and read into memory, so that no path in an
archive ever becomes a path on this machine.
"""

import gzip
import math
import pathlib
import tarfile
import zlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from synscale_jax.data._errors import DataNotAvailable

_LARGEST_MEMBER = 256 * 2**20  # bytes; the largest official one, CIFAR-100's train.bin, has 147 MiB
_DAMAGE = (EOFError, OSError, tarfile.TarError, zlib.error)


class RawSplit(NamedTuple):
    """One split as the archive has it: uint8 images (n, h, w, c) and each label feature (n,)."""

    images: np.ndarray
    labels: dict[str, np.ndarray]


class RawImages(NamedTuple):
    """What an archive holds: its splits, and the label names where the archive carries them."""

    splits: dict[str, RawSplit]
    label_names: dict[str, list[str]]


class Source(NamedTuple):
    """Where TFDS itself downloads a set from (so that its checksums apply), and how it is read."""

    urls: dict[str, str]
    read: Callable[[Mapping[str, pathlib.Path]], RawImages]


def read_idx(path: pathlib.Path, dimensions: int) -> np.ndarray:
    """Reads a gzipped idx file of bytes, the format of MNIST.

    Args:
      path: the ``.gz`` file.
      dimensions: how many axes the file must have.

    Returns:
      A uint8 array with that many axes.

    Raises:
      DataNotAvailable: if the file is damaged or is no such file.
    """
    try:
        with gzip.open(path) as file:
            data = file.read(_LARGEST_MEMBER + 1)
    except _DAMAGE as error:
        raise _damaged(path, f"does not unpack ({error})") from error
    header = 4 + 4 * dimensions
    # two zero bytes, 8 for uint8, the number of axes, then each length as a big-endian int32
    if len(data) < header or data[:4] != bytes([0, 0, 8, dimensions]):
        raise _damaged(path, f"is no idx file of bytes with {dimensions} axes")
    shape = tuple(int(length) for length in np.frombuffer(data, ">u4", dimensions, offset=4))
    if len(data) != header + math.prod(shape):
        raise _damaged(path, f"has {len(data) - header} bytes where shape {shape} needs another")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def read_tar_members(path: pathlib.Path, folder: str, names: tuple[str, ...]) -> dict[str, bytes]:
    """Reads the named members of a ``.tar.gz`` whose every member must lie in one folder.

    Args:
      path: the archive.
      folder: the one top folder that the archive may have.
      names: the files in that folder to read.

    Returns:
      The bytes of each named file. Other regular files in the folder are left unread.

    Raises:
      DataNotAvailable: if the archive is damaged, lacks a file or has one twice, or has a link, a
        device, a path outside the folder or a member larger than 256 MiB.
    """
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                _check_member(path, member, folder)
                name = member.name.removeprefix(f"{folder}/")
                if name not in names:
                    continue
                file = archive.extractfile(member)
                if name in contents or file is None:
                    raise _damaged(path, f"has the member {member.name!r} twice or as a folder")
                contents[name] = file.read()
    except _DAMAGE as error:
        raise _damaged(path, f"does not unpack ({error})") from error
    if missing := [name for name in names if name not in contents]:
        raise _damaged(path, f"lacks {folder}/{missing[0]}")
    return contents


def _check_member(path: pathlib.Path, member: tarfile.TarInfo, folder: str) -> None:
    parts = pathlib.PurePosixPath(member.name).parts
    if not parts or parts[0] != folder or ".." in parts:
        raise _damaged(path, f"has the member {member.name!r}, outside of {folder}/")
    if not (member.isfile() or member.isdir()):
        raise _damaged(path, f"has the member {member.name!r}, a link or a device")
    if member.size > _LARGEST_MEMBER:
        raise _damaged(path, f"has the member {member.name!r} of {member.size} bytes")


def _damaged(path: pathlib.Path, fault: str) -> DataNotAvailable:
    return DataNotAvailable(f"The downloaded archive {path.name} {fault}: download it again.")


def _read_mnist(paths: Mapping[str, pathlib.Path]) -> RawImages:
    splits = {}
    for split in ("train", "test"):
        images = read_idx(paths[f"{split}_images"], 3)[..., None]
        labels = read_idx(paths[f"{split}_labels"], 1)
        if len(images) != len(labels):
            raise _damaged(
                paths[f"{split}_labels"], f"has {len(labels)} labels for {len(images)} images"
            )
        splits[split] = RawSplit(images, {"label": labels})
    return RawImages(splits, {})


def _cifar_reader(
    folder: str, files: dict[str, tuple[str, ...]], names: dict[str, str]
) -> Callable[[Mapping[str, pathlib.Path]], RawImages]:
    """Reader of a CIFAR binary archive; ``names`` maps label features, in byte order, to files."""

    def read(paths: Mapping[str, pathlib.Path]) -> RawImages:
        path = paths["archive"]
        wanted = (*names.values(), *(file for part in files.values() for file in part))
        contents = read_tar_members(path, folder, wanted)
        splits = {
            split: _cifar_split(path, b"".join(contents[file] for file in part), tuple(names))
            for split, part in files.items()
        }
        return RawImages(
            splits, {feature: contents[file].decode().split() for feature, file in names.items()}
        )

    return read


def _cifar_split(path: pathlib.Path, data: bytes, features: tuple[str, ...]) -> RawSplit:
    record = len(features) + 3 * 32 * 32  # the label bytes, then the red, green and blue planes
    if not data or len(data) % record:
        raise _damaged(path, f"has {len(data)} bytes of examples, no multiple of {record}")
    rows = np.frombuffer(data, np.uint8).reshape(-1, record)
    images = rows[:, len(features) :].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return RawSplit(images, {feature: rows[:, i] for i, feature in enumerate(features)})


def _mnist_urls(folder: str) -> dict[str, str]:
    return {
        "train_images": f"{folder}train-images-idx3-ubyte.gz",
        "train_labels": f"{folder}train-labels-idx1-ubyte.gz",
        "test_images": f"{folder}t10k-images-idx3-ubyte.gz",
        "test_labels": f"{folder}t10k-labels-idx1-ubyte.gz",
    }


SOURCES = {
    "mnist": Source(
        _mnist_urls("https://storage.googleapis.com/cvdf-datasets/mnist/"),
        _read_mnist,
    ),
    "fashion_mnist": Source(
        _mnist_urls("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"),
        _read_mnist,
    ),
    "cifar10": Source(
        {"archive": "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"},
        _cifar_reader(
            "cifar-10-batches-bin",
            {
                "train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
                "test": ("test_batch.bin",),
            },
            {"label": "batches.meta.txt"},
        ),
    ),
    "cifar100": Source(
        {"archive": "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"},
        _cifar_reader(
            "cifar-100-binary",
            {"train": ("train.bin",), "test": ("test.bin",)},
            {"coarse_label": "coarse_label_names.txt", "label": "fine_label_names.txt"},
        ),
    ),
}
