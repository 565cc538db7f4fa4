import base64
import csv
import io

import numpy as np
import pytest

from synscale_jax.report import cell_layout, cell_tables, tables
from synscale_jax.report.cell_tables import ERROR, divergence, entries, primary_family
from synscale_jax.report.collect import ResultError

IMAGES = 400


def run(method, seed, share, status="finished", weights=0.05):
    """A result whose network errs on a share of the images, the same ones for near shares."""
    hard = np.argsort(np.random.default_rng(7).random(IMAGES))
    correct = np.ones(IMAGES, bool)
    correct[hard[: round(share * IMAGES)]] = False
    accuracy = float(correct.mean())
    fit = {"divergence": weights, "distance": weights**0.5, "ks": 0.1, "zeros": 0.0}
    likelihood = {"lognormal": 1.0, "half_normal": 2.0, "gamma": 1.5}
    measured = {"weights": {"head": fit, "pooled": {**fit, "likelihood": likelihood}}}
    return {
        "seed": seed,
        "status": status,
        "method": {"name": method},
        "config": {"test_examples": IMAGES, "epochs": 24},
        "final": {"test_accuracy": accuracy},
        "best_on_test": {"accuracy": {"test_accuracy": accuracy + 0.01}},
        "test_correct": base64.b64encode(np.packbits(correct).tobytes()).decode(),
        "measured": {"initial": measured, "final": measured},
    }


def column(gap, seeds=5, weights=0.05):
    """Baseline at 20 % error and a method that differs by a gap, both with the same seed effect."""
    shares = [0.2 + 0.01 * seed for seed in range(seeds)]
    return {
        "baseline": [run("baseline", seed, share) for seed, share in enumerate(shares)],
        "synscaw": [
            run("synscaw", seed, share + gap, weights=weights) for seed, share in enumerate(shares)
        ],
    }


PAPER = {"baseline": 20.0, "synscaw": 15.0}
WEIGHTS = divergence("weights")


def test_entry_holds_mean_spread_and_paired_difference():
    entry = entries(column(-0.05), ERROR, PAPER, comparable=True)["synscaw"]
    np.testing.assert_allclose(entry.final.mean, 17.0)
    np.testing.assert_allclose(entry.final.deviation, np.std(range(5), ddof=1))
    np.testing.assert_allclose(entry.best.mean, 16.0)
    assert entry.interval.low < 17.0 < entry.interval.high
    np.testing.assert_allclose(entry.difference.mean, -5.0)
    assert -10 < entry.difference.low < -5 < entry.difference.high < 0
    assert (entry.published, entry.published_difference) == (15.0, -5.0)


@pytest.mark.parametrize(
    ("gap", "comparable", "said"),
    [
        (-0.05, True, "confirms"),
        (-0.15, True, "confirms the sign, not the size"),
        (0.05, True, "contradicts"),
        (-0.05, False, "not comparable"),
    ],
)
def test_verdicts(gap, comparable, said):
    assert entries(column(gap), ERROR, PAPER, comparable)["synscaw"].verdict == said


def test_what_was_not_run_or_diverged_is_marked():
    cells = column(-0.05)
    cells["synscaw"] = [run("synscaw", 0, 0.1, status="diverged"), run("synscaw", 1, 0.16)]
    cells["dropout"] = []
    found = entries(cells, ERROR, PAPER, comparable=True)
    assert found["synscaw"].diverged == 1 and found["synscaw"].final.count == 1
    assert found["synscaw"].difference is None and found["synscaw"].verdict == "cannot tell"
    assert found["dropout"].verdict.startswith("not run: needs")
    labels = {"baseline": "baseline", "synscaw": "SynScaW", "dropout": "dropout"}
    text = tables.markdown(cell_layout.overview({"cell": found}, labels, 2))
    assert "| dropout | not run |" in text and "16.00 (n 1); paper 15.00" in text
    assert "1, 1 diverged" in tables.markdown(cell_layout.details(found, labels, ERROR))


def test_one_seed_has_a_difference_without_an_interval():
    found = entries(column(-0.05, seeds=1), ERROR, PAPER, comparable=True)
    entry = found["synscaw"]
    assert entry.interval is None and entry.difference is None and entry.verdict == "cannot tell"
    np.testing.assert_allclose([entry.mean_difference, entry.relative], [-5.0, -25.0])
    table = cell_layout.details(found, {"baseline": "baseline", "synscaw": "SynScaW"}, ERROR)
    assert table["Δ to baseline"] == ["", "-5.00"] and "95 % of Δ" not in table


def test_divergence_is_judged_by_its_direction():
    paper = {"baseline": 0.2, "synscaw": 0.1}
    assert entries(column(0, weights=0.04), WEIGHTS, paper, True)["synscaw"].verdict == (
        "confirms the sign"
    )
    assert entries(column(0, weights=0.06), WEIGHTS, paper, True)["synscaw"].verdict == (
        "contradicts the sign"
    )
    entry = entries(column(0), WEIGHTS, paper, True)["synscaw"]
    assert entry.more["best fit"] == "half-normal" and entry.initial.mean == 0.05
    assert entry.more["held-out nats a value over the log-normal"] == (
        "half-normal +1.000, gamma +0.500"
    )


