"""Tiny archives in the official layouts, and a server on this machine to download them from."""

import gzip
import hashlib
import http.server
import io
import tarfile
import threading

import numpy as np
from tensorflow_datasets.core.download import checksums

from synscale_jax.data import _archives

CIFAR_LAYOUT = {
    "cifar10": (
        "cifar-10-batches-bin",
        {f"data_batch_{i}.bin": 4 for i in range(1, 6)} | {"test_batch.bin": 6},
        {"batches.meta.txt": 10},
    ),
    "cifar100": (
        "cifar-100-binary",
        {"train.bin": 20, "test.bin": 6},
        {"coarse_label_names.txt": 20, "fine_label_names.txt": 100},
    ),
}


def mnist_files(seed=0, sizes=(20, 6)):
    """The four files of MNIST as {file name: bytes}."""
    rng = np.random.default_rng(seed)
    files = {}
    for prefix, size in zip(("train", "t10k"), sizes, strict=True):
        images = rng.integers(0, 256, (size, 28, 28), np.uint8)
        labels = rng.integers(0, 10, size, np.uint8)
        files[f"{prefix}-images-idx3-ubyte.gz"] = gzip.compress(idx(images), mtime=0)
        files[f"{prefix}-labels-idx1-ubyte.gz"] = gzip.compress(idx(labels), mtime=0)
    return files


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + array.tobytes()


def cifar_members(name, seed=0):
    """The members of a CIFAR binary archive as {path: bytes}."""
    folder, data, names = CIFAR_LAYOUT[name]
    rng = np.random.default_rng(seed)
    classes = list(names.values())
    members = {f"{folder}/readme.html": b"<html></html>"}
    for file, count in names.items():
        text = "".join(f"{file[:3]}_{i}\n" for i in range(count))
        members[f"{folder}/{file}"] = (
            text + "\n"
        ).encode()  # the official ones end in a blank line
    for file, count in data.items():
        labels = rng.integers(0, classes, (count, len(classes)), np.uint8)
        pixels = rng.integers(0, 256, (count, 3072), np.uint8)
        members[f"{folder}/{file}"] = np.concatenate([labels, pixels], axis=1).tobytes()
    return members


def tar_gz(members, extra=()):
    """A .tar.gz of {path: bytes}, and extra TarInfo without content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for path, content in members.items():
            info = tarfile.TarInfo(path)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in extra:
            archive.addfile(info)
    return buffer.getvalue()


class Server:
    """Serves {file name: bytes} over HTTP and stands in for the official sources."""

    def __init__(self, monkeypatch):
        self.files = {}
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                content = outer.files.get(self.path[1:])
                self.send_response(404 if content is None else 200)
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content or b"")

            do_HEAD = do_GET

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        self._monkeypatch = monkeypatch
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def offer(self, name, files, announced=None):
        """Serves ``files`` as the source of ``name``, with the checksums of ``announced``."""
        self.files |= files
        announce(self._monkeypatch, self.url, announced or files)
        point_to(self._monkeypatch, name, self.url)

    def close(self):
        self._server.shutdown()
        self._server.server_close()


def announce(monkeypatch, url, files):
    """Makes the checksums of these files those that TFDS knows."""
    infos = {
        url + file: checksums.UrlInfo(
            size=len(content), checksum=hashlib.sha256(content).hexdigest(), filename=file
        )
        for file, content in files.items()
    }
    monkeypatch.setattr(checksums, "get_all_url_infos", lambda: dict(infos))


def point_to(monkeypatch, name, url):
    """Makes ``name`` come from another host, under the official file names."""
    source = _archives.SOURCES[name]
    urls = {key: url + old.rsplit("/", 1)[1] for key, old in source.urls.items()}
    monkeypatch.setitem(_archives.SOURCES, name, source._replace(urls=urls))
