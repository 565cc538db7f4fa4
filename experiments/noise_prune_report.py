"""Figures and tables of noise_prune.py, from its JSONs."""

from __future__ import annotations

import pathlib


def write(folder: pathlib.Path) -> str:
    """Draw all that is there."""
    return str(folder)


def write_recurrent(folder: pathlib.Path) -> str:
    """Draw all that is there."""
    return str(folder)
