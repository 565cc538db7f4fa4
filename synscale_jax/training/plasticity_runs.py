"""The host's side of :mod:`synscale_jax.training.plasticity`: runs in folders, resumed exactly."""

from __future__ import annotations

import base64
import io
import json
import os
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from synscale_jax.training.plasticity import LearnerProgram, LearnerState
from synscale_jax.training.provenance import provenance, write_json
from synscale_jax.training.runs import Busy, Interrupted, RunError, Signals, run_folder

SAVE_EVERY = 60.0  # seconds between two saves of a state


def train_learner(
    program: Callable[[], LearnerProgram],
    settings: Mapping[str, Any],
    seed: int,
    folder: pathlib.Path,
    *,
    restart: bool = False,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train one seed in a folder, or take up what was begun there.

    The folder gets ``config.json``, ``params.npz`` with the trained parameters and, at the end,
    ``result.json``; ``state.npz`` while it is under way. A finished run is not run again. Resuming
    is exact to the bit on the same versions.

    Args:
      program: makes what is trained; not called where nothing is to be done.
      settings: what makes the run this run beside the seed: model, method, config, data.
      seed: of initial weights, order of examples and dropout.
      folder: the run's own folder.
      restart: begin anew and keep an earlier run aside.
      say: takes a line of progress an evaluation.

    Returns:
      The content of ``result.json``; ``status`` is ``"finished"`` or ``"diverged"``.

    Raises:
      Busy: if another process is training it.
      RunError: if the folder cannot be used.
      Interrupted: after a signal, the state saved.
    """
    identity = {**settings, "seed": seed}
    with run_folder(folder, identity, restart=restart) as folder, Signals() as signals:
        path = folder / "result.json"
        if path.exists():
            return json.loads(path.read_text())
        origin, made = provenance(), program()
        state, outcome = _train(made, seed, folder, signals, say)
        arrays = flatten_dict({"params": state.params, **state.fixed}, sep="/")
        save_arrays(folder / "params.npz", jax.device_get(arrays))
        write_json(path, {**identity, **outcome, **origin})
        (folder / "state.npz").unlink(missing_ok=True)
        if signals.received is not None:
            raise Interrupted(128 + signals.received)
        return json.loads(path.read_text())


def _train(
    program: LearnerProgram, seed: int, folder: pathlib.Path, signals: Signals, say: Any
) -> tuple[LearnerState, dict[str, Any]]:
    key = jax.random.key(seed)
    state, history, seconds = _resumed(program, key, folder / "state.npz")
    saved, status, learner = time.perf_counter(), "finished", program.learner
    for mark in program.boundaries():
        steps = mark - int(state.step)
        if steps <= 0:
            continue
        begin = time.perf_counter()
        state, metrics = jax.block_until_ready(program.chunk(state, key, steps))
        trained = time.perf_counter() - begin
        loss, correct = program.evaluate(state.params, state.fixed)
        seconds += trained
        row = {
            "step": mark,
            "epoch": mark / program.steps_per_epoch,
            "train_loss": _number(metrics.loss),
            "train_accuracy": int(metrics.correct) / (steps * learner.config.batch),
            "test_loss": _number(loss),
            "test_accuracy": float(correct.mean()),
            "train_seconds": round(trained, 4),
        }
        if angles := program.angles(state.params, state.fixed):
            row["angles"] = {name: _number(angle) for name, angle in angles.items()}
        history.append(row)
        say(f"{folder.parent.name}/{folder.name}: epoch {row['epoch']:.2f}, test "
            f"{row['test_accuracy']:.2%}, {seconds:.0f} s")  # fmt: skip
        if not bool(metrics.finite):
            status = "diverged"
            break
        due = time.perf_counter() - saved > SAVE_EVERY
        if mark < program.total_steps and (due or signals.received is not None):
            _save(folder / "state.npz", state, history, seconds)
            saved = time.perf_counter()
        if signals.received is not None and mark < program.total_steps:
            raise Interrupted(128 + signals.received)
    correct = program.evaluate(state.params, state.fixed)[1]
    return state, {
        "status": status,
        "steps_run": int(state.step),
        "steps_planned": program.total_steps,
        "train_seconds": round(seconds, 2),
        "seconds_per_epoch": round(seconds * program.steps_per_epoch / int(state.step), 4),
        "final": history[-1],
        "best": max(history, key=lambda row: row["test_accuracy"]),
        "test_correct": base64.b64encode(np.packbits(correct).tobytes()).decode(),
        "history": history,
    }


def _number(value: Any) -> float | None:
    """As JSON has it, which has no number for nan."""
    return float(value) if np.isfinite(value) else None


def _save(path: pathlib.Path, state: LearnerState, history: list, seconds: float) -> None:
    leaves = {f"leaf{i}": leaf for i, leaf in enumerate(jax.device_get(jax.tree.leaves(state)))}
    save_arrays(path, {**leaves, "history": json.dumps(history), "seconds": seconds})


def _resumed(
    program: LearnerProgram, key: jax.Array, path: pathlib.Path
) -> tuple[LearnerState, list[dict[str, Any]], float]:
    state = program.init(key)
    if not path.exists():
        return state, [], 0.0
    arrays = load_arrays(path)
    leaves = [jax.numpy.asarray(arrays[f"leaf{i}"]) for i in range(len(jax.tree.leaves(state)))]
    state = jax.tree.unflatten(jax.tree.structure(state), leaves)
    return state, json.loads(str(arrays["history"])), float(arrays["seconds"])


def save_arrays(path: pathlib.Path, arrays: Mapping[str, Any]) -> None:
    """Write an npz file under a temporary name and rename it: whole or not at all."""
    buffer = io.BytesIO()
    held: dict[str, Any] = {name: np.asarray(value) for name, value in arrays.items()}
    np.savez(buffer, **held)
    scratch = path.with_suffix(".npz.partial")
    scratch.write_bytes(buffer.getvalue())
    os.replace(scratch, path)


def load_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Read what :func:`save_arrays` wrote.

    Raises:
      RunError: if the file is damaged or not there.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except Exception as error:  # numpy raises whatever the damaged file led to
        raise RunError(
            f"{path} cannot be read ({str(error).splitlines()[0]}): delete its folder and give the "
            "command again."
        ) from None


def load_variables(folder: pathlib.Path) -> dict[str, Any]:
    """The trained variables of a finished run, as nested dicts."""
    return unflatten_dict(load_arrays(folder / "params.npz"), sep="/")


class NotYet(Exception):
    """What a job needs, named in the message, is still being made by another process."""


def share_jobs(
    jobs: Sequence[Callable[[], Any]],
    *,
    pause: float = 5.0,
    say: Callable[[str], None] = print,
) -> int:
    """Do what is not done, leave what another process does, wait for what a job needs.

    While a job has to wait, those that another process does are tried again as well: that process
    may end without having done them.

    Args:
      jobs: each raises :class:`NotYet` while what it needs is not there, and
        :class:`~synscale_jax.training.runs.Busy` where another process does it.
      pause: seconds before jobs are tried again that had to wait.
      say: takes a line when there is nothing to do but wait.

    Returns:
      How many jobs other processes are doing.
    """
    left, told = list(jobs), None
    while True:
        todo, left, busy, missing = left, [], 0, set()
        for job in todo:
            try:
                job()
            except NotYet as need:
                missing.add(str(need))
                left.append(job)
            except Busy:
                busy += 1
                left.append(job)
        if not missing:
            return busy
        if len(left) == len(todo):
            if missing != told:
                say(f"waiting for another process to finish {', '.join(sorted(missing))}")
            told = missing
            time.sleep(pause)
