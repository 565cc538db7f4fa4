import csv
import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from synscale_jax.report.plots import COLORS
from synscale_jax.training.command_line import resolve, run_experiment

SCRIPT = pathlib.Path(__file__).parents[2] / "experiments" / "cifar100_resnet.py"
sys.path.insert(0, str(SCRIPT.parent))

import cifar100_resnet as experiment  # noqa: E402

PRESETS = experiment.PRESETS


def parse(*arguments):
    return resolve(experiment.Config, PRESETS, list(arguments))


@pytest.fixture
def offline(tmp_path):
    """The environment of a machine without data and without network."""
    nowhere = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy")}
    nowhere |= {name.upper(): address for name, address in nowhere.items()}
    folders = {"TFDS_DATA_DIR": tmp_path / "tfds", "SYNSCALE_DATA_DIR": tmp_path / "cache"}
    return {**os.environ, **nowhere, **{name: str(path) for name, path in folders.items()}}


def run(*arguments, cwd, env=None):
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=600)


PAPER = {
    "epochs": 200,
    "batch": 100,
    "optimizer": "adam",
    "learning_rate": 5e-4,
    "decay": 0.94,
    "decay_epochs": 5,
    "augment": False,
    "normalization": None,
    "train_examples": None,
    "test_examples": None,
    "validation_examples": 0,
}


@pytest.mark.parametrize(
    ("preset", "depth", "deviations"),
    [
        ("paper", 32, {}),
        ("laptop", 20, {"epochs", "train_examples", "test_examples", "validation_examples"}),
        (
            "smoke",
            8,
            {"epochs", "batch", "train_examples", "test_examples", "validation_examples"},
        ),
    ],
)
def test_preset(preset, depth, deviations):
    config = parse("--preset", preset)
    assert config == PRESETS[preset] == parse(f"--preset={preset}")
    assert config.preset == preset and config.depth == depth
    assert config.methods == ("baseline", "synscaw", "synscal") and config.seeds == (0,)
    assert config.synscaw.scaling_rate == 0.01 and config.synscal.scaling_rate == 1.0
    settings = dataclasses.asdict(config.train)
    assert {name for name, value in PAPER.items() if settings[name] != value} == set(deviations)


def test_every_setting_can_be_overridden():
    config = parse("--preset", "smoke", "--depth", "14")
    assert config == dataclasses.replace(PRESETS["smoke"], depth=14)
    config = parse(
        *("--preset=smoke", "--epochs", "7", "--seeds", "3", "1", "--methods", "synscal"),
        *("--synscaw.every-k", "epoch", "--synscaw.target", "0.1", "--synscal.scaling-rate", "0.5"),
        *("--output", "here", "--no-fallback", "--shortcut", "zero_pad"),
    )
    assert config.train.epochs == 7 and config.seeds == (3, 1) and config.methods == ("synscal",)
    assert config.synscaw.every_k == "epoch" and config.synscaw.target == 0.1
    assert config.synscal.scaling_rate == 0.5 and config.shortcut == "zero_pad"
    assert config.output == pathlib.Path("here") and not config.fallback


def test_a_cpu_gets_the_laptop_preset():
    assert parse().preset == "laptop"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--preset", "fast"], "--preset fast is unknown: use one of smoke, laptop, paper."),
        (["--synscaw.scaling-rate", "-1"], "scaling_rate=-1.0 is no rate: use a number of 0"),
        (["--synscal.scaling-rate", "-1"], "scaling_rate=-1.0 is no rate: use a number of 0"),
        (["--depth", "15"], "must be 6n + 2"),
        (["--epochs", "0"], "epochs=0 is not possible: use 1 or more."),
        (["--seeds", "1", "1"], "seeds=(1, 1) is empty or repeats itself"),
        (["--seeds", "-1"], "has a negative seed"),
        (["--preset", "smoke", "--batch", "1001"], "batch=1001 is larger than the"),
        (["--preset", "smoke", "--output", "file"], "choose another folder with --output."),
        (["--preset", "smoke", "--output", "file/below"], "file is no folder"),
    ],
)
def test_impossible_wishes_are_one_sentence(
    arguments, told, monkeypatch, tmp_path, capsys, small_cifar100
):
    del small_cifar100
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
    with pytest.raises(SystemExit) as refused:
        run_experiment(experiment.main, experiment.Config, PRESETS)
    text = str(refused.value)
    assert text.startswith("error: ") and told in text and "\n" not in text
    assert [path.name for path in tmp_path.iterdir()] == ["file"]  # nothing has begun


