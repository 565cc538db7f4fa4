"""The host's side of training: chunks, epochs, progress, checkpoints, signals."""

from __future__ import annotations

import base64
import dataclasses
import errno
import json
import pathlib
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from synscale_jax.kernels import convolution_path
from synscale_jax.scaling._layers import leaves_by_path
from synscale_jax.training.checkpoints import Checkpointer
from synscale_jax.training.devices import replicated
from synscale_jax.training.program import BaseProgram, TrainState
from synscale_jax.training.provenance import (
    config_hash,
    model_settings,
    provenance,
    state_hash,
    write_json,
)
from synscale_jax.training.runs import (
    Interrupted,
    RunError,
    Signals,
    run_folder,
    same_command,
    write_lines,
)

FIRST_STEPS = 50  # whose losses a result keeps, so that a rerun can be compared


class NotFiniteError(RuntimeError):
    """Training diverged; the message names the step and the layer."""


@dataclasses.dataclass(frozen=True)
class Measures:
    """What else is measured, and kept in the result.

    Attributes:
      each_epoch: program and state after an epoch -> what is added to the epoch's line.
      at_end: program, the state before the first step and the last one -> ``result["measured"]``.
      settings: of both, in JSON's types; a run with others is another run.
    """

    each_epoch: Callable[[Any, TrainState], Mapping[str, Any]] | None = None
    at_end: Callable[[Any, TrainState, TrainState], Mapping[str, Any]] | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


NOTHING_ELSE = Measures()


@dataclasses.dataclass
class Progress:
    """What the host knows of a run; with the state, all that a checkpoint holds."""

    epoch_loss: float = 0.0  # sums over the steps of the epoch under way
    epoch_entropy: float = 0.0
    epoch_correct: int = 0
    seconds: float = 0.0
    first_losses: list[float] = dataclasses.field(default_factory=list)  # to check a rerun by
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)


def train(
    program: BaseProgram,
    seed: int,
    folder: pathlib.Path | str,
    *,
    measures: Measures = NOTHING_ELSE,
    restart: bool = False,
    show_progress: bool = True,
) -> dict[str, Any]:
    """Train one seed of a program in a folder, or take up what was begun there.

    The folder gets ``config.json``, ``metrics.jsonl`` (one line an epoch), ``checkpoints/`` and, at
    the end, ``result.json``. A run that is finished is not run again. Resuming is exact to the bit
    on the same versions and number of devices. Ctrl-C and SIGTERM save and raise
    :class:`Interrupted`.

    Args:
      program: what is trained.
      seed: of initial weights, order of examples and whatever else is random.
      folder: the run's own folder.
      measures: what else is to be kept.
      restart: begin anew and keep an earlier run aside.
      show_progress: whether to draw a progress bar on stderr.

    Returns:
      The content of ``result.json``; ``status`` is ``"finished"`` or ``"diverged"``.

    Raises:
      RunError: if the folder cannot be used, see :func:`run_folder`, or the disk is full.
      ValueError: if a field of the model cannot be told in words, so that runs could be mistaken.
      Busy: if another process is training it.
      Interrupted: after saving, when a signal asked to stop.
    """
    identity, again = _identity(program, seed, measures), same_command(restart)
    with (
        run_folder(pathlib.Path(folder), identity, restart=restart) as folder,
        Signals() as signals,
    ):
        result_path = folder / "result.json"
        if result_path.exists():
            return _read(result_path)
        try:
            origin = provenance()  # before training: the checkout may move on meanwhile
            outcome = _train(program, seed, folder, measures, show_progress, signals, again)
            outcome["config_hash"] = config_hash(identity)
            result = {**identity, **outcome, "convolution": convolution_path(), **origin}
            write_json(result_path, result)
        except Exception as error:
            if _is_about_writing(error):
                raise _cannot_write(folder, error, again) from error
            raise
        if signals.received is not None:
            print(f"\nfinished {folder}; {again} goes on from there.", file=sys.stderr)
            raise Interrupted(128 + signals.received)
        return _read(result_path)


