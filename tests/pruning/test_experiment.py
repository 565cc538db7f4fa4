"""The experiments end to end, as small as they go: results, table, and nothing run twice."""

import dataclasses
import json
import pathlib
import sys

import jax
import pytest

EXPERIMENTS = pathlib.Path(__file__).parents[2] / "experiments"


@pytest.fixture
def experiments(monkeypatch):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    with jax.debug_key_reuse(False):  # rules are compared under the same draws
        yield
    for name in ("noise_prune", "noise_prune_rnn", "noise_prune_report", "noise_prune_figures"):
        sys.modules.pop(name, None)


def test_linear_networks(experiments, tmp_path, capsys):
    import noise_prune

    config = dataclasses.replace(
        noise_prune.PRESETS["smoke"], seeds=(0, 1), sizes=(30, 10), long_range=20, density=0.5,
        runs=2, more_runs=2, steps=40, record_every=10, sweep_neurons=40, sweep_densities=(0.5,),
        directed_sizes=(30, 10), local_sizes=(30, 10), local_samples=(10, 50), output=tmp_path,
    )  # fmt: skip
    noise_prune.main(config)
    first = capsys.readouterr().out
    paths = sorted(tmp_path.rglob("seed*.json"))
    assert len(paths) == 5
    result = json.loads(paths[0].read_text())
    assert result["spectrum"]["noise/row_sum"]["mean"] > 0
    assert result["commit"] and result["config"]["density"] == 0.5
    assert len(result["dynamics"]["times"]) == 4
    table = (tmp_path / "README.md").read_text()
    assert "noise/row_sum" in table and "of 2" in table
    assert len(list(tmp_path.glob("*.png"))) == 4
    noise_prune.main(config)
    assert "seed 0" in first and ": " not in capsys.readouterr().out.split("# Noise")[0]


@pytest.mark.slow
def test_recurrent_networks(experiments, tmp_path, monkeypatch):
    import noise_prune_rnn

    from synscale_jax.data import images

    digits = images.load_images("digits")
    small = dataclasses.replace(
        digits,
        train=images.Split(digits.train.images.repeat(4, 1).repeat(4, 2)[:, 2:30, 2:30],
                           digits.train.labels),
        test=images.Split(digits.test.images.repeat(4, 1).repeat(4, 2)[:, 2:30, 2:30],
                          digits.test.labels),
    )  # fmt: skip
    monkeypatch.setattr(noise_prune_rnn, "load_images", lambda name: small)
    config = dataclasses.replace(
        noise_prune_rnn.PRESETS["smoke"], cells=("elman",), hidden=8, batch=16, densities=(0.5,),
        fine_tuning_steps=2, train_images=160, output=tmp_path,
    )  # fmt: skip
    noise_prune_rnn.main(config)
    result = json.loads((tmp_path / "rnn" / "elman" / "seed0.json").read_text())
    assert {row["method"] for row in result["rows"]} == set(noise_prune_rnn.METHODS)
    exact = [row["kept"] for row in result["rows"] if row["method"] == "magnitude"]
    assert exact == [pytest.approx(0.5)]
    assert "magnitude" in (tmp_path / "README.md").read_text()
