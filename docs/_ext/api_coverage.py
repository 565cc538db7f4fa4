"""The build fails if a public name is missing from the API reference.

Public is what a module's ``__all__`` names; where a module has none, every function and class it
defines without an underscore. Modules with an underscore in their path are private.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import SphinxError

PACKAGE = "synscale_jax"
# What examples and commands run, and nobody calls.
NO_REFERENCE = {"synscale_jax.data.__main__"}


class Undocumented(SphinxError):
    """A public name is on no page."""

    category = "API coverage"


def public_modules() -> Iterator[ModuleType]:
    """The package and every module below it without an underscore in its path."""
    package = importlib.import_module(PACKAGE)
    yield package
    for info in pkgutil.walk_packages(package.__path__, f"{PACKAGE}."):
        private = any(part.startswith("_") for part in info.name.split("."))
        if not private and info.name not in NO_REFERENCE:
            yield importlib.import_module(info.name)


def public_names(module: ModuleType) -> list[str]:
    """What a module offers."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == module.__name__
    ]


def missing(documented: set[str]) -> list[str]:
    """Public names that no page documents, under any of the paths they go by."""
    modules = list(public_modules())
    same: dict[int, set[str]] = {}  # an object and the names it goes by
    for module in modules:
        for name in vars(module):
            same.setdefault(id(vars(module)[name]), set()).add(f"{module.__name__}.{name}")
    gaps = []
    for module in modules:
        for name in public_names(module):
            paths = same[id(getattr(module, name))] | {f"{module.__name__}.{name}"}
            if not paths & documented:
                gaps.append(f"{module.__name__}.{name}")
    return sorted(gaps)


def check(app: Sphinx, env: BuildEnvironment) -> None:
    """Compare with what the Python domain holds once all pages are read."""
    documented = set(env.get_domain("py").objects)  # pyright: ignore
    if gaps := missing(documented):
        raise Undocumented(f"missing from docs/api: {', '.join(gaps)}")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the check."""
    app.connect("env-check-consistency", check)
    return {"parallel_read_safe": True}
