"""Table I of the paper: test error of eight methods, three image sets, MLP and ResNet32.

The paper (Hofmann and Mäder, IEEE TNNLS 33(7), 2022) prints one run a cell. Here every cell has
seeds, an interval over seeds and test images, and the difference to the baseline on the same seeds
beside the paper's. Tables II and III are drawn from the same runs (`table2.py`, `table3.py`).

    python experiments/table1.py                          # three MLP cells, 24 epochs
    python experiments/table1.py --preset paper           # 200 epochs, ResNet32 too
    python experiments/table1.py --preset port            # the PyTorch port's network and readings
    python experiments/table1.py --draw                   # only the table of what is there

On 2 cores an MLP step takes about 3.9 ms (MNIST); two processes of one core each share the work and
are a sixth faster: start the same command twice, the second time with `taskset`.
"""

from synscale_jax.report.cell_tables import ERROR
from synscale_jax.training.command_line import run_experiment
from synscale_jax.training.published import PORT, TABLE_I
from synscale_jax.training.table_settings import TablesConfig, table_presets
from synscale_jax.training.tables_main import draw_table, run_tables

TITLE = "Table I: test error in percent"


def main(config: TablesConfig) -> None:
    """Train what is missing, then write and print the table."""
    run_tables(config)
    published = PORT if config.preset == "port" else TABLE_I
    draw_table(config, "table1", TITLE, ERROR, published)


if __name__ == "__main__":
    run_experiment(main, TablesConfig, table_presets())
