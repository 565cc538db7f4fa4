"""Table V's rows of sequences: readings, verdicts, the figure's lines, the EEG's parts."""

import json

import numpy as np
import pytest

from synscale_jax.data.eeg import Segments
from synscale_jax.training import table5_sequences
from synscale_jax.training.table5_sequences import sequence_dots, sequence_table


def sequence_run(method, seed, test, **config):
    history = [
        {"test_accuracy": t, "validation_accuracy": v}
        for t, v in zip(test, (0.9, 0.8), strict=True)
    ]
    return {
        "status": "finished",
        "seed": seed,
        "method": {"name": method},
        "config": {"epochs": 5, "train_examples": None, "test_examples": None, **config},
        "history": history,
        "final": history[-1],
    }


def test_sequences_are_compared_on_the_papers_reading():
    run = sequence_run
    column = {
        "baseline": [run("baseline", seed, (0.80, 0.85)) for seed in (0, 1)],
        "synscaw": [run("synscaw", seed, (0.86, 0.84 + 0.03 * seed)) for seed in (0, 1)],
    }
    cells = sequence_table("imdb_gru", column)
    assert cells["best on test (optimistic)"] == ["85.00 ± 0.00", "86.50 ± 0.71"]
    assert cells["best on validation"] == ["80.00 ± 0.00", "86.00 ± 0.00"]
    assert cells["Δ best on test [95 %]"][1].startswith("+1.50 [")
    assert cells["verdict"][1] == "cannot tell"


def test_the_figure_has_the_rows_of_sequences_too(tmp_path):
    assert sequence_dots(tmp_path) == {}
    for method, gap in (("baseline", 0.0), ("synscaw", 0.02)):
        for seed in (0, 1):
            run = sequence_run(method, seed, (0.80 + gap, 0.85 + gap + seed * gap / 2))
            run |= {"model": {}, "data": {}, "steps_run": 1, "steps_planned": 1}
            place = tmp_path / "laptop" / "imdb_lstm" / method / f"seed{seed}"
            place.mkdir(parents=True)
            (place / "result.json").write_text(json.dumps(run))
    lines = {
        name: {dot.label: dot for dot in rows} for name, rows in sequence_dots(tmp_path).items()
    }
    ours = lines["SynScaW"]["IMDB LSTM"]
    assert ours.value == pytest.approx(-2.5) and ours.low < ours.value < ours.high
    assert ours.published == pytest.approx(-0.48)
    assert len(lines["dropout"]) == 5 and lines["dropout"]["IMDB GRU"].value is None
    far = lines["dropout"]["Epileptic seizure"]
    assert far.published is None and far.direction == 1


@pytest.mark.parametrize(
    ("row", "seeds", "change", "said"),
    [
        ("mnist_gru", (0, 1), {}, "no test"),  # equal differences
        ("mnist_gru", (0,), {}, "cannot tell"),
        ("mnist_gru", (0, 1), {"epochs": 2}, "not comparable"),
        ("mnist_gru", (0, 1), {"train_examples": 200}, "not comparable"),
        ("epileptic_seizure", (0, 1), {}, "not run: needs an accelerator"),
    ],
)
def test_verdicts_on_sequences(row, seeds, change, said):
    column = {
        name: [sequence_run(name, seed, (0.85 + gap, 0.84), **change) for seed in seeds]
        for name, gap in (("baseline", 0.0), ("synscaw", 0.01))
    }
    cells = sequence_table(row, column)
    assert cells["verdict"][1] == said
    assert cells["Δ best on test [95 %]"][1] == "+1.00"


def test_the_eegs_parts_share_no_segment(monkeypatch):
    """Of segments that are told by their level: training, the validation tail, and test."""
    level = np.arange(20, dtype=np.float32)
    segments = Segments(np.repeat(level[:, None], 4097, 1), np.arange(20, dtype=np.int32) % 5, ())
    monkeypatch.setattr(table5_sequences, "load_eeg", lambda: segments)
    fold = table5_sequences.eeg_fold(0)
    train, test = (split.images[:, 0] for split in (fold.train, fold.test))
    assert (len(train), len(test)) == (18 * 57, 2 * 4)
    body, tail = train[: -2 * 57], train[-2 * 57 :]
    sets = [set(np.round(part, 4).tolist()) for part in (body, tail, test)]
    assert [len(part) for part in sets] == [16, 2, 2]
    assert len(set.union(*sets)) == 20
    assert len(set(body[:50].tolist())) > 5  # mixed
