"""Table III of the paper: how far the test activations are from a log-normal.

Jensen-Shannon divergence from the log-normal fitted to them, beside the same network before
training. The activations are what every scaled layer but the first receives on the whole test set:
positive values, all layers pooled. Drawn from the runs of `table1.py`; what is missing is trained.

    python experiments/table3.py                  # with the options of table1.py
    python experiments/table3.py --draw           # only the table of what is there
"""

from synscale_jax.report.cell_tables import divergence
from synscale_jax.training.command_line import run_experiment
from synscale_jax.training.published import TABLE_III
from synscale_jax.training.table_settings import TablesConfig, table_presets
from synscale_jax.training.tables_main import draw_table, run_tables

TITLE = "Table III: divergence of the test activations from a log-normal"


def main(config: TablesConfig) -> None:
    """Train what is missing, then write and print the table."""
    run_tables(config)
    draw_table(config, "table3", TITLE, divergence("activations"), TABLE_III)


if __name__ == "__main__":
    run_experiment(main, TablesConfig, table_presets())
