import gzip
import pathlib
import socket
import subprocess
import sys
import tarfile
import time

import numpy as np
import pytest
from official import CIFAR_LAYOUT, cifar_members, idx, mnist_files, point_to, tar_gz

from synscale_jax.data import DataNotAvailable, _prepare, load_images, prepare_images
from synscale_jax.data import __main__ as command

ARCHIVES = {"cifar10": "cifar-10-binary.tar.gz", "cifar100": "cifar-100-binary.tar.gz"}


def left_behind(folder):
    return [path for path in folder.rglob("*") if path.is_file()] if folder.exists() else []


def one_sentence(caught):
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    return message


def expected_pixels(images):
    return sorted(image.tobytes() for image in images)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_mnist_from_download_to_arrays(name, server, folders):
    files = mnist_files()
    server.offer(name, files)
    images = load_images(name)
    assert images.train.images.shape == (20, 28, 28, 1) and images.test.images.shape[0] == 6
    source = gzip.decompress(files["train-images-idx3-ubyte.gz"])[16:]
    source = np.frombuffer(source, np.uint8).reshape(20, 28, 28)
    assert expected_pixels(images.train.images) == expected_pixels(source)
    assert images.class_names[0] == ("0" if name == "mnist" else "T-shirt/top")
    kept = sorted(path.name for path in (folders / "tfds").iterdir())
    assert kept == [name]  # neither downloads nor temporary folders


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_from_download_to_arrays(name, server, folders):
    members = cifar_members(name)
    server.offer(name, {ARCHIVES[name]: tar_gz(members)})
    images = load_images(name)
    folder, data, names = CIFAR_LAYOUT[name]
    width = 3072 + len(names)
    train = b"".join(members[f"{folder}/{file}"] for file in data if "test" not in file)
    rows = np.frombuffer(train, np.uint8).reshape(-1, width)
    pixels = rows[:, len(names) :].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    by_pixels = {
        image.tobytes(): row[len(names) - 1] for image, row in zip(pixels, rows, strict=True)
    }
    assert images.image_shape == (32, 32, 3)
    for image, label in zip(*images.train, strict=True):
        assert by_pixels[image.tobytes()] == label
    last_names = list(names)[-1]
    assert images.class_names[:2] == (f"{last_names[:3]}_0", f"{last_names[:3]}_1")
    assert images.num_classes == list(names.values())[-1]


def test_prepared_copy_is_read_by_tfds_itself(server):
    import tensorflow_datasets as tfds

    server.offer("cifar100", {ARCHIVES["cifar100"]: tar_gz(cifar_members("cifar100"))})
    folder = prepare_images("cifar100")
    source = tfds.data_source("cifar100", split="train", data_dir=folder.parents[1], download=False)
    assert len(source) == 20
    assert set(source[0]) == {"image", "label", "coarse_label", "id"}
    assert prepare_images("cifar100") == folder  # no second preparation
    assert "tensorflow" not in sys.modules


def test_archives_put_there_by_hand_need_no_network(server, folders):
    files = mnist_files()
    server.offer("mnist", files)
    server.files.clear()
    manual = folders / "tfds/downloads/manual"
    manual.mkdir(parents=True)
    for name, content in files.items():
        (manual / name).write_bytes(content)
    assert len(load_images("mnist").test.labels) == 6
    assert sorted(path.name for path in manual.iterdir()) == sorted(files)


def test_checksum_mismatch(server, folders):
    server.offer("mnist", mnist_files(seed=1), announced=mnist_files(seed=0))
    with pytest.raises(DataNotAvailable) as caught:
        load_images("mnist")
    message = one_sentence(caught)
    assert "checksum" in message and "ubyte.gz" in message
    assert left_behind(folders) == []


def test_missing_on_the_server(server, folders):
    files = mnist_files()
    server.offer("mnist", files)
    del server.files["t10k-labels-idx1-ubyte.gz"]
    with pytest.raises(DataNotAvailable) as caught:
        load_images("mnist")
    assert "404" in one_sentence(caught)
    assert left_behind(folders) == []


