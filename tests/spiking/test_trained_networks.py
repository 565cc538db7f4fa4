"""The trained network that comes with the package."""

import numpy as np
import pytest

from synscale_jax import spiking
from synscale_jax.data import DataNotAvailable, load_images
from synscale_jax.spiking import pretrained


def test_loads_and_stays_silent_on_nothing_and_noise():
    network = spiking.load_pretrained()
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 60, (3, 28, 28), dtype=np.uint8)
    shown = np.concatenate([np.zeros((1, 28, 28), np.uint8), noise])
    assert network.predict(shown).tolist() == [-1] * 4


def test_ten_digits_are_answered_as_the_card_says():
    trained = spiking.load_pretrained("mnist_ten")
    assert trained.classes == tuple(range(10)) and trained.state.weights.shape == (784, 100)
    try:
        images, labels = load_images("mnist").test
    except DataNotAvailable as error:
        pytest.skip(str(error))
    right = (trained.predict(images[:200]) == labels[:200]).mean()
    assert abs(right - trained.about["accuracy"]) < 0.105  # three standard errors of 200


def test_writing_and_reading_keep_everything(tmp_path):
    trained = spiking.load_pretrained()
    path = tmp_path / "network.npz"
    pretrained.write_pretrained(
        path, trained.network, trained.state, trained.classes, trained.about
    )
    again = pretrained.read_pretrained(path.read_bytes())
    assert again.network == trained.network and again.about == trained.about
    assert (again.state.weights == trained.state.weights).all()
    assert (again.state.inhibition_delay == trained.state.inhibition_delay).all()


def test_refusals():
    with pytest.raises(ValueError, match="no trained network 'none'"):
        spiking.load_pretrained("none")
    with pytest.raises(ValueError, match=r"shape \(2, 8, 8\)"):
        spiking.load_pretrained().predict(np.zeros((2, 8, 8), np.uint8))
