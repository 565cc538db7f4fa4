import csv
import io

import pytest
from scipy import stats

from synscale_jax.report import tables

LABELS = {"baseline": "baseline", "synscaw": "SynScaW", "synscal": "SynScaL"}
PAPER = {"baseline": 40.85, "synscaw": 38.07}


def run(seed, accuracy, best=None, status="finished", split="test", minutes=2.0):
    row = {"test_accuracy": accuracy}
    return {
        "seed": seed,
        "status": status,
        "wall_seconds": 60 * minutes,
        "final": row,
        f"best_on_{split}": {"accuracy": {"test_accuracy": best or accuracy}},
    }


def lost(seed):
    return {"seed": seed, "status": "diverged", "wall_seconds": 6.0}


def table(results, paper=PAPER, chosen_on="test"):
    return tables.columns(tables.method_rows(results, LABELS, paper), chosen_on)


RESULTS = {
    "baseline": [run(0, 0.60), run(1, 0.61), run(2, 0.62)],
    "synscaw": [run(2, 0.64), run(0, 0.615), run(1, 0.63)],  # another order of seeds
    "synscal": [run(0, 0.60, best=0.65), run(1, 0.60), lost(2)],
}


def test_cells():
    found = table(RESULTS)
    assert found["method"] == ["baseline", "SynScaW", "SynScaL"]
    assert found["seeds"] == ["3", "3", "2 (1 of 3 diverged)"]
    assert found["test error %, last epoch"][0] == "39.00 ± 1.00"
    assert found["test error %, best_on_test"][2] == "37.50 ± 3.54"
    assert found["published error %"] == ["40.85", "38.07", ""]
    assert found["published Δ"] == ["", "-2.78", ""]
    assert found["minutes a run"] == ["2.0", "2.0", "2.0"]


def test_difference_pairs_runs_of_one_seed():
    interval = stats.ttest_1samp([-1.5, -2.0, -2.0], 0).confidence_interval(0.95)
    _, synscaw, synscal = table(RESULTS)["Δ to baseline, last epoch"]
    assert synscaw == f"-1.83 ({interval.low:+.2f} to {interval.high:+.2f})"
    assert synscal.startswith("+0.50 (")  # seeds 0 and 1 alone


def test_difference_over_fewer_seeds_than_the_mean_says_so():
    results = {"baseline": [run(0, 0.6), lost(1)], "synscaw": [run(0, 0.65), run(1, 0.1)]}
    assert table(results)["Δ to baseline, last epoch"] == ["", "-5.00, 1 seed"]


def test_method_that_never_finished_is_shown():
    found = table({"baseline": [run(0, 0.6)], "synscaw": [lost(0)]})
    assert found["seeds"][1] == "0 (1 of 1 diverged)"
    assert found["test error %, last epoch"][1] == "none finished"
    assert "Δ to baseline, last epoch" not in found


def test_without_a_baseline_there_is_no_difference():
    found = table({"synscaw": [run(0, 0.6)]}, paper={"synscaw": 38.07})
    assert "Δ to baseline, last epoch" not in found and "published Δ" not in found


def test_without_published_figures_there_are_no_columns_for_them():
    assert not [name for name in table(RESULTS, paper={}) if "published" in name]


def test_choice_on_validation_is_named_and_its_test_error_shown():
    results = {"baseline": [run(0, 0.6, best=0.7, split="validation")]}
    assert table(results, chosen_on="validation")["test error %, best_on_validation"] == ["30.00"]


def test_markdown_has_a_row_a_method_and_even_columns():
    lines = tables.markdown(table(RESULTS)).splitlines()
    assert len(lines) == 5 and len({line.count("|") for line in lines}) == 1
    assert lines[3].startswith("| SynScaW | 3 |")


def test_plain_text_aligns_columns():
    lines = tables.plain(table(RESULTS)).splitlines()
    assert (
        len(
            {line.index(seeds) for line, seeds in zip(lines, ("seeds", "3", "3", "2"), strict=True)}
        )
        == 1
    )


def test_csv_keeps_unrounded_numbers():
    rows = tables.method_rows(RESULTS, LABELS, PAPER)
    parsed = list(csv.DictReader(io.StringIO(tables.as_csv(rows))))
    assert [row["method"] for row in parsed] == list(LABELS.values())
    assert float(parsed[1]["difference_mean"]) == pytest.approx(-11 / 6)
    assert parsed[0]["difference_mean"] == "" and parsed[2]["paper"] == ""
    assert parsed[2]["note"] == "1 of 3 diverged" and parsed[2]["final_count"] == "2"
