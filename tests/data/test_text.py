import hashlib
import io
import lzma
import pathlib
import tarfile

import numpy as np
import pytest

from synscale_jax.data import DataNotAvailable, load_imdb, text
from synscale_jax.data.text import PADDING, UNKNOWN, words

TRAIN = b"0\t0_3\tBad, bad.<br />Bad\tfilm\xc2\x85here\n1\t0_9\tGood film\n"
TEST = b"0\t0_1\tunseen bad\n1\t0_8\tgood\n"


def digest(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def small(folders, monkeypatch):
    """Four reviews in the place and form of the real ones."""
    monkeypatch.setattr(text, "_UNPACKED", {"train": digest(TRAIN), "test": digest(TEST)})
    folder = folders / "cache" / "imdb"
    folder.mkdir(parents=True)
    for split, content in (("train", TRAIN), ("test", TEST)):
        (folder / f"{split}.tsv.xz").write_bytes(lzma.compress(content))
    return folder


def test_words_are_numbered_by_how_often_they_are_in_training(small):
    reviews = load_imdb(vocabulary=2, length=4)  # bad: 3 times, film: twice
    shown = {tuple(row): label for row, label in zip(*reviews.train, strict=True)}
    assert shown == {
        (2, 2, 2, 3): 0,
        (UNKNOWN, 3, PADDING, PADDING): 1,
    }
    assert sorted(map(tuple, reviews.test.images.tolist())) == [(1, 0, 0, 0), (1, 2, 0, 0)]
    assert reviews.class_names == ("neg", "pos")


def test_lines_are_split_on_newlines_alone_and_tabs_stay_in_reviews(small):
    reviews = load_imdb(vocabulary=10, length=10)
    assert len(reviews.train.labels) == 2
    assert np.count_nonzero(reviews.train.images, 1).max() == 5


def test_a_damaged_file_is_told(small):
    path = small / "train.tsv.xz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataNotAvailable, match="is damaged or another version: delete it"):
        load_imdb()


def test_packed_from_the_archive(small, monkeypatch):
    for path in small.iterdir():
        path.unlink()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for split, content in (("train", TRAIN), ("test", TEST)):
            for line in reversed(content.rstrip(b"\n").split(b"\n")):
                label, name, review = line.split(b"\t", 2)
                folder = ("neg", "pos")[int(label)]
                member = tarfile.TarInfo(f"aclImdb/{split}/{folder}/{name.decode()}.txt")
                member.size = len(review)
                tar.addfile(member, io.BytesIO(review))
        tar.addfile(tarfile.TarInfo("aclImdb/train/unsup/0_0.txt"), io.BytesIO())
    source = text._ARCHIVE._replace(sha256=digest(archive.getvalue()))
    monkeypatch.setattr(text, "_ARCHIVE", source)
    (small / source.name).write_bytes(archive.getvalue())
    assert len(load_imdb().train.labels) == 2
    assert lzma.decompress((small / "test.tsv.xz").read_bytes()) == TEST


def test_two_processes_that_pack_at_once_do_not_meet(tmp_path, monkeypatch):
    path, replace, depth = tmp_path / "train.tsv.xz", pathlib.Path.replace, []

    def replacing(self, target):
        depth.append(self)
        if len(depth) == 1:
            text._write(path, [TEST])  # the other process, to its end
        return replace(self, target)

    monkeypatch.setattr(pathlib.Path, "replace", replacing)
    text._write(path, [TRAIN])
    assert len(set(depth)) == 2
    assert lzma.decompress(path.read_bytes()) == TRAIN
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_pack_leaves_nothing(tmp_path, monkeypatch):
    def full(self, content):
        self.touch()
        raise OSError("No space left on device")

    monkeypatch.setattr(pathlib.Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        text._write(tmp_path / "train.tsv.xz", [TRAIN])
    assert not list(tmp_path.iterdir())


def test_no_vocabulary_is_refused():
    with pytest.raises(ValueError, match="vocabulary=0 leaves no word"):
        load_imdb(vocabulary=0)
    assert words("don't STOP") == ["don't", "stop"]
