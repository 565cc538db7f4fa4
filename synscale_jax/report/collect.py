"""Result JSONs of many runs, read back and checked before anything is drawn from them."""

from __future__ import annotations

import base64
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Results = dict[str, dict[str, list[dict[str, Any]]]]
"""Cell -> method -> result JSONs, one a seed, in the order of the seeds."""

_AGAIN = "move its folder away and give the run's command again"
_Column = Mapping[str, Sequence[Mapping[str, Any]]]
_NEEDED = ("status", "seed", "model", "method", "config", "data", "steps_run", "steps_planned")


class ResultError(ValueError):
    """Results that no table may be drawn from; the message is one sentence with the remedy."""


class Result(dict[str, Any]):
    """A result JSON that names its file where a table asks for what it lacks."""

    def __init__(self, content: Mapping[str, Any], path: pathlib.Path) -> None:
        super().__init__(content)
        self.path = path

    def __missing__(self, key: str) -> Any:
        raise _lacks(self.path, key)


def _lacks(path: pathlib.Path, key: str) -> ResultError:
    return ResultError(
        f"{path} has no {key!r}, so another version of synscale_jax wrote it: {_AGAIN}."
    )


def collect(folder: pathlib.Path, cells: Sequence[str], methods: Sequence[str]) -> Results:
    """Read the results of ``<folder>/<cell>/<method>/seed<k>/result.json``.

    Runs that are missing, or under way, are left out. A file that is no JSON is left out, too, and
    named on stderr. Within a cell all runs share data and training settings, and within a method
    the method's own: a table never mixes protocols.

    Args:
      folder: where the runs are.
      cells: names of cells.
      methods: names of methods.

    Returns:
      The results; cells and methods without any are there, empty.

    Raises:
      ResultError: if a result was written by another version of the library, is not where it
        belongs, did not run to its end, is there twice, or differs from its neighbours in more
        than the seed; and later, by name, where a table asks a result for what it lacks.
    """
    results: Results = {}
    for cell in cells:
        results[cell] = {
            method: list(filter(None, map(_read, _paths(folder / cell / method))))
            for method in methods
        }
        _check_settings(folder / cell, results[cell])
        _check_copies(folder / cell, results[cell])
    return results


def _paths(folder: pathlib.Path) -> list[pathlib.Path]:
    seeds = {
        path: path.parent.name.removeprefix("seed") for path in folder.glob("seed*/result.json")
    }
    return sorted(
        (path for path in seeds if seeds[path].isdigit()), key=lambda path: int(seeds[path])
    )


def _read(path: pathlib.Path) -> dict[str, Any] | None:
    try:
        result = json.loads(path.read_text())
        if not isinstance(result, dict):
            raise ValueError
    except ValueError:
        print(f"{path} is no JSON and left out: {_AGAIN}.", file=sys.stderr)
        return None
    if missing := [name for name in _NEEDED if name not in result]:
        raise _lacks(path, missing[0])
    place = (path.parent.parent.name, path.parent.name)
    if place != (result["method"]["name"], f"seed{result['seed']}"):
        raise ResultError(
            f"{path} holds {result['method']['name']}, seed {result['seed']}, which is not what "
            "its folder says: move it where it belongs."
        )
    if result["status"] == "finished" and result["steps_run"] != result["steps_planned"]:
        raise ResultError(
            f"{path} says finished after {result['steps_run']} of {result['steps_planned']} steps: "
            f"{_AGAIN}."
        )
    return Result(result, path)


def _check_settings(
    folder: pathlib.Path, column: Mapping[str, Sequence[Mapping[str, Any]]]
) -> None:
    """Refuse a cell whose runs differ in more than method and seed."""
    everything = [run for runs in column.values() for run in runs]
    for name in ("config", "data", "measures"):
        _check_equal(folder, everything, name)
    for runs in column.values():
        for name in ("method", "model"):
            _check_equal(folder, runs, name)


def _check_equal(folder: pathlib.Path, runs: Sequence[Mapping[str, Any]], part: str) -> None:
    for run in runs[1:]:
        first, other = runs[0].get(part, {}), run.get(part, {})
        if first == other:
            continue
        name = next(key for key in {**first, **other} if first.get(key) != other.get(key))
        raise ResultError(
            f"runs below {folder} differ in {part}.{name} ({first.get(name)} in "
            f"{_name(runs[0])}, {other.get(name)} in {_name(run)}): a table does not mix "
            "protocols, keep each in a folder of its own."
        )


def _name(run: Mapping[str, Any]) -> str:
    return f"{run['method']['name']}, seed {run['seed']}"


def _check_copies(folder: pathlib.Path, column: _Column) -> None:
    """Refuse one run under two seeds, which would count twice.

    Two methods may agree: at a strength of 0 they are the baseline.
    """
    seen: dict[tuple[str, str], Mapping[str, Any]] = {}
    for run in (run for runs in column.values() for run in runs):
        if "state_hash" in run:
            same, what = run["state_hash"], "ended in the same weights"
        elif "folds" in run and run["status"] == "finished":
            # Older results of table V kept no hash.
            same = json.dumps([run["folds"], run.get("history")])
            what = "have the same figures in every fold and epoch"
        else:
            continue
        twin = seen.setdefault((run["method"]["name"], same), run)
        if twin is not run:
            raise ResultError(
                f"{_name(twin)} and {_name(run)} below {folder} {what}, so one is a copy of the "
                "other: remove it."
            )


def finished(runs: Sequence[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Seed -> result of the runs that neither diverged nor stopped."""
    return {run["seed"]: run for run in runs if run["status"] == "finished"}


def correctness(run: Mapping[str, Any], images: int) -> np.ndarray:
    """Which test images the final weights classify correctly.

    Args:
      run: a finished run's result JSON.
      images: how many test images there are.

    Returns:
      shape=(images,), bool, in the data set's canonical order.

    Raises:
      ResultError: if the run kept answers to another number of images.
    """
    packed = np.frombuffer(base64.b64decode(run["test_correct"]), np.uint8)
    if len(packed) != -(-images // 8):
        raise ResultError(
            f"{_name(run)} kept answers to about {8 * len(packed)} test images, not to {images}: "
            f"{_AGAIN}."
        )
    return np.unpackbits(packed, count=images).astype(bool)