def test_divergence_by_layer_stands_beside_that_before_training():
    cells = column(0, weights=0.04)
    cells["synscaw"].append(run("synscaw", 9, 0.2, status="diverged", weights=9.0))  # left out
    cells["synscaw"][0]["measured"]["final"]["weights"]["head"]["divergence"] = 0.09
    shown = cell_layout.by_layer(cells, {"baseline": "baseline", "synscaw": "SynScaW"}, WEIGHTS)
    assert shown == {
        "layer": ["`head`"],
        "before training": ["0.0500"],
        "baseline": ["0.0500"],
        "SynScaW": ["0.0500"],
    }
    assert cell_layout.by_layer(cells, {"synscaw": "SynScaW"}, ERROR) == {}
    for of_seed in cells["synscaw"]:  # a method may have other layers
        found = of_seed["measured"]["final"]["weights"]
        of_seed["measured"] = {"final": {"weights": {"head/encoder": found["head"]}}}
    shown = cell_layout.by_layer(cells, {"synscaw": "SynScaW"}, WEIGHTS)
    assert shown["layer"] == ["`head`", "`head/encoder`"] and shown["SynScaW"][0] == ""


def test_primary_family_is_adjusted_over_all_six_whatever_was_run():
    better, same = column(-0.05, seeds=10), column(0.0, seeds=10)
    results = {
        "mnist-mlp": {**better, "synscal": [run("synscal", s, 0.2 + 0.01 * s) for s in range(10)]},
        "cifar10-mlp": {**same, "synscal": []},
    }
    family = {(test.cell, test.method): test for test in primary_family(results)}
    assert len(family) == 6
    np.testing.assert_allclose(family["mnist-mlp", "synscaw"].p, 2 / 2**10)
    np.testing.assert_allclose(family["mnist-mlp", "synscaw"].adjusted, 6 * 2 / 2**10)
    assert family["mnist-mlp", "synscal"].p == 1
    assert family["cifar10-mlp", "synscal"].p is None
    text = tables.markdown(cell_layout.tests(list(family.values()), {}))
    assert text.count("not run") == 2 * 3


def test_primary_family_keeps_to_its_ten_seeds_and_counts_divergence():
    more = column(-0.05, seeds=22)  # more pairs than sign flips can be listed for
    more["synscaw"][3]["status"] = "diverged"
    more["baseline"][4]["status"] = "diverged"
    test = primary_family({"mnist-mlp": more})[0]
    assert (test.method, test.seeds, test.diverged) == ("synscaw", 8, 2)
    np.testing.assert_allclose(test.p, 2 / 2**8)
    assert cell_layout.tests([test], {})["pairs"] == ["8 of 10, 2 diverged"]


def test_relative_difference_is_to_the_baseline_of_the_same_seeds():
    cells = column(-0.05, seeds=5)
    cells["synscaw"] = cells["synscaw"][:2]  # beside baselines of 20 and 21 %
    entry = entries(cells, ERROR, PAPER, comparable=True)["synscaw"]
    np.testing.assert_allclose(entry.relative, -5 / 20.5 * 100)


def test_answers_to_another_number_of_images_are_refused():
    short = column(-0.05)
    for runs in short.values():
        for result in runs:
            result["config"]["test_examples"] = None  # as if to the whole test set
            result["data"] = {"name": "mnist"}
    with pytest.raises(ResultError, match="kept answers to about 400 test images, not to 10000"):
        entries(short, ERROR, PAPER, comparable=True)


def test_divergence_that_could_not_be_fitted_is_no_verdict():
    cells = column(0)
    fit = cells["synscaw"][0]["measured"]["final"]["weights"]["pooled"]
    cells["synscaw"][0]["measured"] = {
        when: {"weights": {"pooled": {**fit, "divergence": None, "ks": None}}}
        for when in ("initial", "final")
    }
    paper = {"baseline": 0.2, "synscaw": 0.1}
    entry = entries(cells, divergence("weights"), paper, comparable=True)["synscaw"]
    assert entry.verdict == "cannot tell" and entry.more["KS distance"] == "nan"
    del cells["synscaw"][0]["measured"]
    with pytest.raises(ResultError, match="without measuring how log-normal"):
        entries(cells, divergence("weights"), paper, comparable=True)


def test_prediction_says_whether_a_print_is_like_ours():
    cells = {"mnist-port_mlp": column(0.0)}
    near, far = (
        cell_tables.predictions(cells, {"mnist-port_mlp": {"baseline": figure}})[0]
        for figure in (21.0, 40.0)
    )
    table = cell_layout.prediction_table([near, far], {})
    assert table["the print lies"] == ["inside", "outside"]


def test_csv_has_every_number_unrounded():
    found = {"MNIST × MLP": entries(column(-0.05), ERROR, PAPER, comparable=True)}
    rows = list(csv.DictReader(io.StringIO(cell_layout.as_csv(found))))
    assert [row["method"] for row in rows] == ["baseline", "synscaw"]
    assert float(rows[1]["difference_low"]) == found["MNIST × MLP"]["synscaw"].difference.low
    assert rows[0]["difference_mean"] == "" and rows[1]["published"] == "15.0"
    assert float(rows[1]["relative"]) == found["MNIST × MLP"]["synscaw"].relative
    found = {"MNIST × MLP": entries(column(0), WEIGHTS, PAPER, comparable=True)}
    rows = list(csv.DictReader(io.StringIO(cell_layout.as_csv(found))))
    assert rows[0]["best fit"] == "half-normal" and rows[0]["KS distance"] == "0.100"
