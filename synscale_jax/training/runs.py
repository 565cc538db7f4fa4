"""The folder of a run: one writer, one identity, results that are whole."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

from synscale_jax.training.provenance import write_json, write_text

_STARTED = time.time()
_begun: set[pathlib.Path] = set()  # folders of runs that this process began


class RunError(RuntimeError):
    """A run that cannot start or go on; the message is one sentence with the remedy."""


class Busy(RunError):
    """Another process is training this very run."""


class Interrupted(SystemExit):
    """Training stopped by a signal after saving; exits with 128 + the signal's number."""


@contextlib.contextmanager
def run_folder(
    folder: pathlib.Path, identity: dict[str, Any], *, restart: bool = False
) -> Iterator[pathlib.Path]:
    """Hold the folder of a run, made or taken up again; a damaged ``result.json`` is set aside.

    Args:
      folder: the run's own folder.
      identity: what makes the run: model, method, config, seed, data. Kept in ``config.json``.
      restart: move an earlier run aside, to ``<folder>.old-<time>``, and begin anew. A run that
        another process began since this one started is no earlier one: they share the work.

    Yields:
      The folder, locked until the end of the block (or of the process, however it ends).

    Raises:
      Busy: if another process works there.
      RunError: if the folder cannot be written, or it holds a run with other settings.
    """
    with contextlib.ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Beside the folder: a restart moves the folder, and must not move the lock with it.
            lock = held.enter_context(open(folder.parent / f".{folder.name}.lock", "a"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if restart and any(folder.iterdir()) and not _begun_meanwhile(folder):
                folder.rename(_free_name(f"{folder}.old-{time.strftime('%Y%m%d-%H%M%S')}"))
                folder.mkdir()
            for leftover in folder.glob("*.partial"):  # of a process that was killed
                leftover.unlink()
            result = _whole_result(folder / "result.json")
            _agree(folder / "config.json", identity, result)
        except BlockingIOError:
            raise Busy(
                f"another process is training in {folder}: wait for it, or choose another --output."
            ) from None
        except OSError as error:
            raise RunError(
                f"cannot write to {folder} ({error.strerror}): choose another folder with --output."
            ) from None
        yield folder


def _begun_meanwhile(folder: pathlib.Path) -> bool:
    config = folder / "config.json"
    ours = folder.resolve() in _begun
    return not ours and config.exists() and config.stat().st_mtime >= _STARTED


def _free_name(name: str) -> str:
    number, free = 1, name
    while os.path.lexists(free):
        number += 1
        free = f"{name}-{number}"
    return free


def read_result(path: pathlib.Path) -> dict[str, Any] | None:
    """The content of a ``result.json``; None where there is none, or none that is whole."""
    try:
        result = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return result if isinstance(result, dict) else None


def _whole_result(path: pathlib.Path) -> dict[str, Any] | None:
    """The result of a folder that is held; a damaged one is kept under another name."""
    result = read_result(path)
    if result is None and path.exists():
        aside = _free_name(f"{path}.damaged")
        path.rename(aside)
        print(
            f"{path} is damaged and kept as {aside}: the run goes on without it.", file=sys.stderr
        )
    return result


def _agree(path: pathlib.Path, identity: dict[str, Any], result: dict[str, Any] | None) -> None:
    """Write the identity of a new run; refuse to go on with a run of other settings."""
    if not path.exists():
        if result is not None:  # copied without its config.json
            check_result(path.parent, result, identity)
        write_json(path, identity)
        _begun.add(path.parent.resolve())
        return
    try:
        earlier = json.loads(path.read_text())
    except ValueError:
        raise RunError(
            f"{path} is damaged, so that nobody can tell what run this was: choose another "
            "--output, or --restart to begin anew and keep the old run aside."
        ) from None
    _refuse_changes(path.parent, _flat(earlier), _flat(json.loads(json.dumps(identity))))


def check_result(folder: pathlib.Path, result: dict[str, Any], identity: dict[str, Any]) -> None:
    """Refuse a finished run of other settings; settings that an older result lacks are accepted.

    Args:
      folder: of the run.
      result: the content of its ``result.json``.
      identity: what the run should be.

    Raises:
      RunError: in one sentence that names what differs.
    """
    earlier = _flat({part: result[part] for part in identity if part in result})
    ours = _flat(json.loads(json.dumps(identity)))
    shared = {name: value for name, value in ours.items() if name in earlier}
    _refuse_changes(folder, earlier, shared)


def _refuse_changes(folder: pathlib.Path, earlier: dict[str, Any], ours: dict[str, Any]) -> None:
    changed = "; ".join(
        f"{name} was {earlier.get(name)} and is now {ours.get(name)}"
        for name in sorted(ours.keys() | earlier.keys())
        if ours.get(name) != earlier.get(name)
    )
    if changed:
        raise RunError(
            f"{folder} holds a run with other settings ({changed}): choose another --output, or "
            "--restart to begin anew and keep the old run aside."
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


def same_command(restart: bool) -> str:
    """What to give to go on with a run that was stopped, for the message that says so."""
    return "the command without --restart" if restart else "the same command"


def write_lines(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    """Write JSON lines, whole or not at all."""
    write_text(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))


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
        self._let_go()

    def _let_go(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _note(self, number: int, frame: Any) -> None:
        del frame
        self.received = number
        self._let_go()
        # Not print: the main thread may be in the middle of one.
        os.write(2, b"\nstopping: saving first (once more stops at once)\n")
