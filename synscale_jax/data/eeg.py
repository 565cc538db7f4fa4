"""The Bonn EEG set: 500 segments, cut into windows that never straddle two of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int
from numpy import ndarray

from synscale_jax.data._readers import eeg_segments

WINDOW = 512  # samples, 2.9 s at 173.61 Hz
STRIDE = 64
TEST_CHUNKS = 4


class Segments(NamedTuple):
    """The recordings.

    Attributes:
      signals: float32 array (500, 4097), in microvolts.
      labels: int32 array (500,), the five sets in alphabetical order.
      class_names: the five sets' names, A (files Z001 to Z100) to E (files S).
    """

    signals: ndarray
    labels: ndarray
    class_names: tuple[str, ...]


class Windows(NamedTuple):
    """Examples cut from segments.

    Attributes:
      inputs: float32 array (windows, 512).
      labels: int32 array (windows,).
      segment: int32 array (windows,): which segment each was cut from.
    """

    inputs: ndarray
    labels: ndarray
    segment: ndarray


def load_eeg() -> Segments:
    """Loads the Bonn set from one zip with the 500 texts of the five sets, in any folders.

    Raises:
      DataNotAvailable: if it is not in the cache; the message says what to put there.

    References:
      Andrzejak et al., Physical Review E 64, 061907, 2001.
    """
    return Segments(*eeg_segments())


def training_windows(segments: Segments, chosen: Int[ndarray, " segments"]) -> Windows:
    """Overlapping windows of 512 samples with a stride of 64 from whole segments.

    Args:
      segments: the recordings.
      chosen: which of them.

    Returns:
      57 windows a segment.
    """
    return _windows(segments, chosen, np.arange(0, segments.signals.shape[1] - WINDOW + 1, STRIDE))


def evaluation_windows(segments: Segments, chosen: Int[ndarray, " segments"]) -> Windows:
    """Four windows a segment, one from the middle of each of its four chunks.

    The paper evaluates four chunks separately and does not say how a chunk of 1024 samples enters a
    network for 512; the middle of the chunk is ours.
    """
    chunk = segments.signals.shape[1] // TEST_CHUNKS
    starts = np.arange(TEST_CHUNKS) * chunk + (chunk - WINDOW) // 2
    return _windows(segments, chosen, starts)


def standardised(
    windows: Float32[ndarray, "windows samples"], of: Float32[ndarray, "others samples"]
) -> Float32[ndarray, "windows samples"]:
    """Windows by mean and deviation of the training windows."""
    return ((windows - of.mean()) / of.std()).astype(np.float32)


def _windows(segments: Segments, chosen: ndarray, starts: ndarray) -> Windows:
    views = np.lib.stride_tricks.sliding_window_view(segments.signals, WINDOW, axis=1)
    inputs = views[np.ix_(chosen, starts)].reshape(-1, WINDOW)
    segment = np.repeat(chosen, len(starts)).astype(np.int32)
    return Windows(np.ascontiguousarray(inputs), segments.labels[segment], segment)
