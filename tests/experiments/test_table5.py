"""Table V's experiments: readings, tests, tables, refusals, on made results and a smallest run."""

import dataclasses
import importlib.util
import json
import pathlib
import signal

import jax
import numpy as np
import pytest
from scipy import stats

from synscale_jax.analysis.significance import (
    corrected_interval,
    corrected_t_test,
    student_t_test,
)
from synscale_jax.data import DataNotAvailable
from synscale_jax.training import methods, table5
from synscale_jax.training import table5_report as report
from synscale_jax.training.folds import EpochMetrics, FoldConfig, FoldProgram
from synscale_jax.training.runs import Interrupted, RunError
from synscale_jax.training.table5 import (
    PAPER_ROWS,
    ROWS,
    make_program,
    readings,
    run_rows,
    table5_methods,
)
from synscale_jax.training.table5_headline import data_set_scores, headline

EXPERIMENTS = pathlib.Path(__file__).parents[2] / "experiments"


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXPERIMENTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def made(method, seed, figure, unit="accuracy", target=None, width=2.0):
    """A result of ten folds, all three readings alike."""
    reading = {"figure": list(figure), "epoch": [7] * 10}
    return {
        "status": "finished",
        "seed": seed,
        "method": {"name": method},
        "config": dataclasses.asdict(FoldConfig()),
        "unit": unit,
        "target": target or {},
        "folds": {"target_range": [width] * 10}
        | {name: reading for name in ("final", "best_on_validation", "best_on_test")},
    }


def test_three_readings_of_one_history():
    test = np.array([[0.5, 0.9], [0.8, 0.9], [0.7, 0.6]])
    validation = np.array([[0.6, 0.4], [0.6, 0.7], [0.5, 0.7]])
    loss = np.array([[0.3, 0.9], [0.4, 0.5], [0.2, 0.4]])
    found = readings(EpochMetrics(loss, validation, loss, test), np.ones(2), classification=True)
    assert found["final"] == {"figure": [70, 60], "epoch": [3, 3]}
    assert found["best_on_test"] == {"figure": [80, 90], "epoch": [2, 1]}  # the first of equals
    assert found["best_on_validation"] == {"figure": [50, 60], "epoch": [1, 3]}  # the least loss
    error = readings(EpochMetrics(loss, validation, loss, test), np.ones(2), classification=False)
    assert error["best_on_test"]["figure"] == [0.5, 0.6]


def test_every_row_of_the_paper_is_there():
    assert len(PAPER_ROWS) == 12
    assert ROWS["red_wine"].published["synscaw"] == 0.09
    assert "confidence_penalty" not in ROWS["red_wine"].published
    names = [method.name for method in table5_methods(FoldConfig(), regression=True)]
    assert names == ["baseline", "dropout", "synscaw", "synscal"]


def test_errors_come_in_the_papers_units():
    share = np.linspace(0.1, 0.2, 10)
    target = {"range": 4.0, "mad": 0.5}
    for unit, factor in (("range", 1), ("raw", 2.0), ("mad", 4.0)):
        row = ROWS["abalone"]._replace(unit=unit)
        found = report.figures(row, [made("baseline", 0, share, unit, target)], "final")
        np.testing.assert_allclose(found.values[0], factor * share)
        np.testing.assert_allclose(found.points[0], 100 * share)


def test_the_corrected_t_of_a_worked_example():
    """Ten folds, two repeats: t with the variance (1/20 + 1/9) s² and 19 degrees of freedom."""
    d = np.array([[1, 2, 3, 2, 1, 2, 3, 2, 1, 3], [2, 2, 1, 0, 2, 3, 2, 1, 2, 5.0]])
    t = d.mean() / np.sqrt(d.var(ddof=1) * (1 / 20 + 1 / 9))
    outcome = corrected_t_test(d)
    assert outcome.statistic == pytest.approx(t)
    assert outcome.p_value == pytest.approx(2 * stats.t.sf(t, 19))
    mean, low, high = corrected_interval(d)
    half = stats.t.ppf(0.975, 19) * d.mean() / t
    assert (mean, low, high) == pytest.approx((2.0, 2.0 - half, 2.0 + half))


