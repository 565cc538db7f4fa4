"""IMDB's reviews as arrays of words."""

from __future__ import annotations

import hashlib
import lzma
import pathlib
import re
import tarfile
import tempfile
from collections import Counter

import numpy as np

from synscale_jax.data._errors import DataNotAvailable
from synscale_jax.data._fetch import Source, cache_folder, fetch
from synscale_jax.data.images import ImageSet, Split

PADDING, UNKNOWN = 0, 1
"""Numbers of no word, and of a word outside the vocabulary; the most frequent word is 2."""

_FOLDER = "imdb"
_LABELS = ("neg", "pos")
_UNPACKED = {
    "train": "ce6ecb3c9c77fd900764446e78913de4fa71ad5791db4812ba10cf3cb419b047",
    "test": "5bfe73913d3acbf91f3285f407fea441eb6d0981a075739efc7b21de2d4dabfa",
}
_ARCHIVE = Source(
    _FOLDER,
    "aclImdb_v1.tar.gz",
    "c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe",
    "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
)
_WORD = re.compile(r"[a-z0-9']+")


def load_imdb(*, vocabulary: int = 20_000, length: int = 200) -> ImageSet:
    """Loads IMDB's 25 000 + 25 000 reviews, each as the numbers of its first words.

    Reviews are lower-cased, ``<br />`` is a blank, words are runs of letters, digits and
    apostrophes. The vocabulary is that of the training reviews. The paper names neither vocabulary
    nor length; both are ours. The archive is fetched once from Stanford, its hash checked, and kept
    as two packed text files in ``$SYNSCALE_DATA_DIR`` or ``~/.cache/synscale_jax``.

    Args:
      vocabulary: how many words have a number, the most frequent first; a model's embedding needs
        two numbers more, for :data:`PADDING` and :data:`UNKNOWN`.
      length: words of a review that are kept; shorter reviews end in :data:`PADDING`.

    Returns:
      An :class:`~synscale_jax.data.ImageSet` whose "images" are int32 arrays (reviews, length),
      ordered by the SHA-256 of the text, so that trainers of images train on it, too.

    Raises:
      ValueError: if vocabulary or length are below 1.
      DataNotAvailable: if the reviews are not in the cache and cannot be fetched, or are damaged.

    References:
      Maas et al., Learning Word Vectors for Sentiment Analysis, 2011.
    """
    for name, value in (("vocabulary", vocabulary), ("length", length)):
        if value < 1:
            raise ValueError(f"{name}={value} leaves no word: use 1 or more.")
    texts = {split: _reviews(split) for split in _UNPACKED}
    counts = Counter(word for text, _ in texts["train"] for word in words(text))
    known = sorted(counts, key=lambda word: (-counts[word], word))[:vocabulary]
    numbers = {word: index for index, word in enumerate(known, start=UNKNOWN + 1)}
    splits = {split: _encode(found, numbers, length) for split, found in texts.items()}
    digest = hashlib.sha256()
    for split in splits.values():
        digest.update(split.images.tobytes() + split.labels.tobytes())
    return ImageSet("imdb", splits["train"], splits["test"], _LABELS, digest.hexdigest())


def words(text: str) -> list[str]:
    """The words of a review.

    Examples:
      >>> from synscale_jax.data.text import words
      >>> words("It's bad.<br /><br />BAD!")
      ["it's", 'bad', 'bad']
    """
    return _WORD.findall(text.lower().replace("<br />", " "))


def _encode(texts: list[tuple[str, int]], numbers: dict[str, int], length: int) -> Split:
    order = sorted(texts, key=lambda item: (hashlib.sha256(item[0].encode()).digest(), item[1]))
    reviews = np.full((len(order), length), PADDING, np.int32)
    for row, (text, _) in zip(reviews, order, strict=True):
        found = [numbers.get(word, UNKNOWN) for word in words(text)[:length]]
        row[: len(found)] = found
    return Split(reviews, np.array([label for _, label in order], np.int32))


def _reviews(split: str) -> list[tuple[str, int]]:
    path = cache_folder() / _FOLDER / f"{split}.tsv.xz"
    if not path.exists():
        _pack()
    try:
        content = lzma.decompress(path.read_bytes())
    except (lzma.LZMAError, EOFError):
        content = b""
    if hashlib.sha256(content).hexdigest() != _UNPACKED[split]:
        raise DataNotAvailable(
            f"{path} is damaged or another version: delete it, and it is made anew from Stanford's "
            "archive."
        )
    lines = content.decode("utf-8").rstrip("\n").split("\n")  # on \n alone: reviews hold U+0085
    fields = (line.split("\t", 2) for line in lines)
    return [(text, int(label)) for label, _, text in fields]


def _pack() -> None:
    """Make the two packed files from Stanford's archive, whole or not at all."""
    archive = fetch(_ARCHIVE)
    found: dict[str, dict[tuple[int, int], bytes]] = {split: {} for split in _UNPACKED}
    pattern = re.compile(r"aclImdb/(train|test)/(neg|pos)/((\d+)_\d+)\.txt$")
    with tarfile.open(archive) as tar:
        for member in tar:
            match = pattern.match(member.name)
            file = tar.extractfile(member) if match else None
            if match and file:
                label = _LABELS.index(match[2])
                line = f"{label}\t{match[3]}\t".encode() + file.read() + b"\n"
                found[match[1]][label, int(match[4])] = line
    for split, lines in found.items():
        _write(
            cache_folder() / _FOLDER / f"{split}.tsv.xz", [lines[place] for place in sorted(lines)]
        )


def _write(path: pathlib.Path, lines: list[bytes]) -> None:
    packed = lzma.compress(b"".join(lines), preset=1)
    # A name of its own: another process may pack the same reviews.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
        part = pathlib.Path(folder) / path.name
        part.write_bytes(packed)
        part.replace(path)
