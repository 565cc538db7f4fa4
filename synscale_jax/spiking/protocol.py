"""The published protocol: which images are shown, and what their spikes are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from synscale_jax.spiking import encoding
from synscale_jax.spiking.network import Network, NetworkState
from synscale_jax.spiking.training import count_spikes

SILENT, ARTEFACT = -1, -2  # answers that are none


class Examples(NamedTuple):
    """Images as rates, in the order they are shown.

    Attributes:
      rates: float32 (images, inputs), Hz.
      slots: int32 (images,): the class's position among the chosen ones; −1 for noise.
    """

    rates: np.ndarray
    slots: np.ndarray


def class_examples(
    images: np.ndarray, labels: np.ndarray, classes: Sequence[int], count: int, seed: int
) -> Examples:
    """The first images of each class, shuffled together.

    Args:
      images: uint8 (examples, height, width[, 1]).
      labels: int (examples,).
      classes: which labels; their order gives the slots.
      count: how many of each.
      seed: of the order.

    Returns:
      count · classes examples.

    Raises:
      ValueError: for classes that are not in the data, twice, or too small.

    Examples:
      >>> from synscale_jax.data import load_images
      >>> from synscale_jax.spiking import protocol
      >>> digits = load_images("digits").train
      >>> shown = protocol.class_examples(digits.images, digits.labels, (7, 4, 6), 2, seed=0)
      >>> shown.rates.shape, shown.slots.tolist()
      ((6, 64), [1, 1, 2, 2, 0, 0])
    """
    if len(set(classes)) != len(classes) or not classes:
        raise ValueError(f"classes {list(classes)} are no choice: name each once.")
    if count < 1:
        raise ValueError(f"{count} images of each class: ask for 1 or more.")
    chosen = []
    for label in classes:
        where = np.flatnonzero(labels == label)
        if len(where) < count:
            raise ValueError(
                f"class {label} has {len(where)} images here, {count} were asked for: choose "
                f"among {sorted(set(np.asarray(labels).tolist()))} and a smaller number."
            )
        chosen.append(where[:count])
    order = np.random.default_rng(seed).permutation(count * len(classes))
    rates = encoding.pixel_rates(images[np.concatenate(chosen)]).reshape(len(order), -1)
    slots = np.repeat(np.arange(len(classes), dtype=np.int32), count)
    return Examples(rates[order], slots[order])


def noise_sets(mean_rate: float, count: int, seed: int) -> dict[str, Examples]:
    """The two sets of noise, 28 × 28 pixels, with the mean rate of digits.

    The original draws and stretches 16 500 images and shows the last 1500; so does this, in
    proportion.

    Args:
      mean_rate: of the training images, Hz.
      count: images of a set.
      seed: of the noise.

    Returns:
      ``"delta noise"`` and ``"blurred noise"``.
    """
    nobody = np.full(count, -1, np.int32)
    key = jax.random.key(seed)
    return {
        name: Examples(
            encoding.noise_rates(key, 11 * count, mean_rate, sigma=sigma)[-count:], nobody
        )
        for name, sigma in (("delta noise", 0.0), ("blurred noise", 2.0))
    }


def slot_counts(network: Network, counts: np.ndarray | Array) -> np.ndarray:
    """Spikes of each class's excitatory neurons together.

    Args:
      network: what it is.
      counts: int (images, 2 n), from :func:`count_spikes`.

    Returns:
      int (images, classes).
    """
    excitatory = np.asarray(counts)[:, : network.neurons]
    return excitatory.reshape(len(excitatory), network.classes, -1).sum(-1)


def answers(by_slot: np.ndarray, true_slots: np.ndarray | None = None) -> np.ndarray:
    """The slot with most spikes, the lowest of equals; −1 where none spiked.

    Args:
      by_slot: int (images, classes), from :func:`slot_counts`.
      true_slots: given, the original's scoring, whose table had the true slot as one more column
        when it looked for the maximum: an image whose best slot spiked less often than the number
        of its true slot has no answer (−2).

    Returns:
      int (images,).

    Examples:
      >>> import numpy as np
      >>> from synscale_jax.spiking import protocol
      >>> by_slot = np.array([[3, 1, 3], [0, 0, 0], [0, 0, 1]])
      >>> print(protocol.answers(by_slot))
      [ 0 -1  2]
      >>> print(protocol.answers(by_slot, true_slots=np.array([0, 1, 2])))
      [ 0 -1 -2]
    """
    best = by_slot.max(1)
    answer = np.where(best > 0, by_slot.argmax(1), SILENT)
    if true_slots is None:
        return answer
    return np.where((best > 0) & (best < true_slots), ARTEFACT, answer)


def show(
    network: Network, state: NetworkState, sets: Mapping[str, Examples], key: Array
) -> tuple[NetworkState, dict[str, dict[str, Any]]]:
    """Show test sets one after the other, as the original does, and add up.

    Args:
      network: what it is.
      state: after training.
      sets: name -> images; digits of slots −1 and noise have no accuracy.
      key: of the input spikes; the same for all sets.

    Returns:
      The state after it, and for each set ``spikes``, ``by_slot``, ``silent``, ``images`` and,
      where there are slots, ``accuracy`` and ``legacy_accuracy`` as fractions.
    """
    report = {}
    for name, examples in sets.items():
        state, counts = count_spikes(network, state, examples.rates, key)
        by_slot = slot_counts(network, counts)
        report[name] = {
            "images": len(by_slot),
            "spikes": int(by_slot.sum()),
            "by_slot": by_slot.sum(0).tolist(),
            "silent": int((by_slot.sum(1) == 0).sum()),
        }
        if examples.slots.min() >= 0:
            report[name] |= {
                "accuracy": float(np.mean(answers(by_slot) == examples.slots)),
                "legacy_accuracy": float(
                    np.mean(answers(by_slot, examples.slots) == examples.slots)
                ),
            }
    return state, report