def refused(server, folders, name, files):
    """The sentence that a damaged archive with the right checksum is refused with."""
    server.offer(name, files)
    with pytest.raises(DataNotAvailable) as caught:
        load_images(name)
    assert left_behind(folders) == []
    return one_sentence(caught)


@pytest.mark.parametrize("length", [0, 10, 3000])
def test_truncated_gz(length, server, folders):
    files = mnist_files()
    files["train-images-idx3-ubyte.gz"] = files["train-images-idx3-ubyte.gz"][:length]
    assert "train-images" in refused(server, folders, "mnist", files)


@pytest.mark.parametrize("length", [0, 10, 30000])
def test_truncated_tar(length, server, folders):
    archive = tar_gz(cifar_members("cifar10"))[:length]
    assert "does not unpack" in refused(server, folders, "cifar10", {ARCHIVES["cifar10"]: archive})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (idx(np.zeros((6, 28, 28), np.uint8))[:-1], "bytes"),
        (idx(np.zeros((6, 28), np.uint8)), "axes"),
        (b"", "axes"),
        (idx(np.zeros((5, 28, 28), np.uint8)), "6 labels for 5 images"),
    ],
)
def test_wrong_idx_file(content, said, server, folders):
    files = mnist_files() | {"t10k-images-idx3-ubyte.gz": gzip.compress(content)}
    assert said in refused(server, folders, "mnist", files)