@pytest.mark.parametrize("gap", [0.0, 1.0])
def test_no_spread_is_no_test_and_no_verdict(gap):
    column = {
        "baseline": [made("baseline", 0, [99.0] * 10)],
        "synscaw": [made("synscaw", 0, [99.0 + gap] * 10)],
    }
    cells = report.details(ROWS["thyroid"], column, True)
    assert cells["p, Student's t"][1] == cells["p, corrected t"][1] == "no test"
    assert cells["verdict"][1] == "no test"
    assert cells["Δ best on test [95 %]"][1] == f"{gap:+.2f}"  # no interval of no width
    dot = report._dot(ROWS["thyroid"], column, "synscaw", "final")
    assert (dot.value, dot.low, dot.high) == (-gap, None, None)


@pytest.mark.filterwarnings("error")
def test_students_t_where_one_sample_has_no_spread():
    ours, theirs = np.full(10, 100.0), np.array([100.0] * 9 + [93.3])
    outcome = student_t_test(ours, theirs)
    pooled = np.sqrt(theirs.var(ddof=1) / 2 * (2 / 10))
    assert outcome.statistic == pytest.approx((100 - theirs.mean()) / pooled)
    assert outcome.p_value == pytest.approx(2 * stats.t.sf(outcome.statistic, 18))


def test_diverged_runs_have_no_last_epoch_but_a_best_one():
    """A method must not leave the tests by breaking down."""
    base, best = np.arange(90.0, 100.0), np.arange(88.0, 98.0)
    lost = {**made("synscaw", 0, best), "status": "diverged"}
    lost["folds"]["final"] = {"figure": [None] * 5 + [2.0] * 5, "epoch": [100] * 10}
    column = {"baseline": [made("baseline", 0, base)], "synscaw": [lost]}
    cells = report.details(ROWS["thyroid"], column, True)
    line = {name: values[cells["method"].index("SynScaW")] for name, values in cells.items()}
    assert (line["seeds"], line["diverged"], line["last epoch"]) == ("1", "1", "")
    assert line["best on test (optimistic)"] == "92.50 ± 3.03"
    assert line["Δ best on test [95 %]"].startswith("-2.00") and line["verdict"]
    assert report.overview({"thyroid": column}, "final")["SynScaW"] == ["diverged"]
    column["synscaw"].append(made("synscaw", 1, best))
    assert report.overview({"thyroid": column}, "final")["SynScaW"][0].endswith(" (1 diverged) -")
    scores = data_set_scores({"thyroid": {**column, "synscaw": [lost]}}, "best_on_validation")
    assert scores["thyroid"]["synscaw"] == 7.5


def test_methods_without_runs_are_named():
    rows = {name: {"baseline": [made("baseline", 0, [99.0] * 10)]} for name in ("iris", "thyroid")}
    cells = report.details(ROWS["iris"], rows["iris"], True)
    assert dict(zip(cells["method"], cells["verdict"], strict=True)) == {
        "baseline": "",
        "dropout": "not run: needs time",
        "confidence penalty": "not run: needs time",
        "SynScaW": "not run: needs time",
        "SynScaL": "not run: needs time",
    }
    assert "having no figure: dropout on iris" in headline(rows)


@pytest.mark.parametrize("what", ["config", "method"])
def test_rows_of_different_settings_are_refused(tmp_path, what):
    """The tests over data sets take all rows, so all are of one protocol."""
    for row in ("iris", "thyroid"):
        run = made("synscaw", 0, [99.0] * 10)
        run |= {"model": {}, "data": {}, "steps_run": 1, "steps_planned": 1}
        if row == "iris":
            run[what] = {**run[what], "restore_norm" if what == "method" else "epochs": 1}
        place = tmp_path / row / "synscaw" / "seed0"
        place.mkdir(parents=True)
        (place / "result.json").write_text(json.dumps(run))
    with pytest.raises(RunError, match=r"iris and thyroid .* different settings"):
        report.results_below(tmp_path, ("iris", "thyroid"), ("synscaw",))


def test_what_is_compared_is_what_the_runs_say():
    """Not what the command line says that draws them."""
    run = made("baseline", 0, [99.0] * 10)
    assert report.like_the_paper({"baseline": [run]})
    short = {**run, "config": {**run["config"], "epochs": 5}}
    assert not report.like_the_paper({"baseline": [run], "synscaw": [short]})


