"""The paper's table V: twelve tabular targets, five methods, ten folds.

Four hidden layers of 10 · inputs · classes Leaky-ReLU units, Adam 0.01 (× 0.9 every 40 epochs),
100 epochs, class-weighted cross-entropy or squared error. The paper's claim: SynScaW is best on
nearly every row (thyroid 98.24 → 98.64 %, iris 98.67 → 100 %, red wine 0.10 → 0.09). Each figure is
read in three ways, of which the paper's, the best epoch on the test fold, is optimistic.

    python experiments/table5.py                            # all rows but thyroid, one seed
    python experiments/table5.py --preset paper             # all rows, three seeds, hours
    python experiments/table5.py --rows iris diabetes --methods baseline synscaw
    python experiments/table5.py --overview                 # what the rows are made of

Start it twice to use two cores (`taskset -c 0`, `-c 1`); give the same command again to go on after
an interruption, and with --draw to draw what is there.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import tyro

from synscale_jax.data.tables import overview as data_overview
from synscale_jax.report import tables
from synscale_jax.report.collect import Results
from synscale_jax.report.plots import Dot
from synscale_jax.training import table5_report as report
from synscale_jax.training.command_line import check_each_once, check_seeds, run_experiment
from synscale_jax.training.folds import FoldConfig
from synscale_jax.training.provenance import write_text
from synscale_jax.training.table5 import METHODS, PAPER_ROWS, ROWS, run_rows
from synscale_jax.training.table5_headline import headline
from synscale_jax.training.table5_sequences import sequence_dots

RowName = Literal[
    "thyroid",
    "breast_cancer",
    "breast_cancer_wisconsin",
    "iris",
    "mesothelioma",
    "parkinson_motor",
    "parkinson_total",
    "red_wine",
    "white_wine",
    "diabetes",
    "abalone",
    "life_expectancy",
    "breast_cancer_41",
    "mesothelioma_blind",
]
MethodName = Literal["baseline", "dropout", "confidence_penalty", "synscaw", "synscal"]


@dataclasses.dataclass(frozen=True)
class Table5Config:
    """Cross-validate every method on every row and draw table and figure."""

    preset: Literal["smoke", "laptop", "paper"] = "laptop"
    """smoke: 2 epochs of two small rows; laptop: all rows but thyroid, one seed; paper: all twelve
    targets, three seeds."""
    rows: tuple[RowName, ...] = PAPER_ROWS  # pyright: ignore
    """Which rows, in their order."""
    methods: tuple[MethodName, ...] = METHODS  # pyright: ignore
    """Which methods; the baseline is what they are compared with."""
    seeds: tuple[int, ...] = (0,)
    """Each draws the folds anew."""
    train: Annotated[FoldConfig, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=FoldConfig
    )
    """How each row is trained; grouped folds are refused for rows without groups."""
    output: pathlib.Path = pathlib.Path("runs/table5")
    """Runs are in <output>/<smoke, full or grouped>/<row>/<method>/seed<k>."""
    sequences: pathlib.Path = pathlib.Path("runs/table5_sequences")
    """Where table5_sequences.py put its runs; the figure shows them, too."""
    overview: bool = False
    """Only print what the rows are made of."""
    draw: bool = False
    """Only draw what is there."""
    restart: bool = False
    """Begin anew; earlier runs are kept aside."""

    def __post_init__(self) -> None:
        check_each_once(self, "rows", "methods")
        check_seeds(self.seeds)

    @property
    def folder(self) -> pathlib.Path:
        """Where the runs are; laptop and paper share theirs."""
        name = "smoke" if self.preset == "smoke" else "grouped" if self.train.grouped else "full"
        return self.output / name


def main(config: Table5Config) -> None:
    """Train what is missing, then write and print the table."""
    if config.overview:
        print(tables.plain(data_overview(config.rows)))
        return
    if not config.draw:
        elsewhere = run_rows(
            config.folder,
            config.rows,
            config.methods,
            config.seeds,
            config.train,
            restart=config.restart,
        )
        if elsewhere:
            print(f"{len(elsewhere)} runs are another process's; --draw later.", file=sys.stderr)
    results = report.results_below(config.folder, config.rows, config.methods)
    missing = [row for row in config.rows if row not in results]
    write(config.folder, results, missing, sequence_dots(config.sequences))


def write(
    folder: pathlib.Path,
    results: Results,
    missing: Sequence[str],
    sequences: Mapping[str, Sequence[Dot]],
) -> None:
    """Write ``table5.md``, ``.csv``, ``.tex`` and ``.png`` beside the runs, and print the table."""
    everything = [r for column in results.values() for runs in column.values() for r in runs]
    shown = report.overview(results, report.LIKE_THE_PAPER)
    parts = ["# Table V: tabular rows\n", "## Over data sets\n", headline(results)]
    for reading, label in report.READING_LABELS.items():
        cells = _starred(report.overview(results, reading))
        parts += [f"## Every row, {label}\n", tables.markdown(cells)]
    for name, column in results.items():
        shape = report.details(ROWS[name], column, report.like_the_paper(column))
        parts += [f"## {ROWS[name].label} ({report.UNITS[ROWS[name].unit]})\n"]
        parts += [tables.markdown(shape)]
    minutes = sum(run["wall_seconds"] for run in everything) / 60
    if missing:
        parts.append(f"Not run: {', '.join(ROWS[row].label for row in missing)}.\n")
    parts.append(f"{len(everything)} runs, {minutes:.1f} minutes of training in all.\n")
    parts.append(report.settings(everything) + "\n")
    parts.append(tables.origin(*everything) + "\n")
    write_text(folder / "table5.md", "\n".join(parts))
    write_text(folder / "table5.tex", tables.latex(shown))
    write_text(folder / "table5.csv", report.as_csv(results))
    drawn = ", .png" if report.draw(results, folder / "table5.png", more=sequences) else ""
    print(f"{tables.plain(shown)}\nTable and figure: {folder / 'table5'}.md, .csv, .tex{drawn}")


def _starred(columns: dict[str, list[str]]) -> dict[str, list[str]]:
    """Stars that Markdown does not take for emphasis."""
    return {name: [cell.replace("*", r"\*") for cell in cells] for name, cells in columns.items()}


PRESETS = {
    "smoke": Table5Config(
        preset="smoke",
        rows=("iris", "diabetes"),
        train=FoldConfig(epochs=2, folds=3),
    ),
    "laptop": Table5Config(rows=tuple(name for name in PAPER_ROWS if name != "thyroid")),  # pyright: ignore
    "paper": Table5Config(preset="paper", seeds=(0, 1, 2)),
}


if __name__ == "__main__":
    run_experiment(main, Table5Config, PRESETS)
