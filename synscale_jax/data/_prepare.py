"""Data sets in the layout of TensorFlow Datasets, found and prepared without TensorFlow."""

import contextlib
import io
import os
import pathlib
import queue
import re
import sys
import tempfile
import threading
from collections.abc import Iterator

import numpy as np

from synscale_jax.data._archives import SOURCES, RawImages, RawSplit
from synscale_jax.data._errors import DataNotAvailable

_ANSWER_SECONDS = 6.0  # TFDS itself would go on trying for more than three minutes


def prepare_images(name: str, *, data_dir: str | os.PathLike | None = None) -> pathlib.Path:
    """Downloads an image set and prepares it for TFDS, without TensorFlow.

    The files TFDS names are downloaded by its own download manager and held against its checksums,
    read with the standard library and written as an ordinary TFDS data set in the ``array_record``
    format, which ``tfds.data_source`` reads. Archives that already lie in
    ``<data_dir>/downloads/manual`` are taken from there, so that a machine without network can be
    given them. All is done in a temporary folder and renamed at the end: what fails leaves nothing
    behind, and several processes may prepare the same set at once.

    Args:
      name: ``"mnist"``, ``"fashion_mnist"``, ``"cifar10"`` or ``"cifar100"``.
      data_dir: the folder of TFDS; ``$TFDS_DATA_DIR`` or ``~/tensorflow_datasets`` if left out.

    Returns:
      The folder with the prepared set; one that is there already is left as it is.

    Raises:
      ValueError: if no such set is known.
      DataNotAvailable: if a download is impossible, fails its checksum or does not unpack, or if
        the folder holds the set in a format that only TensorFlow reads.

    References:
      `TensorFlow Datasets <https://www.tensorflow.org/datasets>`_
    """
    check_downloadable(name)
    if (there := find_prepared(name, data_dir)) is not None:
        return there
    target = tfds_folder(data_dir)
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target, prefix=f".{name}-") as scratch:
            built = _build(name, pathlib.Path(scratch), target / "downloads" / "manual")
            (target / name).mkdir(exist_ok=True)
            # a rename onto a filled folder fails: then another process was first, which is as good
            with contextlib.suppress(OSError):
                built.rename(target / name / built.name)
    except OSError as error:
        raise DataNotAvailable(
            f"{name} could not be prepared in {target} ({error}): give another folder, "
            f"`{command(name)} --data-dir FOLDER`, and set TFDS_DATA_DIR to it."
        ) from error
    if (there := find_prepared(name, data_dir)) is None:
        raise DataNotAvailable(
            f"{target / name} could not be written: give another folder, "
            f"`{command(name)} --data-dir FOLDER`, and set TFDS_DATA_DIR to it."
        )
    return there


def tfds_folder(data_dir: str | os.PathLike | None) -> pathlib.Path:
    """The folder that TFDS keeps its data sets in."""
    chosen = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return pathlib.Path(chosen).expanduser()


def command(name: str) -> str:
    """The shell command that prepares a set, for messages."""
    return f"python -m synscale_jax.data {name}"


def check_downloadable(name: str) -> None:
    """Refuses a set that has no known source."""
    if name not in SOURCES:
        raise ValueError(f"No image set {name!r} can be prepared: choose one of {list(SOURCES)}.")


def find_prepared(name: str, data_dir: str | os.PathLike | None) -> pathlib.Path | None:
    """The folder of the newest prepared version, or None.

    Raises:
      DataNotAvailable: if the set is there, but not in a format that is read without TensorFlow.
    """
    # a name with more than the version is a folder that TFDS has not finished
    versions = [
        info.parent
        for info in (tfds_folder(data_dir) / name).glob("*/dataset_info.json")
        if re.fullmatch(r"\d+\.\d+\.\d+", info.parent.name)
    ]
    versions.sort(key=lambda folder: [int(part) for part in folder.name.split(".")])
    for folder in reversed(versions):
        if any(folder.glob("*.array_record-*")):
            return folder
    if versions:
        raise DataNotAvailable(
            f"{versions[-1]} holds {name} in a format that only TensorFlow reads (TFRECORD); "
            f"prepare a second copy as array_record in another folder, "
            f"`{command(name)} --data-dir FOLDER`, and set TFDS_DATA_DIR to it."
        )
    return None


def _build(name: str, scratch: pathlib.Path, manual: pathlib.Path) -> pathlib.Path:
    missing = {
        url for url in SOURCES[name].urls.values() if not (manual / url.rsplit("/", 1)[1]).is_file()
    }
    if missing:
        _check_answer(name, min(missing), manual)
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import download_manager, util

    builder = tfds.builder(name, data_dir=scratch, file_format="array_record")
    # the builder's own generators hand over arrays, which need TensorFlow to become PNG
    builder._split_generators = lambda dl_manager, **_: _records(
        builder, SOURCES[name].read(dl_manager.download(dict(SOURCES[name].urls)))
    )
    config = tfds.download.DownloadConfig(
        manual_dir=manual, try_download_gcs=False, force_checksums_validation=True
    )
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout belongs to the caller's results
            builder.download_and_prepare(download_dir=scratch / "downloads", download_config=config)
    except download_manager.NonMatchingChecksumError as error:
        raise DataNotAvailable(
            f"A downloaded file of {name} does not match its checksum and was thrown away "
            f"({_one_line(error)}): try again later, or from another network."
        ) from error
    except (util.DownloadError, OSError) as error:
        raise DataNotAvailable(
            f"{name} could not be downloaded ({_one_line(error)}): try `{command(name)}` again."
        ) from error
    return pathlib.Path(builder.data_dir)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split("To debug")[0].split())


def _records(builder, raw: RawImages) -> dict[str, Iterator]:
    features = builder.info.features
    for feature, names in raw.label_names.items():
        features[feature].names = names
    return {
        split: _split_records(split, content, with_id="id" in features)
        for split, content in raw.splits.items()
    }


def _split_records(split: str, raw: RawSplit, with_id: bool) -> Iterator[tuple[int, dict]]:
    for index, image in enumerate(raw.images):
        record: dict = {feature: int(labels[index]) for feature, labels in raw.labels.items()}
        record["image"] = _png(image)
        if with_id:
            record["id"] = f"{split}_{index:05d}"
        yield index, record


def _png(pixels: np.ndarray) -> io.BytesIO:
    from PIL import Image

    buffer = io.BytesIO()
    squeezed = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    Image.fromarray(np.ascontiguousarray(squeezed)).save(buffer, "PNG", compress_level=1)
    buffer.seek(0)  # TFDS copies the bytes of a file object as they are
    return buffer


def _check_answer(name: str, url: str, manual: pathlib.Path) -> None:
    import requests

    fault: queue.Queue[str | None] = queue.Queue()

    def ask() -> None:
        try:
            requests.head(url, timeout=_ANSWER_SECONDS, allow_redirects=True)
            fault.put(None)
        except requests.RequestException as error:
            fault.put(type(error).__name__)

    # looking up a name knows no time limit, so it must not hold up the caller
    threading.Thread(target=ask, daemon=True).start()
    try:
        found = fault.get(timeout=_ANSWER_SECONDS)
    except queue.Empty:
        found = f"no answer in {_ANSWER_SECONDS:.0f} s"
    if found is not None:
        raise DataNotAvailable(
            f"{name} is not prepared in {manual.parent.parent} and {url} does not answer ({found}):"
            f" run `{command(name)}` where there is a network, or put the archive into {manual}."
        )
