"""Many runs, shared by as many processes as are started."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from synscale_jax.training.loop import NOTHING_ELSE, Measures, train
from synscale_jax.training.program import Program
from synscale_jax.training.runs import Busy


class Job(NamedTuple):
    """One run: a program by name, a seed, and the folder of the result."""

    program: str
    seed: int
    folder: pathlib.Path


def run_jobs(
    jobs: Sequence[Job],
    programs: Mapping[str, Callable[[], Program]],
    *,
    measures: Measures = NOTHING_ELSE,
    restart: bool = False,
) -> list[Job]:
    """Do what is not done, and leave alone what another process is doing.

    Finished runs are not run again and interrupted ones go on, so that the same command can be
    given again, or in several processes at once. A program (compiled code, data on the device) is
    kept as long as jobs of it follow.

    Args:
      jobs: the runs, in their order.
      programs: name -> what makes it.
      measures: what else is kept of each run.
      restart: begin anew and keep earlier runs aside.

    Returns:
      The jobs that other processes were doing.

    Raises:
      RunError: for a folder that cannot be written or holds a run with other settings.
    """
    last_use = {job.program: index for index, job in enumerate(jobs)}
    made: dict[str, Program] = {}
    elsewhere = []
    for index, job in enumerate(jobs):
        if job.program not in made:
            made[job.program] = programs[job.program]()
        try:
            train(made[job.program], job.seed, job.folder, measures=measures, restart=restart)
        except Busy:
            elsewhere.append(job)
        if last_use[job.program] == index:
            del made[job.program]
    return elsewhere