def test_equal_accuracies_in_other_folds_tie():
    """Of float32 figures: two folds with one mistake of fifteen, or one fold with two."""
    one, two = (100 * float(np.float32(n / 15)) for n in (14, 13))
    results = {
        name: {
            "baseline": [made("baseline", 0, [one] * 2 + [100.0] * 8)],
            "synscaw": [made("synscaw", 0, [two] + [100.0] * 9)],
        }
        for name in ("iris", "thyroid")
    }
    scores = data_set_scores(results, "final")
    assert scores["iris"]["baseline"] == scores["iris"]["synscaw"]
    line = next(line for line in headline(results).split("\n") if "| SynScaW" in line)
    assert line.split(" | ")[1:4] == ["2", "0", "0"] and "no test" in line


def test_seeds_are_paired_and_stars_are_students():
    base = np.arange(90.0, 100.0)
    column = {
        "baseline": [made("baseline", seed, base) for seed in (0, 1)],
        "synscaw": [made("synscaw", 1, base + np.tile([0.5, 1.5], 5))],
    }
    cells = report.details(ROWS["thyroid"], column, True)
    assert cells["Δ best on test [95 %]"][1].startswith("+1.00 [")
    assert cells["seeds"][:2] == ["2", "1"]
    p = stats.ttest_ind(base + np.tile([0.5, 1.5], 5), np.tile(base, 2)).pvalue
    assert cells["p, Student's t"][1] == f"{p:.3f}"
    assert report.overview({"thyroid": column}, "final")["SynScaW"][0].endswith("-")


def test_parkinsons_two_targets_count_once():
    def column(gap):
        return {
            name: [
                made(
                    name,
                    0,
                    [0.1 + gap * (name == "synscaw")] * 10,
                    "raw",
                    {"range": 1.0, "mad": 1.0},
                )
            ]
            for name in ("baseline", "dropout", "synscaw", "synscal")
        }

    results = {name: column(0.01 * i) for i, name in enumerate(PAPER_ROWS[5:])}
    scores = data_set_scores(results, "final")
    assert len(scores) == 6
    assert scores["parkinson"]["synscaw"] == pytest.approx(10.5)
    text = headline(results)
    assert "Friedman, all data sets (6;" in text
    lines = [line for line in text.splitlines() if line.startswith("| SynScaW")]
    differences = [line["synscaw"] - line["baseline"] for line in scores.values()]
    p = stats.wilcoxon(differences).pvalue
    assert f"| {p:.3f} |" in lines[0]
    assert "parkinson" not in data_set_scores({"parkinson_motor": column(0)}, "final")
    del results["parkinson_total"]["synscaw"]
    halves = data_set_scores(results, "final")["parkinson"]
    assert "synscaw" not in halves and "dropout" in halves


def test_data_sets_are_compared_on_the_same_seeds():
    column = {
        "baseline": [made("baseline", seed, [90.0 + seed] * 10) for seed in (0, 1)],
        "synscaw": [made("synscaw", 1, [91.0] * 10)],
    }
    assert data_set_scores({"iris": column}, "final") == {"iris": {"baseline": 9.0, "synscaw": 9.0}}
    column["dropout"] = [made("dropout", 2, [90.0] * 10)]
    assert data_set_scores({"iris": column}, "final") == {}


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """The smallest experiment: three folds of diabetes, two epochs, two methods."""
    module = load("table5")
    config = dataclasses.replace(
        module.PRESETS["smoke"],
        rows=("diabetes",),
        methods=("baseline", "synscaw"),
        output=tmp_path_factory.mktemp("table5"),
    )
    module.main(config)
    return module, config


def test_results_carry_where_they_come_from(smoke):
    _, config = smoke
    path = config.folder / "diabetes" / "synscaw" / "seed0" / "result.json"
    result = json.loads(path.read_text())
    assert result["status"] == "finished" and len(result["history"]) == 2
    assert result["steps_run"] == result["steps_planned"]
    assert result["method"]["decay_epochs"] == 40
    assert {"versions", "commit", "cpu", "device", "wall_seconds"} <= result.keys()
    assert len(result["folds"]["best_on_test"]["figure"]) == 3
    other = json.loads((path.parents[2] / "baseline" / "seed0" / "result.json").read_text())
    assert len(result["state_hash"]) == len(result["config_hash"]) == 64
    for name in ("state_hash", "config_hash"):
        assert result[name] != other[name]


