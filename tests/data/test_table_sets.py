import dataclasses
import hashlib
import os
import pathlib
import socket
import time
import zipfile

import numpy as np
import pytest

from synscale_jax.data import DataNotAvailable, load_table, make_folds
from synscale_jax.data import _readers as readers
from synscale_jax.data._fetch import Source, digest, fetch
from synscale_jax.data.eeg import evaluation_windows, load_eeg, training_windows
from synscale_jax.data.tables import TABLES, leaking_columns, overview, prepare

# The cache as it was before the tests' own empty one.
CACHE = pathlib.Path(os.environ.get("SYNSCALE_DATA_DIR") or "~/.cache/synscale_jax").expanduser()
FOLDERS = {
    "breast_cancer_41": "breast_cancer",
    "mesothelioma_blind": "mesothelioma",
    "parkinson_motor": "parkinsons_telemonitoring",
    "parkinson_total": "parkinsons_telemonitoring",
    "red_wine": "wine_quality",
    "white_wine": "wine_quality",
}
SHAPES = {  # rows, inputs, classes, hidden units
    "thyroid": (7200, 21, 3, 630),
    "breast_cancer": (286, 33, 2, 660),
    "breast_cancer_41": (286, 41, 2, 820),
    "breast_cancer_wisconsin": (699, 9, 2, 180),
    "iris": (150, 4, 3, 120),
    "mesothelioma": (324, 34, 2, 680),
    "mesothelioma_blind": (324, 33, 2, 660),
    "parkinson_motor": (5875, 16, 0, 160),
    "parkinson_total": (5875, 16, 0, 160),
    "red_wine": (1599, 11, 0, 110),
    "white_wine": (4898, 11, 0, 110),
    "diabetes": (442, 10, 0, 100),
    "abalone": (4177, 8, 0, 80),
    "life_expectancy": (2928, 19, 0, 190),
}


@pytest.fixture
def real(monkeypatch):
    """Loads a table from the user's cache, or skips where it was never fetched."""
    monkeypatch.setenv("SYNSCALE_DATA_DIR", str(CACHE))

    def load(name):
        if name != "diabetes" and not (CACHE / FOLDERS.get(name, name)).is_dir():
            pytest.skip(f"{name} is not in {CACHE}")
        return load_table(name)

    return load


@pytest.mark.parametrize("name", TABLES)
def test_shapes_and_widths(real, name):
    table = real(name)
    found = len(table.target), table.num_inputs, table.num_classes, table.width
    assert found == SHAPES[name]
    assert len(table.columns) == table.scalars.shape[1] + table.categories.shape[1]


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("thyroid", [166, 368, 6666]),
        ("breast_cancer", [201, 85]),
        ("breast_cancer_wisconsin", [458, 241]),
        ("iris", [50, 50, 50]),
        ("mesothelioma", [228, 96]),
    ],
)
def test_class_counts(real, name, counts):
    assert np.bincount(real(name).target).tolist() == counts


def test_the_papers_32_binaries_of_breast_cancer(real):
    table = real("breast_cancer")
    assert table.scalars.shape[1] == 1 and sum(table.levels) == 32
    inputs = prepare(table, np.arange(286)).inputs
    assert set(np.unique(inputs[:, 1:])) == {0, 1}
    assert (inputs[:, 1:].sum(1) == 8).all()  # a missing value has a level of its own
    coded = prepare(real("breast_cancer_41"), np.arange(286)).inputs
    assert (coded.sum(1) < 9).sum() == 9  # and none here


def test_the_label_in_disguise_is_found(real):
    assert leaking_columns(real("mesothelioma")) == ["diagnosis method"]
    assert leaking_columns(real("mesothelioma_blind")) == []
    assert leaking_columns(real("iris")) == []


@pytest.fixture
def table(monkeypatch):
    """A regression with a missing value, a category and groups."""
    generator = np.random.default_rng(0)
    scalars = generator.normal(size=(60, 3))
    scalars[5, 1] = np.nan
    base = load_table("diabetes")
    return dataclasses.replace(
        base,
        scalars=scalars,
        categories=generator.integers(3, size=(60, 1)).astype(np.int32),
        levels=(3,),
        columns=("a", "b", "c", "d"),
        target=generator.normal(size=60),
        groups=np.repeat(np.arange(15), 4).astype(np.int32),
        group_name="subject",
    )


