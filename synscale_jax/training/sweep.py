"""Many runs, shared by as many processes as are started."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from synscale_jax.data import DataNotAvailable, ImageSet, load_images
from synscale_jax.training.cells import Cell
from synscale_jax.training.config import TrainConfig
from synscale_jax.training.loop import NOTHING_ELSE, Measures, train
from synscale_jax.training.methods import Method
from synscale_jax.training.program import Program
from synscale_jax.training.runs import Busy, RunError


class Job(NamedTuple):
    """One run: a program by name, a seed, and the folder of the result."""

    program: str
    seed: int
    folder: pathlib.Path


def run_cells(
    folder: pathlib.Path,
    cells: Sequence[Cell],
    methods: Sequence[Method],
    seeds: Sequence[int],
    settings: Callable[[Cell], TrainConfig],
    *,
    measures: Measures = NOTHING_ELSE,
    restart: bool = False,
) -> list[Job]:
    """Train every cell with every method and seed in ``<folder>/<cell>/<method>/seed<k>``.

    One cell after the other, within it one seed after the other, so that whole comparisons come
    early.

    Returns:
      The jobs that other processes were doing, see :func:`run_jobs`.

    Raises:
      RunError: in one sentence, if images cannot be had or a run cannot be done.
    """
    programs: dict[str, Callable[[], Program]] = {}
    jobs = []
    for cell in cells:
        data = functools.cache(functools.partial(_load, cell.data))
        for method in methods:
            programs[f"{cell.name}/{method.name}"] = functools.partial(
                _program, cell, method, settings(cell), data
            )
        jobs += [
            Job(name, seed, folder / name / f"seed{seed}")
            for seed in seeds
            for name in (f"{cell.name}/{method.name}" for method in methods)
        ]
    return run_jobs(jobs, programs, measures=measures, restart=restart)


def _load(name: str) -> ImageSet:
    try:
        return load_images(name)
    except DataNotAvailable as error:
        raise RunError(str(error)) from error


def _program(
    cell: Cell, method: Method, settings: TrainConfig, data: Callable[[], ImageSet]
) -> Program:
    images = data()
    try:
        return Program(cell.model(images.num_classes), method, settings, images)
    except ValueError as error:  # settings that do not go with the data
        raise RunError(f"{cell.name}, {method.label}: {error}") from error


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
