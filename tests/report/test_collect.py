import json

import numpy as np
import pytest

from synscale_jax.report.collect import ResultError, collect, correctness, finished


def result(method="baseline", seed=0, **changed):
    return {
        "model": {"kind": "MLP"},
        "method": {"name": method},
        "config": {"epochs": 24},
        "seed": seed,
        "data": {"name": "mnist", "hash": "a"},
        "status": "finished",
        "steps_run": 10,
        "steps_planned": 10,
        "state_hash": f"{method}{seed}",
        **changed,
    }


@pytest.fixture
def put(tmp_path):
    def write(content, method="baseline", seed=0):
        folder = tmp_path / "mnist-mlp" / method / f"seed{seed}"
        folder.mkdir(parents=True)
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / "result.json").write_text(text)

    return write


def read(folder):
    return collect(folder, ["mnist-mlp"], ["baseline", "synscaw"])["mnist-mlp"]


def test_runs_come_by_method_in_the_order_of_seeds(put, tmp_path):
    for seed in (10, 2, 0):
        put(result(seed=seed), seed=seed)
    column = read(tmp_path)
    assert [run["seed"] for run in column["baseline"]] == [0, 2, 10]
    assert column["synscaw"] == []
    assert list(finished([*column["baseline"], result(seed=3, status="diverged")])) == [0, 2, 10]


def test_two_methods_may_agree_but_not_two_seeds(put, tmp_path):
    """A strength of 0 is the baseline, the natural control."""
    put(result(state_hash="a"))
    put(result("synscaw", state_hash="a"), "synscaw")
    assert [len(runs) for runs in read(tmp_path).values()] == [1, 1]
    put(result(seed=1, state_hash="a"), seed=1)
    with pytest.raises(ResultError, match="ended in the same weights"):
        read(tmp_path)


def test_half_written_result_is_left_out_and_named(put, tmp_path, capsys):
    put('{"model": {', seed=0)
    put("null", seed=2)
    put(result(seed=1), seed=1)
    assert [run["seed"] for run in read(tmp_path)["baseline"]] == [1]
    told = capsys.readouterr().err
    assert "seed0/result.json is no JSON" in told and "move its folder away" in told
    assert "seed2/result.json is no JSON" in told


def test_runs_kept_aside_by_restart_are_no_results(put, tmp_path):
    put(result(), seed="0.old-20260101-000000")
    assert read(tmp_path)["baseline"] == []


@pytest.mark.parametrize(
    ("runs", "told"),
    [
        ([result(steps_run=9)], "finished after 9 of 10 steps"),
        ([result(seed=1)], "holds baseline, seed 1"),
        ([result(method="synscal")], "holds synscal, seed 0"),
        ([{k: v for k, v in result().items() if k != "config"}], "has no 'config'"),
        (
            [result(), result(seed=1, config={"epochs": 200})],
            "differ in config.epochs (24 in baseline, seed 0, 200 in baseline, seed 1)",
        ),
        ([result(), result(seed=1, data={"name": "mnist", "hash": "b"})], "differ in data.hash"),
        (
            [result(), result(seed=1) | {"method": {"name": "baseline", "γ": 1}}],
            "differ in method.γ",
        ),
        ([result(), result(seed=1, state_hash="baseline0")], "one is a copy of the other"),
    ],
)
def test_results_that_do_not_go_together_are_refused(runs, told, put, tmp_path):
    for seed, run in enumerate(runs):
        put(run, seed=seed)
    with pytest.raises(ResultError) as refused:
        read(tmp_path)
    assert told in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("key", ["convolution", "test_correct", "folds", "measured", "versions"])
def test_what_a_table_asks_for_and_a_result_lacks_is_refused_by_name(key, put, tmp_path):
    put(result())
    (run,) = read(tmp_path)["baseline"]
    with pytest.raises(ResultError) as refused:
        run[key]
    told = str(refused.value)
    assert f"seed0/result.json has no {key!r}" in told and "move its folder away" in told
    assert run.get(key) is None and run["seed"] == 0


def folds(figure):
    return {"final": {"figure": [figure, 90.0], "epoch": [2, 2]}}


def without_hash(seed, **changed):
    return {k: v for k, v in result(seed=seed, **changed).items() if k != "state_hash"}


def test_copies_without_a_hash_are_known_by_their_figures(put, tmp_path):
    put(without_hash(0, folds=folds(91.0)), seed=0)
    put(without_hash(1, folds=folds(92.0)), seed=1)
    for seed in (2, 3):  # without figures: nothing tells them apart, and nothing is drawn
        put(without_hash(seed, folds=folds(None), status="diverged"), seed=seed)
    assert len(read(tmp_path)["baseline"]) == 4
    put(without_hash(4, folds=folds(92.0)), seed=4)
    with pytest.raises(ResultError, match=r"baseline, seed 1 and baseline, seed 4 .* is a copy"):
        read(tmp_path)


def test_methods_share_training_settings(put, tmp_path):
    put(result())
    put(result("synscaw", config={"epochs": 12}), method="synscaw")
    with pytest.raises(ResultError, match="does not mix protocols"):
        read(tmp_path)


def test_correctness_reads_the_images_back():
    import base64

    truth = np.random.default_rng(0).random(1003) < 0.9
    packed = base64.b64encode(np.packbits(truth).tobytes()).decode()
    np.testing.assert_array_equal(correctness({"test_correct": packed}, 1003), truth)
