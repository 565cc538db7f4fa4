"""The paper's tables I to III: one set of runs, three tables."""

from __future__ import annotations

import sys

from synscale_jax.training.cells import cells_named
from synscale_jax.training.measures import DIVERGENCES
from synscale_jax.training.sweep import run_cells
from synscale_jax.training.table_settings import TablesConfig


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
            f"{len(elsewhere)} runs are being done by another process and missing below; --draw "
            "draws the table again.",
            file=sys.stderr,
        )


def draw_errors(config: TablesConfig) -> None:
    """Write and print table I."""