def _train(
    program: BaseProgram,
    seed: int,
    folder: pathlib.Path,
    measures: Measures,
    show_progress: bool,
    signals: Signals,
    again: str,
) -> dict[str, Any]:
    """The run itself; returns when its last checkpoint is written."""
    key = jax.device_put(jax.random.key(seed), replicated(program.mesh))
    with Checkpointer(folder / "checkpoints") as checkpointer:
        run = _Run(program, key, folder, checkpointer, measures)
        run.resume()
        with tqdm(
            total=program.total_steps * program.config.batch,
            initial=int(run.state.step) * program.config.batch,
            unit=" examples",
            unit_scale=True,
            desc=f"{program.method.label} on {program.data_name}, seed {seed}",
            disable=not show_progress,
            file=sys.stderr,
            dynamic_ncols=True,
            mininterval=0.1 if sys.stderr.isatty() else 30,  # spares log files
        ) as bar:
            outcome = run.to_the_end(bar, signals, again)
        checkpointer.wait()
    return outcome


class _Run:
    """One run under way."""

    def __init__(
        self,
        program: BaseProgram,
        key: jax.Array,
        folder: pathlib.Path,
        checkpointer: Checkpointer,
        measures: Measures,
    ) -> None:
        self.program, self.key, self.folder = program, key, folder
        self.checkpointer, self.measures = checkpointer, measures
        self.progress = Progress()
        self.state: TrainState

    def resume(self) -> None:
        """Take up the newest readable checkpoint, or start."""
        restored = self.checkpointer.restore_latest(self.program.abstract_state())
        if restored is None:
            self.state = self.program.init(self.key)
            return
        self.state = restored.state
        self.progress = Progress(**restored.extra)
        write_lines(self.folder / "metrics.jsonl", self.progress.history)

    def to_the_end(self, bar: tqdm, signals: Signals, again: str) -> dict[str, Any]:
        """Train until the last step, divergence or a signal."""
        per_epoch, total = self.program.steps_per_epoch, self.program.total_steps
        step = int(self.state.step)
        try:
            while step < total:
                done = step % per_epoch
                steps = min(self.program.config.chunk_steps, per_epoch - done)
                self._chunk(step, steps)
                step += steps
                self._tell(bar, steps, done + steps)
                if step % per_epoch == 0:
                    self._end_epoch(step)
                if signals.received is not None and step < total:
                    self._stop(step, signals.received, again)
        except NotFiniteError as error:
            bar.write(str(error), file=sys.stderr)
            return self._outcome("diverged", message=str(error))
        return self._outcome("finished")

    def _chunk(self, step: int, steps: int) -> None:
        start = time.perf_counter()
        before = self.state
        self.state, metrics = self.program.chunk(before, self.key, steps)
        pending: Any = metrics.finite
        while not pending.is_ready():
            time.sleep(0.002)  # Python answers signals here, and not while it waits for XLA
        metrics = jax.device_get(metrics)
        self.progress.seconds += time.perf_counter() - start
        if not (metrics.finite and np.isfinite(metrics.loss[:steps]).all()):
            raise NotFiniteError(self._diagnosis(before, metrics.loss[:steps]))
        if step < FIRST_STEPS:
            self.progress.first_losses += metrics.loss[: min(steps, FIRST_STEPS - step)].tolist()
        self.progress.epoch_loss += float(metrics.loss[:steps].sum(dtype=np.float64))
        self.progress.epoch_entropy += float(metrics.entropy[:steps].sum(dtype=np.float64))
        self.progress.epoch_correct += int(metrics.correct[:steps].sum())

    def _diagnosis(self, before: TrainState, losses: np.ndarray) -> str:
        """Run parts of the chunk again to find the step and the layer where it went wrong."""

        def after(steps: int) -> tuple[TrainState, bool]:
            state, metrics = self.program.chunk(before, self.key, steps)
            return state, bool(metrics.finite)

        finite = np.isfinite(losses)
        good, bad = 0, len(losses) if finite.all() else int(np.argmin(finite))
        self.state, sound = after(bad)
        while not sound and good < bad:  # weights that are not finite stay so
            middle = (good + bad) // 2
            if after(middle)[1]:
                good = middle + 1
            else:
                bad = middle
        if not sound:
            self.state, _ = after(bad)
        step, per_epoch = int(self.state.step), self.program.steps_per_epoch
        if not sound:
            return (
                f"{self.program.method.label} diverged: step {step} (epoch "
                f"{(step - 1) // per_epoch + 1}) left numbers that are not finite in "
                f"{_first_bad(self.program, self.state)}."
            )
        return (
            f"{self.program.method.label} diverged: the loss of step {step + 1} (epoch "
            f"{step // per_epoch + 1}) is not finite though all weights are; the first bad numbers "
            f"are in {self._first_bad_activity() or 'the loss itself'}."
        )

    def _first_bad_activity(self) -> str | None:
        activity = leaves_by_path(self.program.activity(self.state, self.key))
        for layer in self.program.layers:
            if not np.isfinite(np.asarray(activity[layer.path])).all():
                return f"the activity of layer {layer.name!r}"
        return None

    def _end_epoch(self, step: int) -> None:
        """Evaluate, note the epoch and save."""
        program, progress = self.program, self.progress
        start = time.perf_counter()
        test = program.evaluate(self.state, program.splits.test)
        chosen_by = test
        steps = program.steps_per_epoch
        row: dict[str, Any] = {
            "epoch": step // steps,
            "step": step,
            "train_loss": progress.epoch_entropy / steps,
            "train_objective": progress.epoch_loss / steps,
            "train_accuracy": progress.epoch_correct / (steps * program.config.batch),
        }
        if program.splits.validation is not None:
            chosen_by = program.evaluate(self.state, program.splits.validation)
            row |= {
                "validation_loss": chosen_by.loss,
                "validation_accuracy": chosen_by.accuracy,
            }
        row |= {"test_loss": test.loss, "test_accuracy": test.accuracy}
        gaps = optax.tree.get(self.state.opt_state, "mean_gap", None)
        if gaps is not None:
            # None for what JSON has no number for.
            row["mean_gap"] = {
                name: float(gap) if np.isfinite(gap) else None for name, gap in gaps.items()
            }
        if not np.isfinite([test.loss, chosen_by.loss]).all():
            raise NotFiniteError(
                f"{program.method.label} diverged: after step {step} (epoch {row['epoch']}) the "
                "loss of the evaluation is not finite; the first bad numbers are in "
                f"{_first_bad(program, self.state)}."
            )
        if self.measures.each_epoch is not None:
            row |= self.measures.each_epoch(program, self.state)
        progress.seconds += time.perf_counter() - start
        row["seconds"] = round(progress.seconds, 3)
        progress.history.append(row)
        progress.epoch_loss, progress.epoch_entropy, progress.epoch_correct = 0.0, 0.0, 0
        write_lines(self.folder / "metrics.jsonl", progress.history)
        self._save(step, {"accuracy": chosen_by.accuracy, "loss": chosen_by.loss})

    def _save(self, step: int, metrics: dict[str, float] | None) -> None:
        self.checkpointer.save(step, self.state, dataclasses.asdict(self.progress), metrics)

    def _stop(self, step: int, signal_number: int, again: str) -> None:
        if step % self.program.steps_per_epoch:
            self._save(step, None)
        self.checkpointer.wait()
        print(
            f"\nsaved at step {step} of {self.program.total_steps} in {self.folder}; "
            f"{again} goes on from there.",
            file=sys.stderr,
        )
        raise Interrupted(128 + signal_number)

    def _tell(self, bar: tqdm, steps: int, done: int) -> None:
        """Show the epoch so far: the loss that is minimised, and answers to training examples."""
        history, config = self.progress.history, self.program.config
        shown = {
            "epoch": f"{len(history) + 1}/{config.epochs}",
            "loss": f"{self.progress.epoch_loss / done:.4f}",
            "accuracy": f"{100 * self.progress.epoch_correct / (done * config.batch):.1f}%",
        }
        if history:
            shown["test"] = f"{100 * history[-1]['test_accuracy']:.1f}%"
        bar.set_postfix(shown, refresh=False)
        bar.update(steps * config.batch)

    def _outcome(self, status: str, message: str | None = None) -> dict[str, Any]:
        """The run's part of ``result.json``."""
        history = self.progress.history
        outcome: dict[str, Any] = {
            "status": status,
            "message": message,
            "steps_run": int(self.state.step),
            "steps_planned": self.program.total_steps,
            "wall_seconds": round(self.progress.seconds, 1),
            "first_losses": self.progress.first_losses,
        }
        if history:
            split = "test" if self.program.splits.validation is None else "validation"
            accuracy = max(history, key=lambda row: row[f"{split}_accuracy"])
            loss = min(history, key=lambda row: row[f"{split}_loss"])
            outcome["final"] = history[-1]
            outcome[f"best_on_{split}"] = {"accuracy": accuracy, "loss": loss}
        if status == "finished":
            correct = self.program.evaluate(self.state, self.program.splits.test).correct
            outcome["test_correct"] = base64.b64encode(np.packbits(correct).tobytes()).decode()
            outcome["state_hash"] = state_hash(self.state)
            if self.measures.at_end is not None:
                first = self.program.init(self.key)
                outcome["measured"] = self.measures.at_end(self.program, first, self.state)
        return {**outcome, "history": history}


