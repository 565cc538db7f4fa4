"""The comparison end to end on scikit-learn's digits, and the tables made of it."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from synscale_jax.training.plasticity_jobs import (
    Features,
    Study,
    _convolutions,
    best_rate,
    responses,
    root_mean_square,
    run_study,
    units_folder,
    view_of,
)
from synscale_jax.training.plasticity_runs import NotYet, load_arrays, load_variables
from synscale_jax.training.plasticity_studies import GROUPS
from synscale_jax.training.plasticity_units import UnitsConfig

pytestmark = pytest.mark.slow  # compiles a dozen programs

TRIED = ("fcn", "oja_single", "oja_clean", "simple_cnn", "cnn_fa", "units_clean", "random_standard")


@pytest.fixture(scope="module")
def rows():
    every = [row for group in GROUPS.values() for row in group()]
    chosen = [row for row in every if row.name in TRIED]
    (tuned,) = [row for row in every if row.name == "mlp_alignment"]
    return [*chosen, dataclasses.replace(tuned, rates=(1e-4, 1e-2))]


@pytest.fixture(scope="module")
def study(rows, tmp_path_factory):
    made = Study(
        tmp_path_factory.mktemp("study"),
        "digits",
        seeds=(0,),
        units=UnitsConfig(units=16, epochs=10, batch=200),
        shrink=40,
        most_epochs=2,
    )
    with jax.numpy_rank_promotion("raise"), jax.debug_key_reuse(True):
        assert run_study(made, rows) == 0
    return made


def test_every_row_has_a_result_and_is_not_run_again(study, rows):
    paths = [study.folder / row.name / "seed0" / "result.json" for row in rows]
    times = [path.stat().st_mtime_ns for path in paths]
    run_study(study, rows)
    assert [path.stat().st_mtime_ns for path in paths] == times


def test_rate_is_chosen_on_validation(study, rows):
    row = next(row for row in rows if row.rates)
    assert best_rate(study, row) == 1e-2  # 1e-4 learns nothing in two epochs
    with pytest.raises(NotYet):
        best_rate(study, dataclasses.replace(row, rates=(1e-4, 5.0)))
    assert best_rate(study, rows[0]) is None


def test_only_kernels_of_the_published_hybrid_are_copied(study):
    folder = study.folder / "simple_cnn" / "seed0"
    copied = _convolutions(folder, ("kernel",))
    assert {name: set(part) for name, part in copied.items()} == {
        "conv0": {"kernel"},
        "conv1": {"kernel"},
    }
    trained = load_variables(folder)["params"]["conv0"]["kernel"]
    np.testing.assert_array_equal(copied["conv0"]["kernel"], trained)


def test_responses_are_power_units(study):
    weights = jnp.asarray(load_arrays(units_folder(study, 0) / "weights.npz")["weights"])
    images = study.images.test.images[:7]
    drive = images.reshape(7, -1) / 255 @ np.asarray(weights)
    np.testing.assert_allclose(
        responses(weights, images, "drive", 1.0), drive, rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        responses(weights, images, "response", 2.0), np.maximum(drive, 0) ** 2, rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize("units", ["competing", "random"])
def test_scaled_responses_have_one_scale_whatever_the_units(study, rows, units):
    row = dataclasses.replace(next(r for r in rows if r.name == "units_clean"), units=units)
    train, test = Features(study).of(row, 0)
    assert root_mean_square(train.inputs) == pytest.approx(1, rel=1e-4)
    bare = Features(study).of(dataclasses.replace(row, source="response"), 0)
    ratio = root_mean_square(bare[0].inputs)
    assert not 0.5 < ratio < 2
    np.testing.assert_allclose(ratio * test.inputs, bare[1].inputs, rtol=1e-3, atol=1e-3 * ratio)


def test_views(study, rows):
    images = study.images
    pixels = images.train.images
    for source, low, mean in (("unit", 0.0, None), ("signed", -1.0, None), ("centred", None, 0.0)):
        view = view_of(dataclasses.replace(rows[0], source=source), images)
        seen = view.scale * pixels - view.shift
        if low is not None:
            assert seen.min() == low and seen.max() == pytest.approx(1.0)
        if mean is not None:
            np.testing.assert_allclose(seen.mean(0), 0, atol=1e-5)


def test_report(study, rows, monkeypatch):
    monkeypatch.syspath_prepend(pathlib.Path(__file__).parents[2] / "experiments")
    report = __import__("bioplausible_report")
    text = report.report(study, rows)
    for row in rows:
        assert f"| {row.label} | {row.kind} | 1 |" in text
    for name in ("light", "units"):
        assert (study.folder / f"{name}.png").stat().st_size > 10_000
    assert report.verdict("fcn", [89.0, 90.0], [], "mnist") == "88.5 to 90.5: yes"
    assert report.verdict("gupta3_2", [70.0], [89.0], "mnist") == "90 to 93.5: no"
