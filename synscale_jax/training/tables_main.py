"""The paper's tables I to III: one set of runs, three tables."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from synscale_jax.report import cell_layout, cell_tables, tables
from synscale_jax.report.cell_tables import (
    ERROR,
    PRIMARY_CELLS,
    PRIMARY_METHODS,
    PRIMARY_SEEDS,
    Entry,
    Quantity,
)
from synscale_jax.report.collect import ResultError, Results, collect
from synscale_jax.report.plots import Dot, dots
from synscale_jax.training.cells import NETWORKS, Cell, all_cells, cells_named
from synscale_jax.training.measures import DIVERGENCES
from synscale_jax.training.provenance import write_text
from synscale_jax.training.published import PORT
from synscale_jax.training.runs import RunError
from synscale_jax.training.sweep import run_cells
from synscale_jax.training.table_settings import PROTOCOLS, TablesConfig, method_labels

PAPER_EPOCHS = 200
PRIMARY_PRESET = "laptop"  # whose protocol the primary family was fixed with


def run_tables(config: TablesConfig) -> None:
    """Train what is missing; runs that another process is doing are left to it.

    Raises:
      RunError: in one sentence, see :func:`~synscale_jax.training.sweep.run_cells`.
    """
    if config.draw:
        return
    elsewhere = run_cells(
        config.folder,
        cells_named(config.cells),
        config.chosen_methods(),
        config.seeds,
        config.settings,
        measures=DIVERGENCES,
        restart=config.restart,
    )
    if elsewhere:
        print(
            f"{len(elsewhere)} runs are being done by another process and may be missing below; "
            "--draw draws the table again.",
            file=sys.stderr,
        )


def draw_table(
    config: TablesConfig,
    name: str,
    title: str,
    quantity: Quantity,
    published: Mapping[str, Mapping[str, float]],
) -> None:
    """Write table and figure as ``<output>/<preset>/<name>.md``, ``.csv``, ``.tex`` and ``.png``.

    Args:
      config: which cells and methods of which protocol; other cells of it that have runs are drawn,
        too, so that no command takes a column out of the table that another one filled.
      name: of the files.
      title: of table and figure.
      quantity: what it is about.
      published: cell -> method -> the paper's figure.

    Raises:
      RunError: if there is no result, or results do not go together or with the protocol.
    """
    config = _with_others(config)
    labels = method_labels(config.chosen_methods())
    try:
        results = collect(config.folder, config.cells, list(labels))
    except ResultError as refusal:
        raise RunError(str(refusal)) from refusal
    runs = [
        run for column in results.values() for of_method in column.values() for run in of_method
    ]
    if not runs:
        raise RunError(f"there is no result below {config.folder}: leave out --draw to train.")
    _check_protocol(config, results)
    source = "paper"
    if config.preset == "port":
        source, title = "port", f"The PyTorch port's protocol: {quantity.name}"
    found = {
        cell.label: cell_tables.entries(
            results[cell.name],
            quantity,
            published.get(cell.name, {}),
            _comparable(config, config.settings(cell).epochs),
            _needs(config, cell),
        )
        for cell in cells_named(config.cells)
    }
    rows = cell_layout.overview(found, labels, quantity.digits, source)
    parts = [f"# {title}\n", _note(config, runs, quantity), tables.markdown(rows)]
    if quantity is ERROR and config.preset == "port":
        parts.append(_port(results, labels))
    elif quantity is ERROR and config.preset == PRIMARY_PRESET:
        parts += _tests(config, labels)
    begun = {
        cell.name: cell.label
        for cell in cells_named(config.cells)
        if any(results[cell.name].values())
    }
    for cell, label in begun.items():
        details = tables.markdown(cell_layout.details(found[label], labels, quantity, source))
        parts.append(f"## {label}\n\n{details}")
        if layers := cell_layout.by_layer(results[cell], labels, quantity):
            parts.append(f"By layer, mean over seeds:\n\n{tables.markdown(layers)}")
    parts += _not_begun(config, begun)
    parts.append(tables.origin(*runs) + "\n")
    folder = config.folder
    write_text(folder / f"{name}.md", "\n".join(parts))
    write_text(folder / f"{name}.csv", cell_layout.as_csv(found))
    write_text(folder / f"{name}.tex", tables.latex(rows))
    panels = {
        label: [
            _dot(found[label][method], labels[method], quantity)
            for method in labels
            if method != "baseline"
        ]
        for label in begun.values()
    }
    written = ".md, .csv, .tex"
    if any(panels.values()):
        alone = any(dot.value is not None and dot.low is None for dot in chain(*panels.values()))
        note = _marks(config, quantity) + ("; a dot alone: one seed" if alone else "")
        dots(panels, f"Δ {quantity.name}", title, folder / f"{name}.png", note)
        written += ", .png"
    print(f"\n{title}\n{tables.plain(rows)}\nTable and figure: {folder / name}{written}")


def _with_others(config: TablesConfig) -> TablesConfig:
    """The cells asked for, then the others of the protocol that have runs of these methods."""
    others = (
        cell.name
        for cell in all_cells()
        if cell.network in PROTOCOLS[config.preset]
        and cell.name not in config.cells
        and any(
            any((config.folder / cell.name / method).glob("seed*/result.json"))
            for method in config.methods
        )
    )
    return dataclasses.replace(config, cells=(*config.cells, *others))


def _needs(config: TablesConfig, cell: Cell) -> str:
    """What a cell that was not run would need."""
    long = config.settings(cell).epochs >= PAPER_EPOCHS
    return "an accelerator" if long and "resnet" in cell.network else "time"


def _not_begun(config: TablesConfig, begun: Mapping[str, str]) -> list[str]:
    """What cells without any run need, under one heading; nothing if there is none."""
    waiting: dict[str, list[str]] = {}
    for cell in cells_named(config.cells):
        if cell.name not in begun:
            waiting.setdefault(_needs(config, cell), []).append(cell.label)
    if not waiting:
        return []
    said = " ".join(f"Needs {need}: {', '.join(cells)}." for need, cells in waiting.items())
    return [f"## Not run\n\n{said}\n"]


def _check_protocol(config: TablesConfig, results: Results) -> None:
    """Refuse runs that were not trained as the preset says, or a method that changes its settings.

    Within a cell :func:`collect` has seen to that.
    """
    chosen: dict[str, tuple[str, Any]] = {}
    for cell in cells_named(config.cells):
        planned = json.loads(json.dumps(dataclasses.asdict(config.settings(cell))))
        for run in (run for runs in results[cell.name].values() for run in runs):
            for name in planned.keys() & run["config"].keys():
                if run["config"][name] != planned[name]:
                    raise RunError(
                        f"runs below {config.folder / cell.name} were trained with {name} = "
                        f"{run['config'][name]}, the {config.preset} protocol has {planned[name]}: "
                        "keep them in a folder of their own."
                    )
            method = run["method"]
            first, settings = chosen.setdefault(method["name"], (cell.name, method))
            if settings != method:
                raise RunError(
                    f"{method['name']} has other settings in {cell.name} than in {first} below "
                    f"{config.folder}: a table does not mix them, keep each in a folder of its own."
                )


def _comparable(config: TablesConfig, epochs: int) -> bool:
    return config.preset == "paper" and epochs == PAPER_EPOCHS


def _note(config: TablesConfig, runs: Sequence[Mapping[str, Any]], quantity: Quantity) -> str:
    """How to read the table."""
    cells = cells_named(config.cells)
    lengths = {NETWORKS[cell.network][0]: config.settings(cell).epochs for cell in cells}
    epochs, training = sorted(set(lengths.values())), runs[0]["config"]
    length = f"{epochs[0]} epochs"
    if len(epochs) > 1:
        length = ", ".join(f"{network} {number} epochs" for network, number in lengths.items())
    text = (
        f"Protocol `{config.preset}`: {length}, batch {training['batch']}, learning rate "
        f"{training['learning_rate']}, no validation split: the last epoch is reported"
    )
    if quantity.best_of_run is not None:
        text += ", and the best epoch on the test set beside it, which is optimistic"
    text += (
        ". Mean ± standard deviation over n seeds; Δ is the difference to the baseline on the same "
        "seeds. Seeds that diverged are counted and left out."
    )
    if config.preset == "port":
        text += " Published figures are the port's: one run, best epoch on the test set."
    elif not all(_comparable(config, number) for number in epochs):
        text += f" The paper trained {PAPER_EPOCHS} epochs, so its Δ is not comparable with ours."
    used = {run["method"]["name"]: run["method"] for run in runs}
    settings = {
        method.label: used.get(method.name) or method.settings
        for method in config.chosen_methods()
        if method.settings
    }
    ours = [
        f"{label}: {_listed({name: of[name] for name in of['ours']})}"
        for label, of in settings.items()
        if "ours" in of
    ]
    if ours:
        text += f" Settings that the paper does not print and that are ours: {'; '.join(ours)}."
    chosen = [
        f"{label}: {_listed(of)}"
        for label, of in settings.items()
        if label in ("SynScaW", "SynScaL")
    ]
    if chosen:
        text += f" Readings: {'; '.join(chosen)}."
    return text + "\n"


def _listed(settings: Mapping[str, Any]) -> str:
    shown = {n: v for n, v in settings.items() if n != "name" and v is not None and v is not False}
    return ", ".join(
        name if value is True else f"{name} = {value}" for name, value in shown.items()
    )


def _tests(config: TablesConfig, labels: Mapping[str, str]) -> list[str]:
    """The whole primary family, whatever part of it was asked for, if any of it was."""
    if not set(PRIMARY_CELLS) & set(config.cells):
        return []
    try:
        results = collect(config.folder, PRIMARY_CELLS, ("baseline", *PRIMARY_METHODS))
    except ResultError as refusal:
        raise RunError(str(refusal)) from refusal
    family = cell_tables.primary_family(results)
    text = (
        "## Primary family\n\nFixed before the runs: SynScaW and SynScaL against the baseline on "
        f"the three MLP sets, last epoch, seeds 0 to {PRIMARY_SEEDS[-1]}, exact paired sign-flip "
        "test, Holm over these six; what could not be tested counts there as p = 1."
    )
    if any(test.seeds < len(PRIMARY_SEEDS) for test in family):
        text += " **Not complete: nothing is decided by fewer pairs.**"
    return [f"{text}\n\n{tables.markdown(cell_layout.tests(family, labels))}"]


def _port(results: Results, labels: Mapping[str, str]) -> str:
    """Whether the port's printed best would be one of our runs."""
    rows = cell_tables.predictions(results, PORT)
    return (
        "## Does the port's print look like one of our runs?\n\nBest epoch on the test set, error "
        "%; 95 % prediction interval for one new run (Student's t).\n\n"
        + tables.markdown(cell_layout.prediction_table(rows, labels))
    )


def _dot(entry: Entry, label: str, quantity: Quantity) -> Dot:
    mean, theirs = entry.mean_difference, entry.published_difference
    low, high = (None, None) if entry.difference is None else entry.difference[1:]
    if quantity.direction_only:
        return Dot(label, mean, low, high, direction=0 if not theirs else 1 if theirs > 0 else -1)
    return Dot(label, mean, low, high, theirs)


def _marks(config: TablesConfig, quantity: Quantity) -> str:
    """What the open marks of the figure are."""
    if quantity.direction_only:
        return "triangles: the side of zero of the published Δ"
    if config.preset == "port":
        return "open diamonds: published, one run, best epoch"
    epochs = {config.settings(cell).epochs for cell in cells_named(config.cells)}
    length = "" if epochs == {PAPER_EPOCHS} else f", {PAPER_EPOCHS} epochs"
    return f"open diamonds: published, one run{length}"
