"""The folder of a run: one writer, one identity, results that are whole."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
import signal
import time
from collections.abc import Iterator
from typing import Any

from synscale_jax.training.provenance import write_json


class RunError(RuntimeError):
    """A run that cannot start or go on; the message is one sentence with the remedy."""


class Interrupted(SystemExit):
    """Training stopped by a signal after saving; exits with 128 + the signal's number."""


@contextlib.contextmanager
def run_folder(
    folder: pathlib.Path, identity: dict[str, Any], *, restart: bool = False
) -> Iterator[pathlib.Path]:
    """Hold the folder of a run, made or taken up again.

    Args:
      folder: the run's own folder.
      identity: what makes the run: model, method, config, seed, data. Kept in ``config.json``.
      restart: move an earlier run aside, to ``<folder>.old-<time>``, and begin anew.

    Yields:
      The folder, locked until the end of the block (or of the process, however it ends).

    Raises:
      RunError: if another process works there, the folder cannot be written, or it holds a run
        with other settings.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder.parent / f".{folder.name}.lock", "a")  # noqa: SIM115
    except OSError as error:
        raise RunError(
            f"cannot write to {folder} ({error.strerror}): choose another folder with --output."
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunError(
                f"another process is training in {folder}: wait for it, or choose another --output."
            ) from None
        if restart and any(folder.iterdir()):
            folder.rename(f"{folder}.old-{time.strftime('%Y%m%d-%H%M%S')}")
            folder.mkdir()
        _agree(folder / "config.json", identity)
        yield folder


def _agree(path: pathlib.Path, identity: dict[str, Any]) -> None:
    """Write the identity of a new run; refuse to go on with a run of other settings."""
    identity = json.loads(json.dumps(identity))
    if not path.exists():
        write_json(path, identity)
        return
    earlier = json.loads(path.read_text())
    if earlier != identity:
        ours, theirs = _flat(identity), _flat(earlier)
        changed = "; ".join(
            f"{name} was {theirs.get(name)} and is now {ours.get(name)}"
            for name in sorted(ours.keys() | theirs.keys())
            if ours.get(name) != theirs.get(name)
        )
        raise RunError(
            f"{path.parent} holds a run with other settings ({changed}): choose another --output, "
            "or --restart to begin anew and keep the old run aside."
        )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level of dotted names."""
    if not isinstance(value, dict):
        return {prefix: value}
    return {
        name: leaf
        for key, part in value.items()
        for name, leaf in _flat(part, f"{prefix}.{key}" if prefix else key).items()
    }


def write_lines(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    """Write JSON lines, whole or not at all."""
    scratch = path.with_suffix(".partial")
    scratch.write_text("".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))
    os.replace(scratch, path)


class Signals:
    """Notes SIGINT and SIGTERM so that a loop can save first; a second one acts at once."""

    received: int | None = None

    def __enter__(self) -> Signals:
        """Listen, where this is the main thread."""
        self._before = {}
        with contextlib.suppress(ValueError):  # only the main thread may listen
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        """Put the earlier handlers back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: Any) -> None:
        del frame
        self.received = number
        signal.signal(number, self._before[number])
