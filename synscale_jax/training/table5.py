"""The paper's table V: its rows, what it prints, its methods, and the runs of a tabular row."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from synscale_jax.data import DataNotAvailable, load_table
from synscale_jax.data.tables import Table
from synscale_jax.scaling import synscaw as synscaw_transform
from synscale_jax.training import methods
from synscale_jax.training.folds import (
    EpochMetrics,
    FoldConfig,
    FoldProgram,
    FoldState,
    decayed,
    table_model,
)
from synscale_jax.training.methods import Method
from synscale_jax.training.provenance import config_hash, provenance, state_hash, write_json
from synscale_jax.training.runs import (
    Busy,
    Interrupted,
    RunError,
    Signals,
    check_result,
    read_result,
    run_folder,
    same_command,
)

Unit = Literal["accuracy", "raw", "range", "mad"]
READINGS = ("final", "best_on_validation", "best_on_test")
"""Which epoch is read, the last, the best on the inner validation split or, as the paper does,
the best on the test fold, which is optimistic."""


class Row(NamedTuple):
    """A tabular row of the table.

    Attributes:
      name: of the table, and of the folder of its runs.
      label: what the paper calls it.
      unit: what is printed: accuracy in percent, or a mean absolute error in the target's unit, as
        a share of the target's range, or in median absolute deviations.
      published: method -> the paper's figure.
    """

    name: str
    label: str
    unit: Unit
    published: Mapping[str, float]


METHODS = ("baseline", "dropout", "confidence_penalty", "synscaw", "synscal")
"""The table's columns."""


def _rows(text: str) -> Mapping[str, Row]:
    rows = {}
    for line in text.split("\n"):
        name, label, unit, *figures = (part.strip() for part in line.split("|"))
        printed = zip(METHODS, figures, strict=True)
        published = {method: float(figure) for method, figure in printed if figure != "-"}
        rows[name] = Row(name, label, unit, MappingProxyType(published))  # pyright: ignore
    return MappingProxyType(rows)


ROWS = _rows("""thyroid | Thyroid | accuracy | 98.24 | 96.39 | 97.89 | 98.64 | 98.64
breast_cancer | Breast cancer | accuracy | 74.90 | 71.55 | 75.26 | 77.66 | 76.89
breast_cancer_wisconsin | Breast cancer W. | accuracy | 97.90 | 97.57 | 97.99 | 98.14 | 98.14
iris | Iris | accuracy | 98.67 | 97.33 | 98.67 | 100.00 | 100.00
mesothelioma | Mesothelioma | accuracy | 100.00 | 100.00 | 98.14 | 100.00 | 100.00
parkinson_motor | Parkinson motor | raw | 6.20 | 6.50 | - | 6.10 | 6.40
parkinson_total | Parkinson total | raw | 5.90 | 6.10 | - | 5.80 | 5.90
red_wine | Red wine | range | 0.10 | 0.11 | - | 0.09 | 0.09
white_wine | White wine | range | 0.11 | 0.12 | - | 0.10 | 0.10
diabetes | Diabetes | raw | 38.52 | 42.54 | - | 37.23 | 41.62
abalone | Abalone | mad | 0.67 | 0.80 | - | 0.65 | 0.67
life_expectancy | Life expectancy | range | 0.01 | 0.01 | - | 0.00 | 0.00
breast_cancer_41 | Breast cancer, 41 levels | accuracy | - | - | - | - | -
mesothelioma_blind | Mesothelioma, label out | accuracy | - | - | - | - | -""")
"""Row name -> the row; the last two are ours and have no published figure."""

PAPER_ROWS = tuple(name for name, row in ROWS.items() if row.published)
"""The twelve tabular targets of the paper."""


def table5_methods(
    config: FoldConfig, names: Sequence[str] = METHODS, *, regression: bool = False
) -> list[Method]:
    """The table's methods with the paper's settings.

    Dropout 0.2 and 0.5, confidence penalty β 1.0, SynScaW γ 0.01 decayed as the learning rate,
    SynScaL γ 0.5.

    Args:
      config: whose decay SynScaW's rate follows.
      names: some of :data:`METHODS`, in the order wanted.
      regression: leaves the confidence penalty out, which needs classes.

    Raises:
      ValueError: if there is no such method.
    """
    made: dict[str, Callable[[], Method]] = {
        "baseline": methods.baseline,
        "dropout": methods.dropout,
        "confidence_penalty": methods.confidence_penalty,
        "synscaw": lambda: decayed_synscaw(config),
        "synscal": lambda: methods.synscal(0.5),
    }
    if unknown := [name for name in names if name not in made]:
        raise ValueError(f"table V has no method {unknown[0]!r}: use some of {', '.join(made)}.")
    return [
        _the_papers(made[name]())
        for name in names
        if not (regression and name == "confidence_penalty")
    ]


