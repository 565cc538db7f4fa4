"""Table II of the paper: how far the trained weights are from a log-normal.

Jensen-Shannon divergence from the log-normal fitted to them, beside the same network before
training: untrained weights already score about 0.04 (normal) to 0.10 (uniform). Kernels only,
positive values, all layers pooled. Drawn from the runs of `table1.py`; what is missing is trained.

    python experiments/table2.py                  # with the options of table1.py
    python experiments/table2.py --draw           # only the table of what is there
"""

from synscale_jax.report.cell_tables import divergence
from synscale_jax.training.command_line import run_experiment
from synscale_jax.training.published import TABLE_II
from synscale_jax.training.table_settings import TablesConfig, table_presets
from synscale_jax.training.tables_main import draw_table, run_tables

TITLE = "Table II: divergence of the trained weights from a log-normal"


def main(config: TablesConfig) -> None:
    """Train what is missing, then write and print the table."""
    run_tables(config)
    draw_table(config, "table2", TITLE, divergence("weights"), TABLE_II)


if __name__ == "__main__":
    run_experiment(main, TablesConfig, table_presets())
