"""Poisson input and noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from synscale_jax.spiking import encoding


def draw_all(key, rates, dt, steps, size):
    cumulative = encoding.cumulative_intensity(jnp.asarray(rates, jnp.float32), dt)
    spikes, place = encoding.draw_spikes(key, cumulative, jnp.zeros([]), steps, size)
    return np.asarray(spikes.step), np.asarray(spikes.input), int(spikes.count), float(place)


def test_each_step_is_a_bernoulli_draw_of_rate_times_dt():
    rates = np.array([0.0, 5.0, 20.0, 63.0])
    step, who, count, place = draw_all(jax.random.key(0), rates, 0.5, 200_000, 16_384)
    assert place >= 200_000 and (np.diff(step[:count]) >= 0).all()
    raster = np.zeros((200_000, 4), bool)
    raster[step[:count], who[:count]] = True
    expected = rates * 0.5 / 1000
    error = np.sqrt(expected / 200_000)
    assert (np.abs(raster.mean(0) - expected) <= 4 * error).all()
    gaps = np.diff(np.flatnonzero(raster[:, 3]))
    np.testing.assert_allclose(gaps.std() / gaps.mean(), 1, atol=0.05)  # memoryless


def test_no_rate_no_spike():
    _, _, count, place = draw_all(jax.random.key(0), np.zeros(3), 0.1, 100, 64)
    assert count == 0 and place >= 100


def test_an_incomplete_block_says_so():
    _, _, count, place = draw_all(jax.random.key(0), np.full(10, 60.0), 0.1, 3500, 32)
    assert count == 32 and place < 3500


def test_noise_has_the_mean_of_digits_but_for_truncation():
    for sigma in (0.0, 2.0):
        rates = encoding.noise_rates(jax.random.key(0), 200, 8.0, sigma=sigma)
        assert rates.shape == (200, 784) and 0.90 < rates.mean() / 8.0 < 1.0
    assert encoding.noise_rates(jax.random.key(0), 200, 8.0).max() < 15.1
    assert rates.std() < 2  # blurred: weakly contrasted


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        (np.full((1, 4), -1.0), "rates reach from -1"),
        (np.full((1, 4), np.nan), "keep them at 0"),
        (np.full((1, 4), 20_000.0), "spike a step"),
        (np.zeros((0, 4)), "no images"),
        (np.zeros((2, 3)), r"shape \(2, 3\)"),
    ],
)
def test_bad_rates_are_refused(rates, said):
    with pytest.raises(ValueError, match=said):
        encoding.check_rates(rates, 4, 0.1)


def test_images_must_be_bytes():
    with pytest.raises(ValueError, match="float64"):
        encoding.pixel_rates(np.zeros((1, 28, 28)))
