import importlib.util
import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import job
import numpy as np
import optax
import pytest
from PIL import Image

from synscale_jax.data import DataNotAvailable
from synscale_jax.data.imagenet import DEVIATION, MEAN, open_folder
from synscale_jax.models import ResNet
from synscale_jax.training import methods
from synscale_jax.training.loop import train
from synscale_jax.training.runs import Interrupted, RunError
from synscale_jax.training.streaming import (
    LEARNING_RATE,
    StreamConfig,
    StreamProgram,
    plateau_sgd,
)

SETTINGS = {
    "steps": 8,
    "epoch_steps": 4,
    "batch": 4,
    "learning_rate": 0.05,
    "crop": 32,
    "chunk_steps": 3,  # 3, 1, 3, 1
    "plateau_epochs": 1,
    "plateau_threshold": 0.9,  # no second epoch is that much better
}


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Three classes of noise around a colour, 6 training and 3 test images each."""
    root = tmp_path_factory.mktemp("images") / "noise"
    random = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 3)):
        for label in range(3):
            (root / split / f"class{label}").mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 120, (80, 70, 3))
                pixels[..., label] += 100
                image = Image.fromarray(pixels.astype(np.uint8))
                image.save(root / split / f"class{label}" / f"{number}.jpg")
    return root


def tiny(classes=3):
    return ResNet((1, 1), classes, width=4)


def make(folder, **settings):
    config = StreamConfig(**{**SETTINGS, **settings})
    return StreamProgram(tiny(), methods.synscaw(0.01, every_k=3), config, open_folder(folder))


@pytest.fixture(scope="session")
def stream(folder):
    return make(folder)


@pytest.fixture(scope="session")
def whole(stream, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stream") / "run"
    with jax.numpy_rank_promotion("raise"), jax.debug_key_reuse(True):
        return train(stream, 0, folder, measures=LEARNING_RATE, show_progress=False)


def test_a_run_is_recorded_like_any_other(whole, stream):
    assert whole["status"] == "finished"
    assert (whole["steps_run"], whole["steps_planned"]) == (8, 8)
    assert whole["model"]["kind"] == "ResNet" and whole["method"]["name"] == "synscaw"
    assert whole["data"] == {"name": "noise", "hash": stream.data_hash}
    assert whole["config"]["batch"] == 4 and whole["config"]["least_rate"] == 1e-4
    assert len(whole["first_losses"]) == 8 and np.isfinite(whole["first_losses"]).all()
    assert [row["epoch"] for row in whole["history"]] == [1, 2]
    assert set(whole["history"][-1]["mean_gap"]) == {
        layer.name for layer in stream.layers if not layer.output
    }
    assert whole["final"] == whole["history"][-1] and whole["best_on_test"]


def test_the_rate_falls_when_the_error_does_not(whole):
    """The first epoch is the best so far; the second is no better, and the rate is divided."""
    rates = [row["learning_rate"] for row in whole["history"]]
    np.testing.assert_allclose(rates, [0.05, 0.005], rtol=1e-6)


@pytest.mark.parametrize("chunk", [1, 3])
def test_a_stopped_run_resumes_to_the_bit(chunk, stream, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "chunk", stream.chunk)  # put back afterwards
    job.before_chunk(stream, chunk, lambda: job.signal.raise_signal(job.signal.SIGTERM))
    with pytest.raises(Interrupted):
        train(stream, 0, tmp_path / "run", measures=LEARNING_RATE, show_progress=False)
    result = train(stream, 0, tmp_path / "run", measures=LEARNING_RATE, show_progress=False)
    for name in ("state_hash", "test_correct", "first_losses"):
        assert result[name] == whole[name]


def test_seeds_differ_and_share_the_program(stream, whole, tmp_path):
    other = train(stream, 1, tmp_path / "run", show_progress=False)
    assert other["state_hash"] != whole["state_hash"]
    assert stream._train_step._cache_size() == stream._test_step._cache_size() == 1


def test_evaluation_is_over_every_test_image_once(stream):
    """9 images in batches of 4: what fills the last batch counts for nothing."""
    state = stream.init(jax.random.key(0))
    found = stream.evaluate(state, stream.splits.test)
    assert found.correct.shape == (9,)
    singles = [stream.evaluate(state, One(stream.splits.test, i)) for i in range(9)]
    np.testing.assert_allclose(found.loss, np.mean([one.loss for one in singles]), rtol=1e-5)
    np.testing.assert_array_equal(found.correct, np.concatenate([one.correct for one in singles]))


class One:
    def __init__(self, source, index):
        self.source, self.index = source, index

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.source[self.index]


def test_pixels_are_normalised_by_colour(stream):
    images = np.zeros((1, 1, 2, 3), np.uint8)
    images[:, :, 1] = 255
    expected = [[-np.divide(MEAN, DEVIATION), (1 - np.array(MEAN)) / DEVIATION]]
    np.testing.assert_allclose(stream.pixels(images)[0], expected, rtol=1e-5)


def test_divergence_names_step_and_layer(stream, tmp_path, monkeypatch):
    step = stream._train_step

    def harmed(state, *batch):
        state, *values = step(state, *batch)
        if int(state.step) == 6:
            head = {**state.params["head"], "kernel": state.params["head"]["kernel"] * jnp.nan}
            state = state._replace(params={**state.params, "head": head})
        return state, *values

    monkeypatch.setattr(stream, "_train_step", harmed)
    result = train(stream, 0, tmp_path / "run", show_progress=False)
    assert result["status"] == "diverged" and result["steps_run"] == 6
    assert "step 6 (epoch 2) left numbers that are not finite" in result["message"]
    assert "the weights of layer 'head'" in result["message"]


def test_sgd_is_he_et_als():
    """Momentum, weight decay and a rate divided after epochs without progress, by hand."""
    config = StreamConfig(
        steps=12, epoch_steps=3, learning_rate=0.1, plateau_epochs=1, least_rate=1e-3
    )
    optimizer, params = plateau_sgd(config), jnp.array([1.0, -2.0])
    state, weights, momentum = optimizer.init(params), np.array([1.0, -2.0]), np.zeros(2)
    errors = [0.9] * 3 + [0.5] * 3 + [0.5] * 3 + [0.4] * 3 + [0.4] * 6
    rates = [0.1] * 8 + [0.01] * 6 + [1e-3] * 4  # a plateau's last batch has the new rate already
    for step, (error, rate) in enumerate(zip(errors, rates, strict=True)):
        grads = np.array([0.3, 0.1]) * (-1) ** step
        updates, state = optimizer.update(jnp.array(grads), state, params, value=error)
        params = optax.apply_updates(params, updates)
        momentum = 0.9 * momentum + grads + 1e-4 * weights
        weights = weights - rate * momentum
        np.testing.assert_allclose(params, weights, rtol=2e-5, err_msg=f"step {step}")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch": 0}, "batch=0 is not possible"),
        ({"steps": 10}, "steps=10 are no whole number .*: use 12 steps"),
        ({"test_examples": 0}, "test_examples=0 is not possible"),
        ({"learning_rate": 1e-5}, "learning_rate=1e-05 cannot fall to least_rate=0.0001"),
        ({"momentum": 1.0}, "momentum=1.0 or weight_decay=0.0001 is not possible"),
        ({"plateau_threshold": 0.0}, "plateau_threshold=0.0 is no relative decrease"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        StreamConfig(**{**SETTINGS, **settings})


def test_settings_that_the_data_cannot_meet_are_refused(folder):
    with pytest.raises(ValueError, match="batch=19 is larger than the 18 training examples"):
        make(folder, batch=19)
    with pytest.raises(ValueError, match="10 examples cannot be taken of 9"):
        make(folder, test_examples=10)


def test_an_image_damaged_meanwhile_ends_the_run_by_its_name(stream, folder, tmp_path, monkeypatch):
    copy = tmp_path / "copy"
    for file in folder.rglob("*.jpg"):
        (copy / file.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
        (copy / file.relative_to(folder)).write_bytes(file.read_bytes())
    monkeypatch.setattr(stream, "splits", stream.splits._replace(train=open_folder(copy).train))
    monkeypatch.setattr(stream, "_reading", None)
    (copy / "train" / "class1" / "3.jpg").write_bytes(b"damaged")
    with pytest.raises(DataNotAvailable, match=r"class1/3\.jpg cannot be read as an image"):
        train(stream, 0, tmp_path / "run", show_progress=False)


@pytest.fixture
def experiment(monkeypatch):
    path = pathlib.Path(__file__).parents[2] / "experiments" / "imagenet_resnet50.py"
    spec = importlib.util.spec_from_file_location("imagenet_resnet50", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def parse(experiment, *arguments):
    from synscale_jax.training.command_line import resolve

    return resolve(experiment.Config, experiment.PRESETS, [*map(str, arguments)])


def test_the_paper_preset_is_the_papers(experiment):
    config = parse(experiment)
    assert config == experiment.PRESETS["paper"] == parse(experiment, "--preset", "paper")
    train_config = config.train
    assert train_config.steps == 600_000 and train_config.epochs == 120
    assert (train_config.learning_rate, train_config.momentum) == (0.1, 0.9)
    assert (train_config.weight_decay, train_config.crop) == (1e-4, 224)
    assert [method.name for method in config.chosen_methods()] == ["baseline", "synscaw", "synscal"]
    errors = experiment.PUBLISHED.errors
    assert errors == {"baseline": 24.76, "synscaw": 24.01, "synscal": 24.63}


def test_missing_images_end_in_one_sentence(experiment, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(RunError, match="holds no imagenet2012 in the array_record format"):
        experiment.main(parse(experiment, "--output", tmp_path / "out"))
    with pytest.raises(RunError, match=r"there is no folder .*nowhere/train"):
        experiment.main(parse(experiment, "--images", tmp_path / "nowhere"))


def test_smoke_with_a_small_network(experiment, folder, tmp_path, monkeypatch, capsys):
    """Every step of the way, table and learning curves."""
    monkeypatch.setattr(experiment, "resnet50", tiny)
    arguments = ["--preset", "smoke", "--images", folder, "--output", tmp_path / "out"]
    arguments += ["--steps", 2, "--epoch-steps", 1, "--batch", 4, "--test-examples", 6]
    experiment.main(parse(experiment, *arguments, "--methods", "baseline"))
    text = (tmp_path / "out" / "imagenet_resnet50_smoke.md").read_text()
    assert "| steps | 600000 | 2 | deviates |" in text and "nothing for these images" in text
    assert "24.76" not in text and "| SynScaL γ | 1.0 | 1.0 |  |" in text
    result = json.loads((tmp_path / "out" / "baseline" / "seed0" / "result.json").read_text())
    assert result["status"] == "finished" and result["data"]["name"] == "noise"
    assert [row["learning_rate"] for row in result["history"]] == [0.01, 0.01]
    pixels = np.asarray(Image.open(tmp_path / "out" / "imagenet_resnet50_smoke.png"))
    assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 20
    assert "settings deviate" in capsys.readouterr().out
