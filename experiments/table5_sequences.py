"""The paper's table V, rows of sequences: IMDB, sequential MNIST and the Bonn EEG.

GRU and LSTM (128 units, ours) with Adam 0.01, five epochs. The paper trains 100 epochs and reports
the best, which it finds at 2 to 5; its claim: SynScaW is best (IMDB LSTM 87.57 → 88.05 %, seq.
MNIST GRU 98.32 → 98.49 %). The EEG row needs an accelerator (about 200 TFLOP an epoch and fold):
here its pipeline runs for a stated number of steps on one fold.

    python experiments/table5_sequences.py                                    # IMDB, five methods
    python experiments/table5_sequences.py --preset mnist                     # GRU, three methods
    python experiments/table5_sequences.py --preset mnist --rows mnist_lstm   # hours
    python experiments/table5_sequences.py --preset mnist_rows                # row by row, minutes
    python experiments/table5_sequences.py --preset eeg                       # 50 steps, 2 methods

Start it twice to use two cores; give the same command again to go on after an interruption.
"""

import dataclasses
import pathlib
import sys
from typing import Annotated, Literal

import tyro

from synscale_jax.report import tables
from synscale_jax.training.command_line import check_each_once, check_seeds, run_experiment
from synscale_jax.training.config import TrainConfig
from synscale_jax.training.provenance import write_text
from synscale_jax.training.table5 import METHODS
from synscale_jax.training.table5_report import results_below
from synscale_jax.training.table5_sequences import (
    EEG,
    SEQUENCE_ROWS,
    SequenceSettings,
    run_sequences,
    sequence_table,
)

RowName = Literal[
    "imdb_gru",
    "imdb_lstm",
    "mnist_gru",
    "mnist_lstm",
    "mnist_rows_gru",
    "mnist_rows_lstm",
    "epileptic_seizure",
]
MethodName = Literal["baseline", "dropout", "confidence_penalty", "synscaw", "synscal"]

_TRAIN = TrainConfig(
    epochs=5,
    learning_rate=0.01,
    decay=0.9,
    decay_epochs=40,
    validation_examples=2500,
    chunk_steps=25,
)


@dataclasses.dataclass(frozen=True)
class SequencesConfig:
    """Train recurrent classifiers with every method and draw the table."""

    preset: Literal["smoke", "laptop", "paper", "mnist", "mnist_rows", "eeg"] = "laptop"
    """laptop: IMDB; mnist: sequential MNIST pixel by pixel; mnist_rows: row by row; eeg: some steps
    of one fold; paper: 100 epochs of the four recurrent rows. Also the folder of the runs."""
    rows: tuple[RowName, ...] = ("imdb_gru", "imdb_lstm")
    """Which rows, in their order."""
    methods: tuple[MethodName, ...] = METHODS  # pyright: ignore
    """Which methods; the baseline is what they are compared with."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Every method is trained with each of these seeds."""
    train: Annotated[TrainConfig, tyro.conf.arg(name="")] = _TRAIN
    """How each network is trained."""
    network: SequenceSettings = dataclasses.field(default_factory=SequenceSettings)
    """What the paper does not print."""
    output: pathlib.Path = pathlib.Path("runs/table5_sequences")
    """Runs are in <output>/<preset>/<row>/<method>/seed<k>."""
    draw: bool = False
    """Only draw what is there."""
    restart: bool = False
    """Begin anew; earlier runs are kept aside."""

    def __post_init__(self) -> None:
        check_each_once(self, "rows", "methods")
        check_seeds(self.seeds)

    @property
    def folder(self) -> pathlib.Path:
        """Where the runs are."""
        return self.output / self.preset


def main(config: SequencesConfig) -> None:
    """Train what is missing, then write and print the table."""
    if not config.draw:
        elsewhere = run_sequences(
            config.folder,
            config.rows,
            config.methods,
            config.seeds,
            config.train,
            config.network,
            restart=config.restart,
        )
        if elsewhere:
            print(f"{len(elsewhere)} runs are another process's; --draw later.", file=sys.stderr)
    results = results_below(config.folder, config.rows, config.methods)
    parts = ["# Table V: sequences\n"]
    for name, column in results.items():
        title = f"{SEQUENCE_ROWS[name].label} (accuracy %)"
        everything = [run for runs in column.values() for run in runs]
        steps = f"{everything[0]['steps_planned']} steps of {everything[0]['config']['batch']}"
        note = f"One of ten folds, {steps}, which only shows that the pipeline works."
        table = sequence_table(name, column)
        parts += [f"## {title}\n", *([f"{note}\n"] if name == EEG else [])]
        parts += [tables.markdown(table), f"{tables.origin(*everything)}\n"]
        print(f"{title}\n{tables.plain(table)}")
    write_text(config.folder / "table5_sequences.md", "\n".join(parts))
    print(f"Table: {config.folder / 'table5_sequences'}.md")


_PLAIN = ("baseline", "synscaw", "synscal")
PRESETS = {
    "smoke": SequencesConfig(
        preset="smoke",
        rows=("mnist_gru",),
        methods=("baseline", "synscaw"),
        seeds=(0,),
        train=dataclasses.replace(
            _TRAIN, epochs=1, train_examples=200, validation_examples=100, test_examples=100
        ),
        network=SequenceSettings(hidden=16),
    ),
    "laptop": SequencesConfig(),
    "paper": SequencesConfig(
        preset="paper",
        rows=("imdb_gru", "imdb_lstm", "mnist_gru", "mnist_lstm"),
        train=dataclasses.replace(_TRAIN, epochs=100),
    ),
    "mnist": SequencesConfig(
        preset="mnist",
        rows=("mnist_gru",),
        methods=_PLAIN,
        train=dataclasses.replace(_TRAIN, validation_examples=6000, chunk_steps=10),
    ),
    "mnist_rows": SequencesConfig(
        preset="mnist_rows",
        rows=("mnist_rows_gru", "mnist_rows_lstm"),
        train=dataclasses.replace(_TRAIN, validation_examples=6000),
    ),
    "eeg": SequencesConfig(
        preset="eeg",
        rows=("epileptic_seizure",),
        methods=("baseline", "synscaw"),
        seeds=(0,),
        train=dataclasses.replace(
            _TRAIN,
            epochs=1,
            batch=20,
            train_examples=1000,
            validation_examples=100,
            chunk_steps=2,
            eval_batch=20,
        ),
    ),
}


if __name__ == "__main__":
    run_experiment(main, SequencesConfig, PRESETS)
