import inspect

import numpy as np
import pytest
from official import cifar_members, mnist_files, tar_gz

from synscale_jax.data import Split, _cache, load_images, prepare_images, split_validation, subset


def shuffled_cifar10(seed):
    """The CIFAR-10 archive of seed 0 with its training files' examples in another order."""
    members = cifar_members("cifar10")
    paths = [path for path in members if "data_batch" in path]
    rows = np.frombuffer(b"".join(members[path] for path in paths), np.uint8).reshape(-1, 3073)
    rows = np.random.default_rng(seed).permutation(rows)
    parts = np.split(rows, len(paths))
    shuffled = {path: part.tobytes() for path, part in zip(paths, parts, strict=True)}
    return {"cifar-10-binary.tar.gz": tar_gz(members | shuffled)}


def test_shuffled_source_gives_the_same_hash_and_batches(server, folders):
    found = []
    for seed in (1, 2):
        server.offer("cifar10", shuffled_cifar10(seed))
        found.append(load_images("cifar10", data_dir=folders / str(seed)))
    assert found[0].data_hash == found[1].data_hash
    batch = np.random.default_rng(0).permutation(20)[:8]
    for first, second in zip(found[0].train, found[1].train, strict=True):
        np.testing.assert_array_equal(first[batch], second[batch])


def test_other_data_give_another_hash(server, folders):
    found = set()
    for seed in (1, 2):
        server.offer("mnist", mnist_files(seed))
        found.add(load_images("mnist", data_dir=folders / str(seed)).data_hash)
    assert len(found) == 2


def test_equal_pixels_are_ordered_by_label():
    images = np.zeros((3, 2, 2, 1), np.uint8)
    order = _cache.canonical_order(images, np.array([2, 0, 1], np.int32))
    np.testing.assert_array_equal(order, [1, 2, 0])


@pytest.fixture
def mnist(server):
    server.offer("mnist", mnist_files())
    return load_images("mnist")


def cache_file(folders):
    (path,) = (folders / "cache").rglob("*.npz")
    return path


def same(first, second):
    assert first.data_hash == second.data_hash and first.class_names == second.class_names
    for a, b in zip((*first.train, *first.test), (*second.train, *second.test), strict=True):
        np.testing.assert_array_equal(a, b)


def test_cache_is_used_without_decoding(mnist, monkeypatch):
    monkeypatch.setattr(_cache, "_decode", lambda folder: pytest.fail("decoded again"))
    again = load_images("mnist")
    same(mnist, again)
    assert again.train.images.dtype == np.uint8 and again.train.images.flags.c_contiguous
    assert again.train.labels.dtype == np.int32


@pytest.mark.parametrize("damage", ["empty", "half", "text", "byte", "pickle", "hash"])
def test_damaged_cache_is_rebuilt(damage, mnist, folders):
    path = cache_file(folders)
    good = path.read_bytes()
    if damage == "pickle":
        np.savez(path, fingerprint=np.array([object()]))
    elif damage == "hash":  # a sound file whose pixels are not those that were hashed
        arrays = dict(np.load(path))
        arrays["train_images"][0] += 1
        np.savez(path, **arrays)
    else:
        flipped = bytearray(good)
        flipped[len(good) // 2] ^= 255
        changed = {"empty": b"", "half": good[: len(good) // 2], "text": b"no zip", "byte": flipped}
        path.write_bytes(changed[damage])
    with pytest.warns(UserWarning, match="damaged"):
        same(mnist, load_images("mnist"))
    assert path.read_bytes()[:2] == b"PK" and len(path.read_bytes()) == len(good)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_cache_of_another_copy_is_rebuilt(mnist, server, folders):
    server.offer("mnist", mnist_files(seed=5))
    other = load_images("mnist", data_dir=folders / "other")
    assert other.data_hash != mnist.data_hash
    same(mnist, load_images("mnist"))


def test_cache_that_cannot_be_written_only_warns(mnist, folders, monkeypatch):
    (folders / "file").write_text("")
    monkeypatch.setenv("SYNSCALE_DATA_DIR", str(folders / "file"))
    with pytest.warns(UserWarning, match="SYNSCALE_DATA_DIR"):
        same(mnist, load_images("mnist"))


def test_damaged_prepared_copy_says_which_folder(server):
    server.offer("mnist", mnist_files())
    folder = prepare_images("mnist")
    for path in folder.glob("*array_record*"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RuntimeError, match=r"mnist/3\.0\.1 could not be read.*delete that folder"):
        load_images("mnist")


def test_digits():
    digits = load_images("digits")
    assert digits.image_shape == (8, 8, 1) and digits.num_classes == 10
    assert (len(digits.train.labels), len(digits.test.labels)) == (1437, 360)
    assert digits.train.images.dtype == np.uint8 and digits.train.images.max() == 255
    assert digits.train.labels.dtype == np.int32
    assert np.bincount(digits.test.labels).min() >= 25
    assert digits.data_hash == load_images("digits").data_hash


def numbered(total):
    return Split(np.arange(total, dtype=np.uint8).reshape(-1, 1, 1, 1), np.arange(total))


@pytest.mark.parametrize(("size", "count"), [(3, 3), (0.3, 3), (9, 9)])
def test_split_validation_is_the_tail_and_disjoint(size, count):
    train, validation = split_validation(numbered(10), size)
    np.testing.assert_array_equal(train.labels, np.arange(10 - count))
    np.testing.assert_array_equal(validation.labels, np.arange(10 - count, 10))
    np.testing.assert_array_equal(validation.images[:, 0, 0, 0], validation.labels)


@pytest.mark.parametrize("size", [0, -1, 10, 11, 0.96, 0.0, 1.0, 0.01, 2.5, True, float("nan")])
def test_impossible_validation_splits(size):
    with pytest.raises(ValueError, match=f"{size!r} .*whole number from 1 to 9"):
        inspect.unwrap(split_validation)(numbered(10), size)  # without the tests' type checks


def test_subset_is_the_head():
    np.testing.assert_array_equal(subset(numbered(10), 4).labels, np.arange(4))
    assert len(subset(numbered(10), 10).labels) == 10
    for count in (0, 11, True, 1.5):
        with pytest.raises(ValueError, match=f"{count!r} .*1 to 10"):
            inspect.unwrap(subset)(numbered(10), count)