def member(name, kind=tarfile.REGTYPE, size=0, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, target
    return info


@pytest.mark.parametrize(
    "evil",
    [
        member("../evil.bin"),
        member("/etc/evil.bin"),
        member("cifar-10-batches-bin/../../evil.bin"),
        member("elsewhere/evil.bin"),
        member("cifar-10-batches-bin/evil.bin", tarfile.SYMTYPE, target="/etc/passwd"),
        member("cifar-10-batches-bin/evil.bin", tarfile.LNKTYPE, target="/etc/passwd"),
        member("cifar-10-batches-bin/evil.bin", tarfile.FIFOTYPE),
        member("cifar-10-batches-bin/test_batch.bin"),
    ],
    ids=lambda info: f"{info.name}-{info.type.decode()}",
)
def test_evil_tar_member(evil, server, folders):
    archive = tar_gz(cifar_members("cifar10"), extra=[evil])
    message = refused(server, folders, "cifar10", {ARCHIVES["cifar10"]: archive})
    assert evil.name in message


def test_tar_without_a_file_or_with_half_an_example(server, folders):
    members = cifar_members("cifar10")
    path = "cifar-10-batches-bin/test_batch.bin"
    fewer = {key: value for key, value in members.items() if key != path}
    archive = {ARCHIVES["cifar10"]: tar_gz(fewer)}
    assert f"lacks {path}" in refused(server, folders, "cifar10", archive)
    archive = {ARCHIVES["cifar10"]: tar_gz(members | {path: members[path][:-1]})}
    assert "multiple of 3073" in refused(server, folders, "cifar10", archive)


def test_label_out_of_range_leaves_nothing(server, folders):
    files = mnist_files()
    files["t10k-labels-idx1-ubyte.gz"] = gzip.compress(idx(np.full(6, 10, np.uint8)))
    assert "label 10 where 10 classes" in refused(server, folders, "mnist", files)


@pytest.mark.parametrize("listens", [False, True], ids=["closed port", "silent host"])
def test_offline_start_is_quick_and_clear(listens, monkeypatch, folders):
    with socket.socket() as host:
        host.bind(("127.0.0.1", 0))
        if listens:
            host.listen()  # takes the connection and never answers
        point_to(monkeypatch, "cifar10", f"http://127.0.0.1:{host.getsockname()[1]}/")
        start = time.perf_counter()
        with pytest.raises(DataNotAvailable) as caught:
            load_images("cifar10")
        assert time.perf_counter() - start < 10
    message = one_sentence(caught)
    assert "python -m synscale_jax.data cifar10" in message
    assert ARCHIVES["cifar10"] in message
    assert not (folders / "tfds").exists()


def test_download_can_be_forbidden(folders):
    with pytest.raises(DataNotAvailable, match=r"not prepared in .*python -m synscale_jax\.data"):
        load_images("mnist", data_dir=folders / "mine", download=False)


def test_tfrecord_copy_is_recognised(server, folders):
    server.offer("mnist", mnist_files())
    folder = prepare_images("mnist")
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    for path in list(folder.glob("*array_record*")):
        path.rename(folder / path.name.replace("array_record", "tfrecord"))
    for call in (load_images, prepare_images):
        with pytest.raises(DataNotAvailable) as caught:
            call("mnist")
        message = one_sentence(caught)
        assert str(folder) in message and "TFRECORD" in message and "--data-dir" in message
    assert len(load_images("mnist", data_dir=folders / "second").test.labels) == 6


def test_a_folder_that_tfds_has_not_finished_is_not_taken(folders):
    unfinished = folders / "tfds/mnist/3.0.1.incompleteABCDEF"
    unfinished.mkdir(parents=True)
    (unfinished / "dataset_info.json").write_text("{}")
    with pytest.raises(DataNotAvailable, match="not prepared"):
        load_images("mnist", download=False)


def test_folder_that_cannot_be_made(server, folders):
    server.offer("mnist", mnist_files())
    (folders / "file").write_text("")
    with pytest.raises(DataNotAvailable, match="TFDS_DATA_DIR"):
        load_images("mnist", data_dir=folders / "file/inside")


WORKER = """
import sys, pytest
from official import announce, mnist_files, point_to
from synscale_jax.data import load_images
patch = pytest.MonkeyPatch()
announce(patch, sys.argv[1], mnist_files())
point_to(patch, "mnist", sys.argv[1])
print(load_images("mnist").data_hash)
"""


def test_two_processes_prepare_at_once(server, folders):
    server.offer("mnist", mnist_files())
    worker = [sys.executable, "-c", WORKER, server.url]
    here = {"cwd": pathlib.Path(__file__).parent, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(worker, **here) for _ in range(2)]
    hashes = {process.communicate(timeout=60)[0] for process in both}
    assert hashes == {load_images("mnist").data_hash + "\n"}
    assert [path.name for path in (folders / "tfds").iterdir()] == ["mnist"]
    assert [path.name for path in (folders / "tfds/mnist").iterdir()] == ["3.0.1"]


def test_second_of_two_takes_the_first_ones_copy(server, folders, monkeypatch):
    server.offer("mnist", mnist_files())
    build = _prepare._build

    def overtaken(name, scratch, manual):
        monkeypatch.setattr(_prepare, "_build", build)
        prepare_images(name)  # another process finishes while this one builds
        return build(name, scratch, manual)

    monkeypatch.setattr(_prepare, "_build", overtaken)
    assert prepare_images("mnist") == folders / "tfds/mnist/3.0.1"
    assert [path.name for path in (folders / "tfds").iterdir()] == ["mnist"]


def test_unknown_names():
    for call in (load_images, prepare_images):
        with pytest.raises(ValueError, match=r"'svhn'.*cifar100"):
            call("svhn")


def test_command_line_names_the_remedy_offline(monkeypatch, capsys):
    point_to(monkeypatch, "mnist", "http://127.0.0.1:9/")
    monkeypatch.setattr(sys, "argv", ["data", "mnist"])
    assert command.main() == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1 and "does not answer" in printed.err


def test_command_line_prints_folder_and_hash(server, monkeypatch, capsys):
    server.offer("mnist", mnist_files())
    monkeypatch.setattr(sys, "argv", ["data", "mnist"])
    assert command.main() == 0
    printed = capsys.readouterr().out
    assert str(pathlib.Path("mnist/3.0.1")) in printed and load_images("mnist").data_hash in printed


def test_import_is_light():
    heavy = "{'tensorflow_datasets', 'sklearn', 'PIL'} & set(sys.modules)"
    code = f"import sys, synscale_jax.data; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
