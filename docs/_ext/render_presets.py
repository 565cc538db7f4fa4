"""What the pages say of presets and defaults comes from the code: no page can lag behind."""

import importlib
import inspect
import pathlib
import sys
from types import ModuleType
from typing import Any

from sphinx.application import Sphinx

EXPERIMENTS = pathlib.Path(__file__).parents[2] / "experiments"


def experiment(name: str) -> ModuleType:
    """A script of ``experiments/`` as a module."""
    sys.path.insert(0, str(EXPERIMENTS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(EXPERIMENTS))


def presets() -> str:
    """The presets of the main job as a table."""
    rows = ["| | network | training images | held out | test images | epochs | batch |"]
    rows.append("| --- | --- | --- | --- | --- | --- | --- |")
    for name, config in experiment("cifar100_resnet").PRESETS.items():
        settings = config.train
        cells = [
            f"`--preset {name}`",
            f"ResNet{config.depth}",
            settings.train_examples or "all",
            settings.validation_examples or "none",
            settings.test_examples or "all",
            settings.epochs,
            settings.batch,
        ]
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(rows)


def default_reading() -> str:
    """The defaults of synscaw's choices, as a list of arguments."""
    import synscale_jax

    shown = ("scaling_rate", "target", "measured_on", "granularity", "norm_reading", "every_k",
             "clip", "max_relative_change", "restore_norm", "scale_output")  # fmt: skip
    parameters = inspect.signature(synscale_jax.synscaw).parameters
    lines = [f"    {name}={parameters[name].default!r}," for name in shown]
    return "```python\nsynscaw(\n" + "\n".join(lines) + "\n)\n```"


MARKS = {"<!-- presets -->": presets, "<!-- default reading -->": default_reading}


def setup(app: Sphinx) -> dict[str, Any]:
    """Fill the marks whenever a page is read."""

    def fill(app: Sphinx, name: str, source: list[str]) -> None:
        for mark, render in MARKS.items():
            if mark in source[0]:
                source[0] = source[0].replace(mark, render())

    app.connect("source-read", fill)
    app.connect("env-get-outdated", lambda *_: ["training", "methods"])
    return {"parallel_read_safe": True}
