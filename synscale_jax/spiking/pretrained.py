"""Trained networks that come with the package."""

from __future__ import annotations

import dataclasses
import importlib.resources
import io
import json
import os
import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from synscale_jax.spiking import encoding, protocol
from synscale_jax.spiking.batched import count_spikes_batched
from synscale_jax.spiking.network import Network, NetworkState, initial_state

NAMES = ("mnist_three", "mnist_ten")
_KEPT = ("inputs", "classes", "neurons_per_class", "others_rate", "dt", "decay", "decay_time")


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A trained network.

    Attributes:
      network: what it is.
      state: its weights and delays, at rest.
      classes: the label of each slot.
      about: how it was trained and what it reaches.
    """

    network: Network
    state: NetworkState = dataclasses.field(repr=False)
    classes: tuple[int, ...]
    about: dict[str, object]

    def predict(self, images: np.ndarray, *, seed: int = 0) -> np.ndarray:
        """Labels of images: the class whose neurons spike most.

        Args:
          images: uint8 (k, 28, 28[, 1]) or (28, 28), light on dark as in MNIST.
          seed: of the input spikes.

        Returns:
          int (k,) labels, or one for one image; −1 where no neuron spiked, as on most noise.

        Raises:
          ValueError: for images of another size or type, or none.
        """
        images = np.asarray(images)
        one = images.ndim == 2
        pixels = encoding.pixel_rates(images[None] if one else images)
        if pixels[0:1].size != self.network.inputs:
            raise ValueError(
                f"images have shape {images.shape}: give uint8 of 28 × 28 pixels, one or several."
            )
        rates = pixels.reshape(len(pixels), -1)
        counts = count_spikes_batched(self.network, self.state, rates, jax.random.key(seed))
        slots = protocol.answers(protocol.slot_counts(self.network, counts))
        labels = np.where(slots < 0, -1, np.asarray(self.classes)[slots])
        return labels[0] if one else labels


def load_pretrained(name: str = "mnist_three") -> Pretrained:
    """Load a network that comes with the package; its card is docs/spiking.md.

    Args:
      name: ``"mnist_three"``, digits 7, 4 and 6, or ``"mnist_ten"``, all digits.

    Returns:
      The network, with :meth:`Pretrained.predict`.

    Raises:
      ValueError: if there is no such network.

    Examples:
      >>> from synscale_jax import spiking
      >>> trained = spiking.load_pretrained("mnist_three")
      >>> trained.classes, trained.state.weights.shape
      ((7, 4, 6), (784, 30))
    """
    if name not in NAMES:
        raise ValueError(f"there is no trained network {name!r}: use one of {', '.join(NAMES)}.")
    file = importlib.resources.files("synscale_jax.spiking").joinpath(f"checkpoints/{name}.npz")
    return read_pretrained(file.read_bytes())


def read_pretrained(content: bytes) -> Pretrained:
    """Read what :func:`write_pretrained` wrote; nothing in the file can run code."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        about = json.loads(str(arrays["about"]))
        network = Network(**about.pop("network"))
        state = initial_state(network, jax.random.key(0), weights=arrays["weights"])
        state = state._replace(
            partner_delay=jnp.asarray(arrays["partner_delay"], jnp.int32),
            inhibition_delay=jnp.asarray(arrays["inhibition_delay"], jnp.int32),
        )
        return Pretrained(network, state, tuple(arrays["classes"].tolist()), about)


def write_pretrained(
    path: str | os.PathLike,
    network: Network,
    state: NetworkState,
    classes: Sequence[int],
    about: dict[str, object],
) -> None:
    """Write weights and delays with what they are; whole or not at all, in a folder that is made.

    Args:
      path: of the npz file.
      network: of the published constants but for size, step and decay.
      state: trained.
      classes: the label of each slot.
      about: what else to keep, as JSON has it.
    """
    kept = {name: getattr(network, name) for name in _KEPT}
    arrays = {
        "weights": np.asarray(state.weights, np.float32),
        "partner_delay": np.asarray(state.partner_delay, np.int16),
        "inhibition_delay": np.asarray(state.inhibition_delay, np.int16),
        "classes": np.asarray(classes),
        "about": json.dumps({"network": kept, **about}),
    }
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(path.name + ".partial")
    with scratch.open("wb") as file:
        np.savez_compressed(file, **arrays)
    os.replace(scratch, path)
