"""Images as spikes, and the noise that has their mean."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

MAX_RATE = 63 * 256 / 255  # Hz: of a white pixel


class InputSpikes(NamedTuple):
    """Spikes of inputs in the order of time, as far as ``count``.

    Attributes:
      step: shape=(k,), int32, ascending: counted from the beginning of the presentation.
      input: shape=(k,), int32: who spikes.
      count: shape=(), int32: how many of the k are spikes; the rest pads.
    """

    step: Array
    input: Array
    count: Array  # pyright: ignore[reportIncompatibleMethodOverride]


def pixel_rates(images: np.ndarray) -> np.ndarray:
    """Firing rates of pixels: ⌊p / 4⌋ · 256 / 255 Hz, as the original's casts have it.

    Args:
      images: uint8 (..., height, width[, 1]) or already flat (..., pixels).

    Returns:
      float32 of the same shape, Hz, from 0 to 63.2.

    Raises:
      ValueError: if the images are not uint8.

    Examples:
      >>> import numpy as np
      >>> from synscale_jax.spiking import encoding
      >>> print(encoding.pixel_rates(np.array([0, 3, 4, 255], np.uint8)))
      [ 0.         0.         1.0039216 63.247063 ]
    """
    images = np.asarray(images)
    if images.dtype != np.uint8:
        raise ValueError(f"pixels are {images.dtype}, rates are made of uint8: give 0 to 255.")
    return (images // 4).astype(np.float32) * np.float32(256 / 255)


def noise_rates(
    key: Array,
    count: int,
    mean_rate: float,
    *,
    sigma: float = 0.0,
    shape: tuple[int, int] = (28, 28),
) -> np.ndarray:
    """Rates of noise images whose mean is that of digits.

    Pixels are uniform in [0, 1), blurred by a Gaussian filter inside each image where ``sigma`` is
    positive and then stretched to [0, 1] over the whole set. They are divided by one number for
    all, so that the mean rate is as asked, and cast to bytes as digits are; the truncation takes
    some 6 % of the mean, as in the original.

    Args:
      key: of the noise.
      count: how many images.
      mean_rate: of digits, Hz, over all pixels of :func:`pixel_rates`.
      sigma: of the filter in pixels; 0 leaves the pixels uncorrelated, the original's other set
        has 2.
      shape: height and width.

    Returns:
      float32 (count, height · width), Hz.

    Raises:
      ValueError: for no images, or a mean rate that is not positive.
    """
    if count < 1:
        raise ValueError(f"{count} noise images: ask for 1 or more.")
    if not mean_rate > 0:
        raise ValueError(f"a mean rate of {mean_rate} Hz cannot be matched: give a positive one.")
    noise = np.asarray(jax.random.uniform(key, (count, *shape)), np.float64)
    if sigma > 0:
        from scipy.ndimage import gaussian_filter

        noise = gaussian_filter(noise, (0, sigma, sigma))
        noise = (noise - noise.min()) / (noise.max() - noise.min())
    scale = mean_rate * 255 / 256 / noise.mean()
    return (np.floor(noise * scale).astype(np.float32) * np.float32(256 / 255)).reshape(count, -1)


def check_rates(rates: np.ndarray | Array, inputs: int, dt: float) -> np.ndarray:
    """Rates as float32 (images, inputs), refused where they are none.

    Raises:
      ValueError: for no images, another number of inputs, or rates that are negative, not finite
        or more than one spike a step.
    """
    array = np.asarray(rates, np.float32)
    if array.ndim != 2 or array.shape[1] != inputs:
        raise ValueError(
            f"rates have shape {array.shape}, the network {inputs} inputs: give (images, {inputs})."
        )
    if len(array) == 0:
        raise ValueError("there are no images: give at least one.")
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high * dt / 1000 < 1):
        raise ValueError(
            f"rates reach from {low:.4g} to {high:.4g} Hz: keep them at 0 or more and below one "
            f"spike a step ({1000 / dt:.4g} Hz)."
        )
    return array


def cumulative_intensity(rates: Array, dt: float) -> Array:
    """Σ −log(1 − r dt) up to and with each input: what :func:`draw_spikes` draws from.

    A Poisson process of this intensity a step has at least one point in a step with probability
    r · dt: it spikes as a Bernoulli draw in every step would.
    """
    return jnp.cumsum(-jnp.log1p(-rates * (dt / 1000)), axis=-1)


def draw_spikes(
    key: Array, cumulative: Array, begin: Array, end: int, size: int
) -> tuple[InputSpikes, Array]:
    """The next ``size`` points of all inputs' Poisson processes together.

    The processes are one with the sum of their intensities, whose gaps are exponential and whose
    points belong to input i with probability λ_i / Σ λ. That costs a few numbers a spike, where a
    draw for every input and step takes thousands. The same input twice in a step counts once.

    Args:
      key: of this block.
      cumulative: (inputs,), from :func:`cumulative_intensity`.
      begin: where the points before this block ended, in steps.
      end: points from this step on are left out.
      size: how many to draw.

    Returns:
      The spikes, and the place of the last point; the presentation is complete if that is ``end``
      or later, else draw on from there.
    """
    for_gaps, for_inputs = jax.random.split(key)
    total = cumulative[-1]
    gaps = jax.random.exponential(for_gaps, (size,), cumulative.dtype)
    times = begin + jnp.cumsum(gaps) / jnp.where(total > 0, total, 1)
    times = jnp.where(total > 0, times, end)
    drawn = jax.random.uniform(for_inputs, (size,), cumulative.dtype) * total
    below = jnp.minimum(drawn, jnp.nextafter(total, jnp.zeros_like(total)))
    who = jnp.searchsorted(cumulative, below, side="right").astype(jnp.int32)
    step = jnp.minimum(times, end).astype(jnp.int32)
    return InputSpikes(step, who, jnp.sum(times < end)), times[-1]


def spikes_from_raster(raster: np.ndarray) -> InputSpikes:
    """Given spikes in the form that :func:`run` takes.

    Args:
      raster: bool (steps, inputs).

    Returns:
      Its spikes in the order of time.
    """
    step, who = np.nonzero(np.asarray(raster))
    pad = np.zeros(1, np.int32)  # so that no spikes at all have an array, too
    return InputSpikes(
        jnp.asarray(np.concatenate([step.astype(np.int32), pad])),
        jnp.asarray(np.concatenate([who.astype(np.int32), pad])),
        jnp.int32(len(step)),
    )