@pytest.fixture
def small_cifar100(monkeypatch):
    """Random pictures in the place of CIFAR-100."""
    from synscale_jax.data import ImageSet, Split
    from synscale_jax.training import comparison

    rng = np.random.default_rng(0)

    def load(name):
        train, test = (
            Split(
                rng.integers(0, 256, (count, 32, 32, 3)).astype(np.uint8),
                rng.integers(0, 100, count).astype(np.int32),
            )
            for count in (1500, 500)
        )
        return ImageSet(name, train, test, tuple(map(str, range(100))), "0" * 64)

    monkeypatch.setattr(comparison, "load_images", load)


def test_unknown_option_and_help(capsys):
    with pytest.raises(SystemExit) as refused:
        parse("--deepness", "3")
    assert refused.value.code not in (0, None)
    with pytest.raises(SystemExit) as helped:
        parse("--help")
    assert helped.value.code == 0
    text = capsys.readouterr().out
    for option in ("--preset", "--depth", "--epochs", "--seeds", "--synscaw.scaling-rate"):
        assert option in text
    assert "train.epochs" not in text


def assert_outputs(folder, name, methods=("baseline", "SynScaW", "SynScaL")):
    """Table, CSV and PNG are there, and show what they should."""
    text = (folder / f"{name}.md").read_text()
    assert text.startswith(f"# {name}\n")
    assert [f"| {method} | 1 |" in text for method in methods] == [True] * len(methods)
    rows = list(csv.DictReader((folder / f"{name}.csv").open()))
    assert [row["method"] for row in rows] == list(methods)
    assert all(0 < float(row["final_mean"]) < 100 for row in rows)
    pixels = np.asarray(Image.open(folder / f"{name}.png").convert("RGB"))
    assert pixels.shape == (930, 1350, 3)
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20
    for color in (COLORS[method.lower()] for method in methods):
        near = np.abs(pixels / 255 - to_rgb(color)).max(-1) < 0.02
        assert near.mean() > 2e-4, color
    return text, rows


def test_offline_machine_gets_digits_and_hears_so(offline, tmp_path):
    """Every step of the way, over digits."""
    done = run("--preset", "smoke", cwd=tmp_path, env=offline)
    assert done.returncode == 0, done.stderr
    assert "GOING ON WITH scikit-learn's DIGITS INSTEAD" in done.stderr and "!!!!" in done.stderr
    assert "Traceback" not in done.stderr and "examples/s" in done.stderr
    assert "baseline" in done.stdout and "cifar" not in done.stdout.lower()
    folder = tmp_path / "runs" / "digits_resnet8_smoke"
    text, _ = assert_outputs(folder, "digits_resnet8_smoke")
    assert "Data: digits (6e5771d022ff)" in text and "Published: nothing for digits." in text
    # The command that was given is the only place where the other name may stand.
    assert "cifar" not in text.replace("cifar100_resnet.py --preset smoke", "").lower()
    assert "40.85" not in text
    assert not [path for path in (tmp_path / "runs").rglob("*") if "cifar" in path.name.lower()]
    results = list(folder.glob("*/seed0/result.json"))
    assert len(results) == 3
    for path in results:
        result = json.loads(path.read_text())
        assert result["data"]["name"] == "digits" and result["status"] == "finished"
        del result["command"]
        assert "cifar100" not in json.dumps(result).lower()  # the stem is called cifar
        assert list((path.parent / "checkpoints").iterdir())


def test_no_fallback_stops(offline, tmp_path):
    done = run("--preset", "smoke", "--no-fallback", cwd=tmp_path, env=offline)
    assert done.returncode != 0 and "--no-fallback: stopping here" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_smoke_preset_on_cifar100(tmp_path):
    from synscale_jax.data import DataNotAvailable, load_images

    try:
        load_images("cifar100", download=False)
    except DataNotAvailable as reason:
        pytest.skip(str(reason))
    done = run("--preset", "smoke", "--output", tmp_path / "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text, rows = assert_outputs(tmp_path / "out", "cifar100_resnet8_smoke")
    assert "paper, table I" in text and "| epochs | 200 | 3 | deviates |" in text
    assert [row["paper"] for row in rows] == ["40.85", "38.07", "40.88"]
    assert "Δ to baseline" in done.stdout and "settings deviate" in done.stdout
