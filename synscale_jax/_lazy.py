"""Submodules that are imported when they are first asked for."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any


def submodules_of(package: str) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package whose submodules need no import of their own."""

    def __getattr__(name: str) -> Any:
        path = f"{package}.{name}"
        if name.startswith("_") or importlib.util.find_spec(path) is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return importlib.import_module(path)

    return __getattr__
