"""The host's side of training: chunks, epochs, progress, checkpoints, signals."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import pathlib
import sys
import time
from typing import Any

import jax
import numpy as np
import optax
from tqdm import tqdm

from synscale_jax.kernels import convolution_path
from synscale_jax.scaling._layers import leaves_by_path
from synscale_jax.training.checkpoints import Checkpointer
from synscale_jax.training.program import Program, StepMetrics, TrainState
from synscale_jax.training.provenance import provenance, write_json
from synscale_jax.training.runs import Interrupted, RunError, Signals, run_folder, write_lines


class NotFiniteError(RuntimeError):
    """Training diverged; the message names the step and the layer."""


@dataclasses.dataclass
class Progress:
    """What the host knows of a run; with the state, all that a checkpoint holds."""

    epoch_loss: float = 0.0  # sums over the steps of the epoch under way
    epoch_correct: int = 0
    seconds: float = 0.0
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)


def train(
    program: Program,
    seed: int,
    folder: pathlib.Path | str,
    *,
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
      restart: begin anew and keep an earlier run aside.
      show_progress: whether to draw a progress bar on stderr.

    Returns:
      The content of ``result.json``; ``status`` is ``"finished"`` or ``"diverged"``.

    Raises:
      RunError: if the folder cannot be used; see :func:`run_folder`.
      Interrupted: after saving, when a signal asked to stop.
    """
    identity = _identity(program, seed)
    with run_folder(pathlib.Path(folder), identity, restart=restart) as folder, Signals() as signals:
        result_path = folder / "result.json"
        if result_path.exists():
            return _read(result_path)
        run = _Run(program, jax.random.key(seed), folder)
        try:
            run.resume()
            with tqdm(
                total=program.total_steps * program.config.batch,
                initial=int(run.state.step) * program.config.batch,
                unit=" images",
                unit_scale=True,
                desc=f"{program.method.label}, seed {seed}",
                disable=not show_progress,
                file=sys.stderr,
                dynamic_ncols=True,
            ) as bar:
                outcome = run.to_the_end(bar, signals)
            run.checkpointer.wait()
        except OSError as error:
            raise _no_room(folder, error) from error
        except ValueError as error:
            # tensorstore reports a full disk as a ValueError of its own.
            if "No space left" in str(error) or "RESOURCE_EXHAUSTED" in str(error):
                raise _no_room(folder, error) from error
            raise
        finally:
            run.checkpointer.close()
        result = {**identity, **outcome, "convolution": convolution_path(), **provenance()}
        write_json(result_path, result)
        return result


