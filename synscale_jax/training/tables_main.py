"""The paper's tables I to III: one set of runs, three tables."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from synscale_jax.report import cell_layout, cell_tables, tables
from synscale_jax.report.cell_tables import ERROR, Entry, Quantity
from synscale_jax.report.collect import ResultError, Results, collect
from synscale_jax.report.plots import Dot, dots
from synscale_jax.training.cells import cells_named
from synscale_jax.training.measures import DIVERGENCES
from synscale_jax.training.provenance import write_text
from synscale_jax.training.published import PORT
from synscale_jax.training.runs import RunError
from synscale_jax.training.sweep import run_cells
from synscale_jax.training.table_settings import TablesConfig, method_labels

PAPER_EPOCHS = 200


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
      config: which cells and methods of which protocol.
      name: of the files.
      title: of table and figure.
      quantity: what it is about.
      published: cell -> method -> the paper's figure.

    Raises:
      RunError: if there is no result, or results do not go together.
    """
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
    found = {
        cell.label: cell_tables.entries(
            results[cell.name],
            quantity,
            published.get(cell.name, {}),
            _comparable(config, config.settings(cell).epochs),
            "time" if "mlp" in cell.network else "an accelerator",
        )
        for cell in cells_named(config.cells)
    }
    parts = [f"# {title}\n", _note(config, runs[0]), _overview(found, labels, quantity)]
    if quantity is ERROR:
        parts.append(_port(results, labels) if config.preset == "port" else _tests(results, labels))
    parts += [
        f"## {cell}\n\n{tables.markdown(cell_layout.details(column, labels, quantity))}"
        for cell, column in found.items()
    ]
    parts.append(tables.origin(runs[0]) + "\n")
    folder = config.folder
    write_text(folder / f"{name}.md", "\n".join(parts))
    write_text(folder / f"{name}.csv", cell_layout.as_csv(found))
    rows = cell_layout.overview(found, labels, quantity.digits)
    write_text(folder / f"{name}.tex", tables.latex(rows))
    panels = {
        cell: [_dot(column[method], labels[method]) for method in labels if method != "baseline"]
        for cell, column in found.items()
    }
    if any(panels.values()):
        dots(panels, f"Δ {quantity.name}", title, folder / f"{name}.png")
    print(
        f"\n{title}\n{tables.plain(rows)}\nTable and figure: {folder / name}.md, .csv, .tex, .png"
    )


def _comparable(config: TablesConfig, epochs: int) -> bool:
    return config.preset == "paper" and epochs == PAPER_EPOCHS


def _note(config: TablesConfig, run: Mapping[str, Any]) -> str:
    """How to read the table."""
    epochs = sorted({config.settings(cell).epochs for cell in cells_named(config.cells)})
    length = " and ".join(map(str, epochs))
    text = (
        f"Protocol `{config.preset}`: {length} epochs, batch {run['config']['batch']}, "
        f"learning rate {run['config']['learning_rate']}, no validation split: the last epoch is "
        "reported, and the best epoch on the test set beside it, which is optimistic. Mean ± "
        "standard deviation over seeds; Δ is the difference to the baseline on the same seeds."
    )
    if config.preset == "port":
        text += " Published figures are the port's: one run, best epoch on the test set."
    elif not all(_comparable(config, number) for number in epochs):
        text += f" The paper trained {PAPER_EPOCHS} epochs, so its Δ is not comparable with ours."
    ours = [
        f"{method.label}: {', '.join(method.settings['ours'])}"
        for method in config.chosen_methods()
        if "ours" in method.settings
    ]
    if ours:
        text += f" Settings that the paper does not print and that are ours: {'; '.join(ours)}."
    return text + "\n"


def _overview(
    found: Mapping[str, Mapping[str, Entry]], labels: Mapping[str, str], quantity: Quantity
) -> str:
    return tables.markdown(cell_layout.overview(found, labels, quantity.digits))


def _tests(results: Results, labels: Mapping[str, str]) -> str:
    family = cell_tables.primary_family(results)
    return (
        "## Primary family\n\nFixed before the runs: SynScaW and SynScaL against the baseline on "
        "the three MLP sets, last epoch, exact paired sign-flip test, Holm over these six.\n\n"
        + tables.markdown(cell_layout.tests(family, labels))
    )


def _port(results: Results, labels: Mapping[str, str]) -> str:
    """Whether the port's printed best would be one of our runs."""
    rows = cell_tables.predictions(results, PORT)
    return (
        "## Does the port's print look like one of our runs?\n\nBest epoch on the test set, error "
        "%; 95 % prediction interval for one new run (Student's t).\n\n"
        + tables.markdown(cell_layout.prediction_table(rows, labels))
    )


def _dot(entry: Entry, label: str) -> Dot:
    gap = entry.difference
    if gap is None:
        return Dot(label, None, None, None, entry.published_difference)
    return Dot(label, gap.mean, gap.low, gap.high, entry.published_difference)
