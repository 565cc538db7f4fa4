"""Sloppiness is an error here: silent rank promotion, reused keys, wrong shapes and types."""

import pathlib

import jax
import pytest

GOLDEN = pathlib.Path(__file__).parent / "golden"


@pytest.fixture(autouse=True)
def strict_jax():
    with jax.numpy_rank_promotion("raise"), jax.debug_key_reuse(True):
        yield


@pytest.fixture
def golden():
    return GOLDEN
