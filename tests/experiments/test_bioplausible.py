"""Settings, probes and the zoo's export of the comparison, on what no training is needed for."""

import dataclasses
import importlib.util
import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from synscale_jax import zoo as networks
from synscale_jax.data import ImageSet, Split
from synscale_jax.models.convnet import FCN, SIMPLE, DropoutCNN
from synscale_jax.training.plasticity_jobs import Study, units_folder
from synscale_jax.training.plasticity_runs import save_arrays

EXPERIMENTS = pathlib.Path(__file__).parents[2] / "experiments"


@pytest.fixture(autouse=True)
def beside_each_other(monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENTS)


def load(name):
    """A script as a module; under a name of its own, there is a package called zoo as well."""
    full = f"experiment_{name}"
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, EXPERIMENTS / f"{name}.py")
        sys.modules[full] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[full])
    return sys.modules[full]


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("bioplausible", {"units": 1}, "rank=2 is larger than units=1"),
        ("bioplausible", {"units": 0}, "units=0 is not possible"),
        ("bioplausible", {"seeds": (-1,)}, r"seeds=\(-1,\)"),
        ("bioplausible_probes", {"seeds": (-1,)}, r"seeds=\(-1,\)"),
        ("bioplausible_probes", {"scaling_rate": float("nan")}, "scaling_rate=nan"),
        ("bioplausible_probes", {"images": 0}, "images=0"),
        ("bioplausible_probes", {"points": 30}, "points=30 are too few"),
        ("zoo", {"seeds": (-1,)}, r"seeds=\(-1,\)"),
        ("zoo", {"names": ("cifar10_fcn",)}, "there is no network 'cifar10_fcn'"),
        ("bioplausible", {"only": ("units_clen",)}, "use e.g. units_clean, units_clean_fa"),
    ],
)
def test_impossible_settings_are_refused_before_anything_runs(name, settings, message):
    with pytest.raises(ValueError, match=message):
        load(name).Config(**settings)


def test_what_is_asked_of_rows_depends_on_the_depth_the_units_and_their_neighbours():
    report = load("bioplausible_report")

    def runs(accuracy, units=2000):
        row = {"test_accuracy": accuracy / 100}
        return [{"final": row, "best": row, "units": {"units": units}}]

    def asked(name, **results):
        return report.asked_for(name, results, "mnist")

    assert asked("gupta1_4_p10", gupta1_4_p10=runs(88)) == "78 to 87: no"
    assert asked("gupta3_2_p90", gupta3_2_p90=runs(89.5)) == "89 to 100: yes"
    assert asked("gupta2_3", gupta2_3=runs(89.5)) == "90 to 93.5: no"
    assert asked("gupta2_3_p20", gupta2_3_p20=runs(50)) == ""
    assert asked("units_power", units_power=runs(94)) == "96.5 to 100: no"
    assert asked("units_power", units_power=runs(94, 400)) == "93 to 100: yes"
    both = {"units_power": runs(97), "units_power_fa": runs(95.5)}
    assert asked("units_power_fa", **both) == "within 2 of 97.00: yes"
    assert asked("units_power_fa", **both | {"units_power_fa": runs(94.9)}).endswith("no")


@pytest.mark.parametrize("data", ["mnist", "cifar10"])
def test_smoke_of_the_zoo_trains_the_fcn_of_either_image_set(data):
    assert load("zoo").Config(preset="smoke", data=data).chosen() == (f"{data}_fcn",)


def test_verdicts_on_attacks_are_those_of_the_printed_curves():
    probes = load("bioplausible_probes")
    for name, printed in probes.PRINTED.items():
        assert probes.verdict(name, np.array(printed)).endswith(": yes")
        assert probes.verdict(name, np.linspace(97, 20, 7)).endswith(": no")
    assert probes.verdict("competing units, mended, before tanh", np.zeros(7)) == ""


@pytest.fixture
def tiny():
    """Images as MNIST's, so few that nothing need be trained."""
    key = np.random.default_rng(0)

    def split(count):
        images = key.integers(0, 256, (count, 28, 28, 1), np.uint8)
        return Split(images, np.arange(count, dtype=np.int32) % 10)

    return ImageSet("mnist", split(40), split(40), tuple("0123456789"), "none")


def finished(folder, params, accuracy=0.5, seed=0, **config):
    """A run's folder as it is left, with these parameters."""
    folder.mkdir(parents=True)
    flat = {
        f"params/{name}/{leaf}": value
        for name, part in params.items()
        for leaf, value in part.items()
    }
    save_arrays(folder / "params.npz", flat)
    result = {
        "seed": seed,
        "final": {"test_accuracy": accuracy},
        "config": {"slope": 0.01, "epochs": 5, **config},
        "data": {"hash": "none"},
        "commit": "none",
    }
    (folder / "result.json").write_text(json.dumps(result))


def drawn(model, seed=0):
    return model.init(jax.random.key(seed), jnp.zeros((1, 28, 28, 1)))["params"]