def _first_bad(program: BaseProgram, state: TrainState) -> str:
    """Where the first numbers that are not finite are, layers in the order they are called."""
    finite = {
        path: bool(jnp.isfinite(leaf).all()) for path, leaf in leaves_by_path(state.params).items()
    }
    for layer in program.layers:
        if not all(good for path, good in finite.items() if path[: len(layer.path)] == layer.path):
            return f"the weights of layer {layer.name!r}"
    for path, good in finite.items():
        if not good:
            return f"the parameter {'/'.join(path)!r}"
    for path, leaf in leaves_by_path(state.batch_stats).items():
        if not jnp.isfinite(leaf).all():
            return f"the running statistics {'/'.join(path)!r}"
    return "the loss itself"


def _identity(program: BaseProgram, seed: int, measures: Measures = NOTHING_ELSE) -> dict[str, Any]:
    """What makes a run this run and no other."""
    measured = {"measures": dict(measures.settings)} if measures.settings else {}
    return {
        **measured,
        "model": model_settings(program.model),
        "method": {"name": program.method.name, **program.method.settings},
        "config": dataclasses.asdict(program.config),
        "seed": seed,
        "data": {"name": program.data_name, "hash": program.data_hash},
    }


def _read(path: pathlib.Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def _is_about_writing(error: Exception) -> bool:
    # tensorstore reports a full disk as a ValueError of its own.
    signs = ("No space left", "Disk quota exceeded", "RESOURCE_EXHAUSTED: Failed to write")
    return isinstance(error, OSError) or any(sign in str(error) for sign in signs)


def _cannot_write(folder: pathlib.Path, error: Exception, again: str) -> RunError:
    reason, remedy = str(error).splitlines()[0], "mend that"
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space" in str(error):
        reason, remedy = "the disk is full", "make room"
    return RunError(
        f"cannot write to {folder} ({reason}): {remedy} and give {again} again, it goes on from "
        "the last whole checkpoint."
    )
