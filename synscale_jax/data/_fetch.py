"""One file of a data set, fetched once from its public address and checked."""

from __future__ import annotations

import hashlib
import os
import pathlib
import tempfile
import zipfile
import zlib
from typing import Any, NamedTuple

from synscale_jax.data._errors import DataNotAvailable

_PATIENCE = 10  # seconds for the server's answer


class Source(NamedTuple):
    """Where a file comes from and how it is known.

    Attributes:
      folder: of the data set, below the cache.
      name: of the file.
      sha256: of its bytes; for a text of its fields, see ``fields``.
      url: the public address, or None where there is none that a program may read.
      by_hand: where a person finds the file.
      fields: whether the sum is over the fields alone, since copies differ in blanks, or, as zips,
        in how they were packed.
    """

    folder: str
    name: str
    sha256: str
    url: str | None
    by_hand: str = ""
    fields: bool = False


def cache_folder() -> pathlib.Path:
    """``$SYNSCALE_DATA_DIR`` or ``~/.cache/synscale_jax``."""
    return pathlib.Path(os.environ.get("SYNSCALE_DATA_DIR") or "~/.cache/synscale_jax").expanduser()


def fetch(source: Source) -> pathlib.Path:
    """The file in the cache, fetched if it is not there, its hash checked in either case.

    What is fetched gets its name after the check only: nothing half-written stays.

    Raises:
      DataNotAvailable: if it cannot be had, within seconds, or is another file than is expected.
    """
    path = cache_folder() / source.folder / source.name
    if not path.exists():
        _download(source, path)
    if (found := digest(path, source.fields)) != source.sha256:
        raise DataNotAvailable(
            f"{path} is damaged or another version (sha256 {found[:12]}…, expected "
            f"{source.sha256[:12]}…): delete it, and "
            + ("it is fetched again." if source.url else f"put the file of {source.by_hand} there.")
        )
    return path


def digest(path: pathlib.Path, fields: bool) -> str:
    """SHA-256 in hex of a file, or of its fields joined by single blanks and newlines.

    The fields of a zip are those of its texts, one after the other by name, wherever they lie in
    it; "" for one that cannot be read.
    """
    if not fields:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    texts = [path.read_bytes()]
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                texts = [archive.read(name) for name in texts_by_name(archive)]
        except (zipfile.BadZipFile, zlib.error):
            return ""
    lines = (line for text in texts for line in text.strip().split(b"\n"))
    return hashlib.sha256(b"\n".join(b" ".join(line.split()) for line in lines)).hexdigest()


def texts_by_name(archive: zipfile.ZipFile) -> list[str]:
    """A zip's members of type .txt, ordered by their names without folders and case."""
    names = [name for name in archive.namelist() if name.lower().endswith(".txt")]
    return sorted(names, key=lambda name: name.split("/")[-1].lower())


def _download(source: Source, path: pathlib.Path) -> None:
    if source.url is None:
        raise DataNotAvailable(
            f"{path} is not there and cannot be fetched by a program: put the file of "
            f"{source.by_hand} there, or set SYNSCALE_DATA_DIR to the folder that holds "
            f"{source.folder}/{source.name}."
        )
    import pooch

    pooch.get_logger().setLevel("WARNING")
    downloader: Any = pooch.HTTPDownloader(timeout=_PATIENCE)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A place of its own: another process may fetch the same file.
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
            part = pathlib.Path(folder) / source.name
            pooch.retrieve(
                source.url,
                None,  # checked below, as a sum over fields is none that pooch knows
                fname=part.name,
                path=part.parent,
                downloader=downloader,
            )
            if digest(part, source.fields) != source.sha256:
                raise ValueError("what came is another file than was expected")
            part.replace(path)
    except (OSError, ValueError) as error:  # requests' errors are OSErrors
        if path.exists() and digest(path, source.fields) == source.sha256:
            return  # another process had more luck meanwhile
        reason = str(error).splitlines()[0][:120]
        raise DataNotAvailable(
            f"{source.folder}/{source.name} is not in {path.parent} and could not be fetched from "
            f"{source.url} ({reason}): try again with a network, or put the file there yourself."
        ) from error
