"""Data sets in the layout of TensorFlow Datasets, found and prepared without TensorFlow."""

import contextlib
import io
import os
import pathlib
import queue
import re
import shlex
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from synscale_jax.data._archives import SOURCES, RawImages, RawSplit
from synscale_jax.data._errors import DataNotAvailable

_ANSWER_SECONDS = 5.0  # TFDS itself would go on trying for more than three minutes


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
    if name not in SOURCES:
        raise ValueError(f"No image set {name!r} can be prepared: choose one of {list(SOURCES)}.")
    if (there := find_prepared(name, data_dir)) is not None:
        return there
    _check_reachable(name, data_dir)
    target = tfds_folder(data_dir)
    try:
        target.mkdir(parents=True, exist_ok=True)
        with _scratch_folder(target, name) as scratch:
            built = _build(name, scratch, _manual_folder(data_dir))
            prepared = target / name / built.name
            prepared.parent.mkdir(exist_ok=True)
            built.rename(prepared)
    except OSError as error:
        # a rename onto a filled folder fails: another process was first, which is as good
        if (there := find_prepared(name, data_dir)) is not None:
            return there
        raise DataNotAvailable(
            f"{name} could not be prepared in {target} ({_one_line(error)}): choose a folder with "
            f"room, `{command(name)} --data-dir FOLDER`, and set TFDS_DATA_DIR to it."
        ) from error
    return prepared


@contextlib.contextmanager
def _scratch_folder(target: pathlib.Path, name: str) -> Iterator[pathlib.Path]:
    """A folder that is gone afterwards."""
    scratch = pathlib.Path(tempfile.mkdtemp(dir=target, prefix=f".{name}-"))
    try:
        yield scratch
    finally:
        # When one download fails, TFDS's others may go on writing for a moment.
        for wait in (0, 0.1, 0.3, 1, 3):
            time.sleep(wait)
            shutil.rmtree(scratch, ignore_errors=True)
            if not scratch.exists():
                break


def tfds_folder(data_dir: str | os.PathLike | None) -> pathlib.Path:
    """The folder that TFDS keeps its data sets in."""
    chosen = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return pathlib.Path(chosen).expanduser()


def command(name: str, data_dir: str | os.PathLike | None = None) -> str:
    """The shell command that prepares a set, for messages."""
    option = "" if data_dir is None else f" --data-dir {shlex.quote(os.fspath(data_dir))}"
    return f"python -m synscale_jax.data {name}{option}"


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
            f"{versions[-1]} holds {name} in a format other than array_record (TFRECORD needs "
            f"TensorFlow to be read): prepare a second copy in another folder, "
            f"`{command(name)} --data-dir FOLDER`, and set TFDS_DATA_DIR to it."
        )
    return None


def _build(name: str, scratch: pathlib.Path, manual: pathlib.Path) -> pathlib.Path:
    import requests
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import download_manager, util

    builder: Any = tfds.builder(name, data_dir=scratch, file_format="array_record")
    # the builder's own generators hand over arrays, which need TensorFlow to become PNG
    builder._split_generators = lambda dl_manager, **_: _download(builder, dl_manager)
    config = tfds.download.DownloadConfig(
        manual_dir=manual, try_download_gcs=False, force_checksums_validation=True
    )
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout belongs to the caller's results
            builder.download_and_prepare(download_dir=scratch / "downloads", download_config=config)
    except download_manager.NonMatchingChecksumError as error:
        url = str(error).split(",")[0].removeprefix("Artifact ")
        raise DataNotAvailable(
            f"{name}: the file from {url} does not have the checksum that TFDS knows for it: "
            f"try again later or from another network, and remove it from {manual} if it is there."
        ) from error
    except (util.DownloadError, requests.RequestException) as error:
        raise DataNotAvailable(
            f"{name} could not be downloaded ({_one_line(error)}): try again later."
        ) from error
    return pathlib.Path(builder.data_dir)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _download(builder: Any, dl_manager: Any) -> dict[str, Iterator]:
    source = SOURCES[builder.name]
    paths = dl_manager.download(dict(source.urls))
    return _records(builder, source.read({key: pathlib.Path(paths[key]) for key in paths}))


def _records(builder: Any, raw: RawImages) -> dict[str, Iterator]:
    features = builder.info.features
    for feature, names in raw.label_names.items():
        features[feature].names = names
    for split, content in raw.splits.items():
        for feature, labels in content.labels.items():
            if labels.size and labels.max() >= features[feature].num_classes:
                raise DataNotAvailable(
                    f"The downloaded {split} split of {builder.name} has the {feature} "
                    f"{labels.max()} where {features[feature].num_classes} classes are known: "
                    "download it again."
                )
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


def _manual_folder(data_dir: str | os.PathLike | None) -> pathlib.Path:
    return tfds_folder(data_dir) / "downloads" / "manual"  # where TFDS looks for archives


def _check_reachable(name: str, data_dir: str | os.PathLike | None) -> None:
    """Raises unless each archive is there already or its host answers."""
    manual = _manual_folder(data_dir)
    files = {url.rsplit("/", 1)[1]: url for url in SOURCES[name].urls.values()}
    missing = [file for file in files if not (manual / file).is_file()]
    if not missing:
        return
    fault = _ask(files[missing[0]])
    if fault:
        raise DataNotAvailable(
            f"{name} is not prepared in {tfds_folder(data_dir)} and {files[missing[0]]} does not "
            f"answer ({fault}): run `{command(name, data_dir)}` where there is a network, or put "
            f"{', '.join(missing)} into {manual}."
        )


def _ask(url: str) -> str:
    """Why a URL does not answer, or nothing if it does."""
    import requests

    found: queue.Queue[str] = queue.Queue()

    def ask() -> None:
        try:
            requests.head(url, timeout=_ANSWER_SECONDS, allow_redirects=True)
            found.put("")
        except requests.RequestException as error:
            found.put(type(error).__name__)

    # looking up a host's name knows no time limit, so it must not hold up the caller
    threading.Thread(target=ask, daemon=True).start()
    try:
        return found.get(timeout=_ANSWER_SECONDS)
    except queue.Empty:
        return f"no answer in {_ANSWER_SECONDS:.0f} s"
