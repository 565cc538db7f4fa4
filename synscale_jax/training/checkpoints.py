"""Checkpoints that survive what a training run meets, on top of orbax."""

from __future__ import annotations

import errno
import logging
import os
import pathlib
import shutil
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

logger = logging.getLogger(__name__)

_ROOM = 2**20  # bytes beside the arrays: metadata, and then some


def _not_from_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in record.pathname


class Restored(NamedTuple):
    """A checkpoint read back."""

    state: Any
    extra: dict[str, Any]


class Checkpointer:
    """Keeps three checkpoints of a run: the latest, the most accurate, the one of least loss.

    A checkpoint is written under a temporary name and renamed. One that cannot be read back (a
    truncated file) is put aside with a warning, for the one before; nothing is deleted for that.

    Args:
      folder: where the checkpoints are, made if need be.
    """

    def __init__(self, folder: pathlib.Path | str) -> None:
        best = [
            policies.BestN(get_metric_fn=measure, n=1, keep_checkpoints_without_metrics=False)
            for measure in (lambda metrics: metrics["accuracy"], lambda metrics: -metrics["loss"])
        ]
        self._folder = pathlib.Path(folder).absolute()
        # A failed save is logged as pages of tracebacks there, and raised here all the same.
        logging.getLogger("absl").addFilter(_not_from_orbax)
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                # max_to_keep with best_fn would delete the newest when it is not among the best.
                preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(1), *best]),
                best_fn=lambda metrics: metrics["accuracy"],  # else old metrics are not read back
                enable_async_checkpointing=True,
                cleanup_tmp_directories=True,  # of processes that were killed while they saved
            ),
        )

    def __enter__(self) -> Checkpointer:
        """Itself, to be closed at the end of the block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Finish writing; a failure of that does not hide what ended the block."""
        try:
            self.close()
        except Exception:
            if kind is None:
                raise

    def save(
        self, step: int, state: Any, extra: dict[str, Any], metrics: dict[str, float] | None
    ) -> None:
        """Write a checkpoint, in the background where orbax can.

        Args:
          step: optimizer steps done.
          state: a tree of arrays.
          extra: what JSON can hold.
          metrics: ``{"accuracy": ..., "loss": ...}``, or None in the middle of an epoch.

        Raises:
          OSError: if the disk has no room for it, or an earlier one could not be written.
        """
        arrays = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        if shutil.disk_usage(self._folder).free < arrays + _ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder))
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state), extra=ocp.args.JsonSave(extra)
        )
        self._manager.save(step, args=args, metrics=metrics, force=True)

    def restore_latest(self, abstract_state: Any) -> Restored | None:
        """The newest checkpoint that can be read, or None if there is none.

        Args:
          abstract_state: the state's shapes, dtypes and shardings.
        """
        steps = self.steps()
        while steps:
            step = steps.pop()
            try:
                return self.restore(step, abstract_state)
            except Exception as error:  # orbax raises whatever the damaged file led to
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                logger.warning(
                    "checkpoint %s of %s cannot be read (%s) and is put aside: going on from %s.",
                    step,
                    self._folder,
                    reason,
                    f"the one before it, {steps[-1]}" if steps else "the beginning",
                )
                self._put_aside(step)
        return None

    def _put_aside(self, step: int) -> None:
        """Move a checkpoint out of orbax's sight, which would take it for the latest."""
        aside = self._folder.with_name(f"{self._folder.name}.damaged")
        aside.mkdir(exist_ok=True)
        number = len(list(aside.iterdir()))
        (self._folder / str(step)).rename(aside / f"{step}-{number}")
        self._manager.reload()

    def restore(self, step: int, abstract_state: Any) -> Restored:
        """One checkpoint by its step."""
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract_state), extra=ocp.args.JsonRestore()
        )
        restored: Any = self._manager.restore(step, args=args)
        # A restored buffer may belong to the reader: training gets copies of its own.
        return Restored(jax.tree.map(lambda leaf: leaf.copy(), restored.state), restored.extra)

    def steps(self) -> list[int]:
        """Steps of the checkpoints that are there."""
        return sorted(self._manager.all_steps())

    def best_step(self) -> int | None:
        """Step of the most accurate checkpoint."""
        return self._manager.best_step()

    def wait(self) -> None:
        """Return when everything is written."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Finish writing and let go of the folder."""
        try:
            self._manager.close()
        finally:
            logging.getLogger("absl").removeFilter(_not_from_orbax)