@pytest.mark.parametrize("grouped", [False, True])
def test_folds_partition_the_rows(table, grouped):
    folds = make_folds(table, 3, grouped=grouped)
    assert np.sort(np.concatenate([fold.test for fold in folds])).tolist() == list(range(60))
    for fold in folds:
        everything = np.concatenate(fold)
        assert np.sort(everything).tolist() == list(range(60))
        assert len(fold.validation) > 0


def test_no_group_is_on_two_sides(table):
    for fold in make_folds(table, 0, grouped=True):
        sides = [set(table.groups[part]) for part in fold]
        assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])


def test_a_seed_redraws_the_partition(table):
    first, again, other = (make_folds(table, seed)[0].test.tolist() for seed in (0, 0, 1))
    assert first == again != other


def test_nothing_of_a_test_fold_reaches_training(table):
    """Canaries: whatever test and validation rows hold, training rows and statistics stay."""
    fold = make_folds(table, 0)[0]
    held = np.concatenate([fold.validation, fold.test])
    scalars, target = table.scalars.copy(), table.target.copy()
    scalars[held], target[held] = 1e9, 1e9
    categories = table.categories.copy()
    categories[held] = 2
    poisoned = dataclasses.replace(table, scalars=scalars, target=target, categories=categories)
    clean, dirty = prepare(table, fold.train), prepare(poisoned, fold.train)
    np.testing.assert_array_equal(clean.inputs[fold.train], dirty.inputs[fold.train])
    np.testing.assert_array_equal(clean.targets[fold.train], dirty.targets[fold.train])
    assert clean[2:].__repr__() == dirty[2:].__repr__()
    assert dirty.inputs[fold.test[0], 0] > 1e6  # the canary is there


def test_training_rows_are_scaled_and_missing_ones_are_the_mean(table):
    fold = make_folds(table, 0)[0]
    ready = prepare(table, fold.train)
    scaled = ready.inputs[fold.train][:, :3]
    np.testing.assert_allclose(scaled.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(scaled[:, [0, 2]].std(0), 1, atol=1e-5)
    assert ready.inputs[5, 1] == 0
    targets = ready.targets[fold.train]
    assert targets.min() == 0 and targets.max() == 1
    np.testing.assert_allclose(targets.mean(), ready.target_mean, atol=1e-6)


def test_class_weights_are_the_inverse_prevalence(real):
    table = real("iris")
    rows = np.concatenate([np.arange(50), np.arange(50, 75), np.arange(100, 125)])
    weights = prepare(table, rows).class_weights
    np.testing.assert_allclose(weights, [100 / 150, 100 / 75, 100 / 75])


def test_windows_stay_within_segments(monkeypatch):
    monkeypatch.setenv("SYNSCALE_DATA_DIR", str(CACHE))
    if not (CACHE / "epileptic_seizure").is_dir():
        pytest.skip("the EEG is not in the cache")
    segments = load_eeg()
    assert segments.signals.shape == (500, 4097)
    assert np.bincount(segments.labels).tolist() == [100] * 5
    assert np.abs(segments.signals[400:]).mean() > 3 * np.abs(segments.signals[:400]).mean()
    train, test = (
        training_windows(segments, np.array([3, 7])),
        evaluation_windows(segments, np.array([9])),
    )
    assert train.inputs.shape == (114, 512) and test.inputs.shape == (4, 512)
    np.testing.assert_array_equal(train.inputs[57], segments.signals[7, :512])
    np.testing.assert_array_equal(train.inputs[56], segments.signals[3, 56 * 64 : 56 * 64 + 512])
    assert set(train.segment) == {3, 7} and set(test.segment) == {9}


def test_overview_says_loss_and_units():
    columns = overview(["diabetes"])
    assert columns["width"] == ["100"] and "progression score" in columns["loss"][0]


# Bad files and no network.

CONTENT = b"5.1,3.5,1.4,0.2,Iris-setosa\n4.9,3.0,1.4,0.2,Iris-setosa\n"


def source(url):
    return Source("some", "file.data", hashlib.sha256(CONTENT).hexdigest(), url)


@pytest.fixture
def closed_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/file.data"


def test_no_network_is_one_sentence_and_leaves_nothing(folders, closed_port):
    begin = time.monotonic()
    with pytest.raises(DataNotAvailable, match="could not be fetched from http") as caught:
        fetch(source(closed_port))
    assert time.monotonic() - begin < 10
    assert "\n" not in str(caught.value)
    assert not [path for path in (folders / "cache").rglob("*") if path.is_file()]


@pytest.mark.parametrize("content", [CONTENT[:20], b"", b"<html>not found</html>"])
def test_a_damaged_file_is_told(folders, content):
    path = folders / "cache" / "some" / "file.data"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(DataNotAvailable, match=r"is damaged or another version .* delete it"):
        fetch(source("http://127.0.0.1:1/"))


def test_a_wrong_file_from_the_server_is_not_kept(folders, tmp_path):
    other = tmp_path / "other"
    other.write_bytes(b"something else")

    def retrieve(url, known_hash, fname, path, downloader):
        path.mkdir(parents=True, exist_ok=True)
        (path / fname).write_bytes(other.read_bytes())

    import pooch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pooch, "retrieve", retrieve)
        with pytest.raises(DataNotAvailable, match="another file than was expected"):
            fetch(source("http://example.org/file.data"))
        assert not list((folders / "cache" / "some").iterdir())
        other.write_bytes(CONTENT)
        assert fetch(source("http://example.org/file.data")).read_bytes() == CONTENT


