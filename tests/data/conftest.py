import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from official import Server


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """Empty folders for the data and the cache, and no way past this machine."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setenv("SYNSCALE_DATA_DIR", str(tmp_path / "cache"))
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


@pytest.fixture
def server(monkeypatch):
    server = Server(monkeypatch)
    yield server
    server.close()