def test_a_finished_row_is_not_run_again(smoke, monkeypatch):
    module, config = smoke
    monkeypatch.setattr(jax, "jit", None)  # nothing is compiled
    module.main(config)
    for kind in ("md", "csv", "tex", "png"):
        assert (config.folder / f"table5.{kind}").stat().st_size > 100
    text = (config.folder / "table5.md").read_text()
    assert "not comparable" in text and "best on test (optimistic)" in text


def test_a_row_without_data_is_left_out_and_the_others_are_run(smoke, monkeypatch, capsys):
    module, config = smoke

    def load(row, whole=table5.load_table):
        if row == "life_expectancy" or row == "thyroid":
            raise DataNotAvailable("put the file there")
        return whole(row)

    monkeypatch.setattr(table5, "load_table", load)
    module.main(dataclasses.replace(config, rows=("life_expectancy", *config.rows)))
    said = capsys.readouterr().err.strip()
    assert said == "Life expectancy is left out: put the file there"
    assert "Not run: Life expectancy." in (config.folder / "table5.md").read_text()
    module.main(dataclasses.replace(config, draw=True))
    with pytest.raises(RunError, match=r"^Life expectancy is .* there\nThyroid is left out"):
        module.main(dataclasses.replace(config, rows=("life_expectancy", "thyroid")))


@pytest.mark.parametrize("done", [True, False])
def test_other_settings_are_refused_in_the_same_folder(smoke, done):
    module, config = smoke
    path = config.folder / "diabetes" / "baseline" / "seed0" / "result.json"
    held = path.read_text()
    if not done:
        path.unlink()
    other = dataclasses.replace(
        config, train=dataclasses.replace(config.train, epochs=3), methods=("baseline",)
    )
    with pytest.raises(RunError, match=r"epochs was 2 and is now 3"):
        module.main(other)
    path.write_text(held)


@pytest.mark.parametrize(
    ("part", "name"),
    [("method", "restore_norm"), ("data", "hash"), ("model", "activation"), ("config", "loss")],
)
def test_a_finished_run_of_another_identity_is_refused(smoke, part, name):
    module, config = smoke
    path = config.folder / "diabetes" / "synscaw" / "seed0" / "result.json"
    held = path.read_text()
    result = json.loads(held)
    result[part][name] = "another"
    path.write_text(json.dumps(result))
    with pytest.raises(RunError, match=rf"{part}\.{name} was another and is now") as refused:
        module.main(config)
    assert "\n" not in str(refused.value)
    del result[part][name]  # as in results of an older version
    path.write_text(json.dumps(result))
    assert run_rows(config.folder, config.rows, config.methods, (0,), config.train) == []
    path.write_text(held)


def test_a_damaged_result_is_kept_aside_and_run_again(smoke):
    module, config = smoke
    path = config.folder / "diabetes" / "baseline" / "seed0" / "result.json"
    held = path.read_text()
    path.write_text(held[:100])
    module.main(config)
    assert path.with_name("result.json.damaged").read_text() == held[:100]
    assert json.loads(path.read_text())["state_hash"] == json.loads(held)["state_hash"]


def test_a_signal_after_the_last_epoch_loses_no_run(smoke, monkeypatch):
    module, config = smoke
    path = config.folder / "diabetes" / "baseline" / "seed0" / "result.json"
    before = json.loads(path.read_text())
    path.unlink()
    monkeypatch.setattr(table5.Signals, "received", signal.SIGINT)
    with pytest.raises(Interrupted):  # the program stops, with this run done
        module.main(config)
    assert json.loads(path.read_text())["state_hash"] == before["state_hash"]


def test_losses_of_logits_are_refused_for_a_regression():
    table = table5.load_table("diabetes")
    with pytest.raises(ValueError, match="confidence penalty is a loss of logits"):
        FoldProgram(table, [methods.confidence_penalty()], FoldConfig())


def test_rows_without_groups_are_refused_in_one_sentence():
    with pytest.raises(RunError, match="diabetes has no groups"):
        make_program("diabetes", ["baseline"], FoldConfig(grouped=True))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"rows": ("iris", "iris")}, "repeats itself"),
        ({"seeds": (-1,)}, "negative seed"),
    ],
)
def test_bad_command_lines_are_one_sentence(change, sentence):
    module = load("table5")
    with pytest.raises(ValueError, match=sentence):
        dataclasses.replace(module.PRESETS["smoke"], **change)