def test_two_processes_that_fetch_at_once_do_not_meet(folders, monkeypatch):
    """The other one fetches the file while this one does, or at last alone has it."""
    import pooch

    def retrieve(url, known_hash, fname, path, downloader):
        (path / fname).write_bytes(CONTENT[:20])
        if "inner" not in url:
            assert fetch(source("http://example.org/inner")).read_bytes() == CONTENT
        assert (path / fname).read_bytes() == CONTENT[:20]  # nobody else's
        if "failing" in url:
            raise OSError("cut off")
        (path / fname).write_bytes(CONTENT)

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    for url in ("http://example.org/whole", "http://example.org/failing"):
        path = fetch(source(url))
        assert path.read_bytes() == CONTENT
        assert list(path.parent.iterdir()) == [path]
        path.unlink()


def test_blanks_do_not_change_a_sum_over_fields(tmp_path):
    (tmp_path / "a").write_bytes(b"1 2  \n3 4\n")
    (tmp_path / "b").write_bytes(b"1  2\n3 4")
    assert digest(tmp_path / "a", True) == digest(tmp_path / "b", True)
    assert digest(tmp_path / "a", False) != digest(tmp_path / "b", False)


def test_a_zip_packed_otherwise_has_the_same_sum_over_fields(tmp_path):
    texts = {"A/Z1.txt": "1\r\n2\r\n", "A/Z2.txt": "3\r\n", "B/O1.TXT": "5\r\n"}
    for file, folder, order in (("a", "", 1), ("b", "all/", -1)):
        with zipfile.ZipFile(tmp_path / file, "w") as archive:
            for name in list(texts)[::order]:
                archive.writestr(folder + name, texts[name])
    first, second = ((tmp_path / file).read_bytes() for file in "ab")
    assert first != second
    assert digest(tmp_path / "a", True) == digest(tmp_path / "b", True)
    (tmp_path / "b").write_bytes(second.replace(b"5\r\n", b"6\r\n"))  # its check sum is wrong
    assert digest(tmp_path / "b", True) != digest(tmp_path / "a", True)


def test_a_set_without_address_says_what_to_put_where():
    with pytest.raises(DataNotAvailable, match="put the file of https://www"):
        fetch(readers._LIFE)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda t: load_table("irris"), "no table 'irris': choose one of thyroid"),
        (lambda t: make_folds(load_table("diabetes"), 0, grouped=True), "diabetes has no groups"),
        (lambda t: make_folds(t, 0, count=61), "count=61 folds .* use 2 to 60"),
        (lambda t: make_folds(t, 0, validation=1.0), "validation=1.0 is no share"),
        (lambda t: prepare(t, np.array([3])), "all training targets"),
        (lambda t: leaking_columns(t, above=1.5), "above=1.5 is no share"),
    ],
)
def test_bad_requests_are_one_sentence(table, call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(table)


def test_a_class_without_training_rows_is_refused(real):
    with pytest.raises(ValueError, match="class 'Iris-virginica' of iris is not among the 60"):
        prepare(real("iris"), np.arange(60))
