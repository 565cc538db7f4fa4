"""Sloppiness is an error here: silent rank promotion, reused keys, wrong shapes and types."""

import os
import pathlib
import shutil
import tempfile

import jax
import pytest

GOLDEN = pathlib.Path(__file__).parent / "golden"

CACHE = "JAX_COMPILATION_CACHE_DIR"
SECONDS = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"


def pytest_configure(config):
    """Workers and the processes they start load what one of them has compiled.

    Set to a folder of one's own, the variable keeps it for the next run.
    """
    if CACHE in os.environ:  # of the user, or of the process that started this one
        return
    folder = tempfile.mkdtemp(prefix="synscale_jax-compiled-")
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    config.add_cleanup(lambda: os.environ.pop(CACHE, None))
    os.environ |= {CACHE: folder, SECONDS: "0.02"}  # for the others; jax is imported here already
    jax.config.update(CACHE.lower(), folder)
    jax.config.update(SECONDS.lower(), 0.02)


@pytest.fixture(autouse=True)
def strict_jax():
    with jax.numpy_rank_promotion("raise"), jax.debug_key_reuse(True):
        yield


@pytest.fixture
def golden():
    return GOLDEN