class _Run:
    """One run under way."""

    def __init__(self, program: Program, key: jax.Array, folder: pathlib.Path) -> None:
        self.program, self.key, self.folder = program, key, folder
        self.checkpointer = Checkpointer(folder / "checkpoints")
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

    def to_the_end(self, bar: tqdm, signals: Signals) -> dict[str, Any]:
        """Train until the last step, divergence or a signal."""
        per_epoch, total = self.program.steps_per_epoch, self.program.total_steps
        step = int(self.state.step)
        try:
            while step < total:
                done = step % per_epoch
                steps = min(self.program.config.chunk_steps, per_epoch - done)
                self._chunk(steps)
                step += steps
                self._tell(bar, steps, done + steps)
                if step % per_epoch == 0:
                    self._end_epoch(step)
                if signals.received is not None and step < total:
                    self._stop(step, signals.received)
        except NotFiniteError as error:
            bar.write(str(error), file=sys.stderr)
            return self._outcome("diverged", message=str(error))
        return self._outcome("finished")

    def _chunk(self, steps: int) -> None:
        start = time.perf_counter()
        before = self.state
        self.state, metrics = self.program.chunk(before, self.key, steps)
        metrics = StepMetrics(np.asarray(metrics.loss)[:steps], np.asarray(metrics.correct)[:steps])
        self.progress.seconds += time.perf_counter() - start
        if not np.isfinite(metrics.loss).all():
            bad = int(np.argmin(np.isfinite(metrics.loss)))
            raise NotFiniteError(self._diagnosis(before, bad))
        self.progress.epoch_loss += float(metrics.loss.sum(dtype=np.float64))
        self.progress.epoch_correct += int(metrics.correct.sum())

    def _diagnosis(self, before: TrainState, steps: int) -> str:
        """Run the chunk again up to the bad step and say where the first bad number is."""
        state, _ = self.program.chunk(before, self.key, steps)
        where = _first_bad_layer(self.program, state) or "no layer's weights: the loss itself"
        activity = leaves_by_path(self.program.activity(state, self.key))
        if where.startswith("no layer"):
            for layer in self.program.layers:
                if not np.isfinite(np.asarray(activity[layer.path])).all():
                    where = f"the activity of layer {layer.name!r}"
                    break
        step = int(state.step)
        epoch = step // self.program.steps_per_epoch + 1
        return (
            f"{self.program.method.label} diverged: the loss of step {step + 1} (epoch {epoch}) is "
            f"not finite, and the first bad numbers are in {where}."
        )

    def _end_epoch(self, step: int) -> None:
        """Evaluate, note the epoch and save."""
        program, progress = self.program, self.progress
        start = time.perf_counter()
        test = program.evaluate(self.state, program.splits.test)
        chosen_by = test
        row: dict[str, Any] = {
            "epoch": step // program.steps_per_epoch,
            "step": step,
            "train_loss": progress.epoch_loss / program.steps_per_epoch,
            "train_accuracy": progress.epoch_correct
            / (program.steps_per_epoch * program.config.batch),
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
            row["mean_gap"] = {name: float(gap) for name, gap in gaps.items()}
        if not np.isfinite([test.loss, chosen_by.loss]).all():
            where = _first_bad_layer(program, self.state) or "the evaluation's loss"
            raise NotFiniteError(
                f"{program.method.label} diverged: after step {step} (epoch {row['epoch']}) the "
                f"first bad numbers are in {where}."
            )
        progress.seconds += time.perf_counter() - start
        row["seconds"] = round(progress.seconds, 3)
        progress.history.append(row)
        progress.epoch_loss, progress.epoch_correct = 0.0, 0
        write_lines(self.folder / "metrics.jsonl", progress.history)
        self._save(step, {"accuracy": chosen_by.accuracy, "loss": chosen_by.loss})

    def _save(self, step: int, metrics: dict[str, float] | None) -> None:
        self.checkpointer.save(step, self.state, dataclasses.asdict(self.progress), metrics)

    def _stop(self, step: int, signal_number: int) -> None:
        if step % self.program.steps_per_epoch:
            self._save(step, None)
        self.checkpointer.wait()
        print(
            f"\nsaved at step {step} of {self.program.total_steps} in {self.folder}; "
            "the same command goes on from there.",
            file=sys.stderr,
        )
        raise Interrupted(128 + signal_number)

    def _tell(self, bar: tqdm, steps: int, done: int) -> None:
        bar.set_postfix(
            epoch=f"{len(self.progress.history) + 1}/{self.program.config.epochs}",
            loss=f"{self.progress.epoch_loss / done:.4f}",
            accuracy=f"{self.progress.epoch_correct / (done * self.program.config.batch):.4f}",
            refresh=False,
        )
        bar.update(steps * self.program.config.batch)

    def _outcome(self, status: str, message: str | None = None) -> dict[str, Any]:
        """The run's part of ``result.json``."""
        history = self.progress.history
        outcome: dict[str, Any] = {
            "status": status,
            "message": message,
            "steps_run": int(self.state.step),
            "steps_planned": self.program.total_steps,
            "wall_seconds": round(self.progress.seconds, 1),
        }
        if history:
            split = "test" if self.program.splits.validation is None else "validation"
            accuracy = max(history, key=lambda row: row[f"{split}_accuracy"])
            loss = min(history, key=lambda row: row[f"{split}_loss"])
            outcome["final"] = history[-1]
            outcome[f"best_on_{split}"] = {"accuracy": accuracy, "loss": loss}
        if status == "finished":
            correct = self.program.evaluate(self.state, self.program.splits.test).correct
            outcome["test_correct"] = base64.b64encode(np.packbits(correct)).decode()
            outcome["state_hash"] = state_hash(self.state)
        return {**outcome, "history": history}


def state_hash(state: TrainState) -> str:
    """SHA-256 over every array of a state, in hex: equal for runs that are equal to the bit."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(state):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


def _first_bad_layer(program: Program, state: TrainState) -> str | None:
    leaves = leaves_by_path(state.params)
    for layer in program.layers:
        for path, leaf in leaves.items():
            if path[: len(layer.path)] == layer.path and not np.isfinite(np.asarray(leaf)).all():
                return f"the weights of layer {layer.name!r}"
    return None


def _identity(program: Program, seed: int) -> dict[str, Any]:
    """What makes a run this run and no other."""
    model = program.model
    settings = {
        field.name: getattr(model, field.name)
        for field in dataclasses.fields(model)
        if isinstance(getattr(model, field.name), str | int | float | bool | tuple | list)
        and field.name not in ("name", "parent")
    }
    return {
        "model": {"kind": type(model).__name__, **settings},
        "method": {"name": program.method.name, **program.method.settings},
        "config": dataclasses.asdict(program.config),
        "seed": seed,
        "data": {"name": program.data_name, "hash": program.data_hash},
    }


def _read(path: pathlib.Path) -> dict[str, Any]:
    import json

    return json.loads(path.read_text())


def _no_room(folder: pathlib.Path, error: Exception) -> RunError:
    reason = str(error).splitlines()[0]
    return RunError(
        f"cannot write to {folder} ({reason}): make room and give the same command again, it goes "
        "on from the last whole checkpoint."
    )