def decayed_synscaw(config: FoldConfig, scaling_rate: float = 0.01) -> Method:
    """SynScaW whose rate is decayed as the learning rate is."""

    def after_optimizer(layers: Any, steps_per_epoch: int) -> Any:
        rate = decayed(config, steps_per_epoch, scaling_rate)
        return synscaw_transform(rate, layers=layers)

    plain = methods.synscaw(scaling_rate)
    settings = {**plain.settings, "decay": config.decay, "decay_epochs": config.decay_epochs}
    return dataclasses.replace(plain, settings=settings, after_optimizer=after_optimizer)


def _the_papers(method: Method) -> Method:
    """Settings that are ours in tables I to III are the paper's here."""
    settings = {name: value for name, value in method.settings.items() if name != "ours"}
    return dataclasses.replace(method, settings=settings)


class RowJob(NamedTuple):
    """One run: all folds of a row with one method and seed."""

    row: str
    method: str
    seed: int


def run_rows(
    folder: pathlib.Path,
    rows: Sequence[str],
    names: Sequence[str],
    seeds: Sequence[int],
    config: FoldConfig,
    *,
    restart: bool = False,
) -> list[RowJob]:
    """Train every row with every method and seed in ``<folder>/<row>/<method>/seed<k>``.

    A row is compiled once in each process, and not at all where nothing is left to do. Finished
    runs are not run again; one that was interrupted begins anew, which costs minutes at most. The
    same command in several processes shares the work. A row whose table cannot be had is left out,
    with a sentence on stderr.

    Args:
      folder: of all runs.
      rows: names in :data:`ROWS`.
      names: of methods.
      seeds: each draws the folds anew.
      config: how rows are trained.
      restart: begin anew and keep earlier runs aside.

    Returns:
      What other processes were doing.

    Raises:
      RunError: if no table can be had, or a folder cannot be used or holds a run of other
        settings.
      Interrupted: when a signal asked to stop.
    """
    elsewhere = []
    for row, table in _available(rows).items():
        chosen = table5_methods(config, names, regression=not table.num_classes)
        program: FoldProgram | None = None
        for seed, method in ((seed, method) for seed in seeds for method in chosen):
            job = RowJob(row, method.name, seed)
            place = folder / row / job.method / f"seed{seed}"
            result = None if restart else read_result(place / "result.json")
            if result is not None:
                check_result(place, result, _identity(table, method, config, seed))
                continue
            try:
                program = program or _program(table, chosen, config)
                run_fold_job(program, job, place, restart=restart)
            except Busy:
                elsewhere.append(job)
    return elsewhere


def _available(rows: Sequence[str]) -> dict[str, Table]:
    """The tables that can be had; of the others one sentence each, before anything is trained."""
    found, refusals = {}, []
    for row in rows:
        try:
            found[row] = load_table(row)
        except DataNotAvailable as error:
            refusals.append(f"{ROWS[row].label} is left out: {error}")
    if not found:
        raise RunError("\n".join(refusals))
    for refusal in refusals:
        print(refusal, file=sys.stderr)
    return found


def make_program(row: str, names: Sequence[str], config: FoldConfig) -> FoldProgram:
    """The program of a row, with all its methods.

    Raises:
      RunError: in one sentence, if the table cannot be cut into such folds.
    """
    table = load_table(row)
    return _program(table, table5_methods(config, names, regression=not table.num_classes), config)


def _program(table: Table, chosen: Sequence[Method], config: FoldConfig) -> FoldProgram:
    try:
        return FoldProgram(table, chosen, config)
    except ValueError as error:  # settings that do not go with the table
        raise RunError(f"{table.name} cannot be trained so: {error}") from error


def run_fold_job(
    program: FoldProgram, job: RowJob, folder: pathlib.Path, *, restart: bool = False
) -> dict[str, Any]:
    """Train one method with one seed on all folds, and write ``result.json``.

    Returns:
      Its content.

    Raises:
      Busy: if another process is at it.
      RunError: if the folder cannot be used.
      Interrupted: when a signal asked to stop.
    """
    number = [method.name for method in program.methods].index(job.method)
    identity = _identity(program.table, program.methods[number], program.config, job.seed)
    with run_folder(folder, identity, restart=restart) as folder, Signals() as signals:
        path = folder / "result.json"
        if (done := read_result(path)) is not None:
            return done
        origin = provenance()
        begin, processor = time.perf_counter(), time.process_time()
        state, metrics, ranges, finite = _train(program, number, job, signals, restart)
        outcome = {
            "status": "finished" if finite else "diverged",
            "steps_run": program.config.epochs * program.steps_per_epoch,
            "steps_planned": program.config.epochs * program.steps_per_epoch,
            "wall_seconds": round(time.perf_counter() - begin, 2),
            "cpu_seconds": round(time.process_time() - processor, 2),
            "unit": ROWS[job.row].unit,
            "target": _target_scale(program),
            "folds": readings(metrics, ranges, classification=bool(program.table.num_classes)),
            "history": _history(metrics),
            "config_hash": config_hash(identity),
        }
        if finite:
            outcome["state_hash"] = state_hash(state)
        result = {**identity, **outcome, "convolution": "none", **origin}
        write_json(path, result)
        print(
            f"{job.row}, {job.method}, seed {job.seed}: {outcome['status']} after "
            f"{outcome['wall_seconds']:.1f} s",
            file=sys.stderr,
        )
        if signals.received is not None:  # it came when nothing was left to train
            raise Interrupted(128 + signals.received)
        return json.loads(path.read_text())


