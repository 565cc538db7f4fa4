"""Where a number comes from: versions, commit, machine; and results written whole or not at all."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def provenance() -> dict[str, Any]:
    """Versions, git commit (``-dirty`` if the code differs), device and processor of this process.

    Examples:
      >>> from synscale_jax.training.provenance import provenance
      >>> sorted(provenance())
      ['command', 'commit', 'cpu', 'device', 'python', 'versions']
    """
    return {
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "commit": _commit(),
        "device": f"{len(jax.devices())} × {jax.devices()[0].device_kind}",
        "cpu": f"{_processor()}, {len(os.sched_getaffinity(0))} cores"
        if hasattr(os, "sched_getaffinity")
        else _processor(),
        "command": _command(sys.argv),
    }


def state_hash(state: Any) -> str:
    """SHA-256 over every array of a state, in hex: equal for runs that are equal to the bit."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(state):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


def model_settings(model: nn.Module) -> dict[str, Any]:
    """Kind and fields of a model, as a run's identity has them; of a module it wraps, within.

    A field that is None is not used and left out. So is an initializer or another function that
    the model's class has as a default: the kind tells it.

    Raises:
      ValueError: if another field cannot be written as JSON, so that runs could be mistaken.

    Examples:
      >>> from flax import linen as nn
      >>> from synscale_jax.models import MLP
      >>> from synscale_jax.training.provenance import model_settings
      >>> model_settings(MLP((32,), 10))["features"]
      (32,)
      >>> model_settings(MLP((32,), 10, kernel_init=nn.initializers.ones))
      Traceback (most recent call last):
      ...
      ValueError: MLP has kernel_init=<function ones at 0x...>, which cannot be written into a run's
      identity: use numbers, names or tuples of them, or a class of your own with that default.
    """
    settings: dict[str, Any] = {"kind": type(model).__name__}
    for field in dataclasses.fields(model):
        value = getattr(model, field.name)
        if field.name in ("name", "parent") or value is None:
            continue
        if field.name in ("dtype", "param_dtype"):
            settings[field.name] = jnp.dtype(value).name
        elif isinstance(value, nn.Module):
            settings[field.name] = model_settings(value)
        elif _writable(value):
            settings[field.name] = tuple(value) if isinstance(value, list) else value
        elif value is not field.default:
            raise ValueError(
                f"{type(model).__name__} has {field.name}={value!r}, which cannot be written into "
                "a run's identity: use numbers, names or tuples of them, or a class of your own "
                "with that default."
            )
    return settings


def _writable(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_writable, value))
    return isinstance(value, str | int | float | bool | None)


def config_hash(identity: Mapping[str, Any]) -> str:
    """SHA-256, in hex, of what runs share that differ in nothing but the seed."""
    parts = {name: identity[name] for name in ("model", "method", "config", "data")}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def write_json(path: pathlib.Path, value: Any) -> None:
    """Write JSON under a temporary name and rename it: a reader sees all of it or nothing."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def write_text(path: pathlib.Path, text: str) -> None:
    """Write a file under a temporary name and rename it: a reader sees all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".partial")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(scratch, 0o644)
        os.replace(scratch, path)
    except BaseException:
        os.unlink(scratch)
        raise


_FOLDERS = ("--output", "--runs")


def _command(argv: list[str]) -> str:
    """What was typed, without folders: where results lie says nothing about them.

    >>> _command(["experiments/table1.py", "--seeds", "0", "1", "--output", "/home/me/runs"])
    'table1.py --seeds 0 1'
    >>> _command(["bioplausible_probes.py", "--runs=elsewhere", "--data", "cifar10"])
    'bioplausible_probes.py --data cifar10'
    """
    words = [pathlib.Path(argv[0]).name]
    skipped = False
    for word in argv[1:]:
        if not skipped and word.partition("=")[0] not in _FOLDERS:
            words.append(word)
        skipped = word in _FOLDERS
    return " ".join(words)


# Tables that earlier runs have drawn again say nothing about the code.
_CHANGES = ("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)results")


def _commit() -> str | None:
    """The commit of the checkout this package runs from, or None outside one."""
    here = pathlib.Path(__file__)
    try:
        # Installed inside somebody else's repository, the package has no commit of its own.
        _git(here.parent, "ls-files", "--error-unmatch", here.name)
        commit = _git(here.parent, "describe", "--always", "--abbrev=12")
        return commit + ("-dirty" if _git(here.parent, *_CHANGES) else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: pathlib.Path, *command: str) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), *command], capture_output=True, text=True, check=True, timeout=5
    ).stdout.strip()


def _processor() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