def test_attacks_and_tsne_of_networks_that_are_there(tiny, tmp_path, monkeypatch):
    probes = load("bioplausible_probes")
    monkeypatch.setattr(Study, "images", tiny)
    config = probes.Config(
        preset="smoke",
        probes=("attack", "tsne", "filters"),
        seeds=(0,),
        images=20,
        points=35,
        runs=tmp_path,
    )
    study = probes.comparison_of(config).study()
    finished(tmp_path / "simple_cnn" / "seed0", drawn(DropoutCNN(SIMPLE, 10)))
    units = units_folder(study, 0)
    finished(units, {})
    save_arrays(units / "weights.npz", {"weights": np.eye(784, 12, dtype=np.float32)})
    head = {"head": {"kernel": np.ones((12, 10), np.float32)}}
    finished(tmp_path / "units_clean" / "seed0", head, slope=37.0)
    with pytest.raises(
        probes.RunError, match=r"units_power_v2_long.*--only units_power_v2_long first"
    ):
        probes.attack_all(config, study)
    finished(tmp_path / "units_power_v2_long" / "seed0", head)
    for probe in config.probes:  # what was found before stays
        probes.main(dataclasses.replace(config, probes=(probe,)))
    text = (tmp_path / "probes" / "README.md").read_text()
    assert "| competing units as published | ours |" in text and "35 test images" in text
    assert "| random units | 12 |" in text
    for name in ("attack.png", "tsne.png", "selectivity.png", "saliency.png"):
        assert (tmp_path / "probes" / name).stat().st_size > 5_000
    found = json.loads((tmp_path / "probes" / "attack.json").read_text())["results"]
    for runs in found.values():
        accuracy = runs[0]["accuracy"]
        assert len(accuracy) == 7 and accuracy[0] == max(accuracy)


def test_selectivity_of_units_for_all_for_one_and_for_none():
    filters = load("bioplausible_filters")
    labels = np.array([0, 0, 1, 2])
    answers = np.array([[1.0, 1, 0, 2], [1, 3, 0, 0], [1, 0, 0, 0.5], [1, 0, 0, 0.5]])
    found = filters.class_selectivity(answers, labels)
    np.testing.assert_allclose(found, [0, 1, np.nan, 1 / 3])


def test_saliency_is_the_gradient_of_the_winning_score():
    filters = load("bioplausible_filters")
    kernel = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    images = np.full((2, 2, 2, 3), 100, np.uint8)
    seen = filters.saliency(lambda pixels: pixels.reshape(2, -1) @ kernel, images)
    winner = (images.reshape(2, -1) @ kernel).argmax(-1)
    expected = np.abs(kernel.T[winner]).reshape(images.shape).max(-1)
    np.testing.assert_allclose(seen, expected, rtol=1e-6)


def test_slope_of_each_network_is_in_the_scores_that_are_attacked(tiny, tmp_path, monkeypatch):
    probes = load("bioplausible_probes")
    monkeypatch.setattr(Study, "images", tiny)
    study = Study(tmp_path, "mnist", (0,))
    finished(units_folder(study, 0), {})
    weights = np.abs(np.random.default_rng(1).normal(size=(784, 6)).astype(np.float32)) / 100
    save_arrays(units_folder(study, 0) / "weights.npz", {"weights": weights})
    kernel = np.random.default_rng(2).normal(size=(6, 10)).astype(np.float32)
    for name, slope in (("units_power_v2_long", 0.01), ("units_clean", 37.0)):
        finished(tmp_path / name / "seed0", {"head": {"kernel": kernel}}, slope=slope)
    pixels = tiny.train.images.reshape(40, -1) / np.float32(255)
    response = np.maximum(pixels @ weights, 0) ** 4.5
    published, mended = (probes.power_units(study, 0, published=kind) for kind in (True, False))
    by_hand = 0.01 * response @ kernel
    np.testing.assert_allclose(published[0](pixels), by_hand, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(published[1](pixels), np.tanh(by_hand), rtol=1e-3, atol=1e-4)
    scaled = 37 * response / np.sqrt(np.mean(response**2)) @ kernel
    np.testing.assert_allclose(mended[0](pixels), scaled, rtol=1e-3, atol=1e-2)


def test_median_seed_goes_into_the_zoo_if_the_mean_is_good_enough(tmp_path):
    export = load("zoo")
    study, row = Study(tmp_path, "mnist", (0, 1, 2)), export.row_of("mnist_fcn")
    for seed, accuracy in enumerate((0.93, 0.90, 0.92)):
        params = drawn(FCN((8, 8), 10), seed)
        finished(tmp_path / "fcn" / f"seed{seed}", params, accuracy, seed)
    said = export.put_in("mnist_fcn", study, row, tmp_path / "zoo")
    assert said.startswith("mnist_fcn: 91.67 % of 3 seeds")
    loaded = networks.load("mnist_fcn", folder=tmp_path / "zoo")
    assert loaded.card["seed"] == 2 and loaded.card["test_accuracy"] == 0.92
    jax.tree.map(
        np.testing.assert_array_equal, loaded.variables["params"], drawn(FCN((8, 8), 10), 2)
    )
    worst = dataclasses.replace(study, seeds=(1,))
    (tmp_path / "fcn" / "seed1" / "result.json").write_text(
        (tmp_path / "fcn" / "seed1" / "result.json").read_text().replace("0.9", "0.8")
    )
    said = export.put_in("mnist_fcn", worst, row, tmp_path / "other")
    assert said.endswith("not exported.") and not (tmp_path / "other").exists()