def _train(
    program: FoldProgram, number: int, job: RowJob, signals: Signals, restart: bool
) -> tuple[FoldState, EpochMetrics, np.ndarray, bool]:
    data, ranges = program.data(job.seed)
    state, keys = program.init(job.seed), program.keys(job.seed)
    parts = []
    for first in range(0, program.config.epochs, program.epochs_a_call):
        state, metrics = program.run(state, data, keys, number, first)
        parts.append(jax.device_get(metrics))
        if signals.received is not None and first + program.epochs_a_call < program.config.epochs:
            print(
                f"\nstopped in {job}; {same_command(restart)} goes on before it.", file=sys.stderr
            )
            raise Interrupted(128 + signals.received)
    whole = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    weights = jax.tree.leaves(state.params)
    # Weights that are finite may still answer with what is not.
    finite = np.isfinite(whole.test[-1]).all() and all(jnp.isfinite(w).all() for w in weights)
    # The states of the program's other methods are none of this run's.
    state = state._replace(scaling=state.scaling[number : number + 1])
    return state, whole, ranges, bool(finite)


def readings(metrics: EpochMetrics, ranges: np.ndarray, *, classification: bool) -> dict[str, Any]:
    """What the epochs of every fold say, read in three ways.

    Without a validation split there is no ``best_on_validation``. Among epochs that are equal on
    the validation split, the one with the least loss counts, and then the first.

    Args:
      metrics: epochs × folds.
      ranges: of the training targets in each fold.
      classification: whether figures are accuracies; then they become percent, else they are
        shares of the target's range.

    Returns:
      Reading -> ``{"figure": one a fold, "epoch": one a fold, from 1}``, and ``"target_range"``.
    """
    sign = -1 if classification else 1
    factor = 100 if classification else 1
    test, folds = np.nan_to_num(metrics.test, nan=np.inf * sign), range(metrics.test.shape[1])
    chosen = {
        "final": np.full(len(folds), len(test) - 1),
        "best_on_test": np.argmin(sign * test, 0),
    }
    if metrics.validation_loss.any():
        chosen["best_on_validation"] = np.array(
            [
                np.lexsort((metrics.validation_loss[:, fold], sign * metrics.validation[:, fold]))[
                    0
                ]
                for fold in folds
            ]
        )
    found: dict[str, Any] = {"target_range": np.asarray(ranges, float).tolist()}
    for name, epochs in chosen.items():
        figures = factor * metrics.test[epochs, np.arange(len(folds))]
        found[name] = {
            "figure": [round(float(f), 7) if np.isfinite(f) else None for f in figures],
            "epoch": [int(epoch) + 1 for epoch in epochs],
        }
    return found


def _history(metrics: EpochMetrics) -> list[dict[str, Any]]:
    """Means over folds, one line an epoch."""
    names = ("train_loss", "validation", "validation_loss", "test")
    columns = [getattr(metrics, name).mean(1) for name in names]
    return [
        {"epoch": epoch}
        | {
            name: float(f"{value:.5g}") if np.isfinite(value) else None
            for name, value in zip(names, line, strict=True)
        }
        for epoch, line in enumerate(zip(*columns, strict=True), 1)
    ]


def _target_scale(program: FoldProgram) -> dict[str, float]:
    """Range and median absolute deviation of all targets of a regression."""
    if program.table.num_classes:
        return {}
    target = program.table.target
    spread = float(np.median(np.abs(target - np.median(target))))
    return {"range": float(np.ptp(target)), "mad": spread}


def _identity(table: Table, method: Method, config: FoldConfig, seed: int) -> dict[str, Any]:
    """What makes a run this run and no other; nothing is compiled for it."""
    model = table_model(table)
    return {
        "model": {
            "kind": "MLP",
            "features": list(model.features),
            "outputs": model.num_classes,
            "activation": model.activation,
        },
        "method": {"name": method.name, **method.settings},
        "config": dataclasses.asdict(config),
        "seed": seed,
        "data": {"name": table.name, "hash": table.data_hash},
    }
