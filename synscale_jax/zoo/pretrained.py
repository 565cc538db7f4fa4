"""Load the networks that come with the package, checked by their hash."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.resources
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

from synscale_jax.models.convnet import CNN, CNN2, FCN, LightCNN
from synscale_jax.plasticity import power_activation

INDEX = "index.json"

Shape = tuple[int, int, int]
SHAPES: Mapping[str, Shape] = {"mnist": (28, 28, 1), "cifar10": (32, 32, 3)}


class ZooError(RuntimeError):
    """A file that is not what its card says; the message is one sentence."""


class CompetingUnits(nn.Module):
    """Competing hidden units with the readout of their paper; logits are what it takes tanh of.

    Args:
      units: how many.
      num_classes: number of outputs.
      power: n of the units' response.
    """

    units: int
    num_classes: int
    power: float = 4.5

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        """``(batch, ...) -> (batch, num_classes)``; ``train`` has no effect."""
        del train
        x = nn.Dense(self.units, use_bias=False, name="units")(x.reshape(x.shape[0], -1))
        return nn.Dense(self.num_classes, use_bias=False, name="head")(
            power_activation(x, self.power)
        )


@dataclasses.dataclass(frozen=True)
class Entry:
    """A network of the zoo.

    Attributes:
      data: the image set it was trained on.
      row: of the comparison that trains it.
      model: the module.
      scale: of pixels: the network sees ``scale · pixel / 255 − shift``.
      shift: see ``scale``.
      printed: accuracy that the original prints, in %; less is not put into the zoo.
    """

    data: str
    row: str
    model: nn.Module
    scale: float = 2.0
    shift: float = 1.0
    printed: float | None = None


ENTRIES: Mapping[str, Entry] = {
    "mnist_cnn": Entry("mnist", "cnn", LightCNN(CNN, 10), printed=98.47),
    "mnist_cnn2": Entry("mnist", "cnn2", LightCNN(CNN2, 10), printed=94.50),
    "mnist_fcn": Entry("mnist", "fcn", FCN((8, 8), 10), printed=89.36),
    "mnist_competing_units": Entry(
        "mnist", "units_clean", CompetingUnits(2000, 10), 1.0, 0.0, printed=97.08
    ),
    "cifar10_cnn": Entry("cifar10", "cnn", LightCNN(CNN, 10), printed=57.44),
    "cifar10_cnn2": Entry("cifar10", "cnn2", LightCNN(CNN2, 10), printed=49.26),
    "cifar10_fcn": Entry("cifar10", "fcn", FCN((8, 8), 10), printed=37.44),
}
"""Every name the zoo has a place for; :func:`available` says which are there."""


@dataclasses.dataclass(frozen=True)
class ZooModel:
    """A trained network, called on images.

    Attributes:
      name: as it was loaded.
      model: the linen module.
      variables: ``{"params": ...}``, as ``model.apply`` takes them.
      card: what it was trained on and how, its accuracy, and the file's hash.
    """

    name: str
    model: nn.Module
    variables: dict[str, Any] = dataclasses.field(repr=False)
    card: dict[str, Any]

    def __call__(self, images: Any) -> Array:
        """The logits of a batch of images.

        Args:
          images: (batch, height, width, channels), uint8, or floating point in [0, 1].

        Returns:
          (batch, 10), float32.

        Raises:
          ValueError: if the images have another shape.
        """
        entry = ENTRIES[self.name]
        shape = SHAPES[entry.data]
        if getattr(images, "ndim", 0) != 4 or tuple(images.shape[1:]) != shape:
            raise ValueError(
                f"{self.name} takes images of shape (batch, {', '.join(map(str, shape))}), got "
                f"{tuple(np.shape(images))}."
            )
        pixels = jnp.asarray(images)
        whole = jnp.issubdtype(pixels.dtype, jnp.integer)
        pixels = pixels.astype(jnp.float32) / (255 if whole else 1)
        logits = self.model.apply(self.variables, entry.scale * pixels - entry.shift)
        return jnp.asarray(logits)


def available() -> tuple[str, ...]:
    """The names that :func:`load` knows in this version.

    Examples:
      >>> from synscale_jax import zoo
      >>> isinstance(zoo.available(), tuple)
      True
    """
    return tuple(name for name in ENTRIES if name in _index(_shipped()))


def load(name: str, *, folder: pathlib.Path | str | None = None) -> ZooModel:
    """Load a small trained network.

    Args:
      name: one of :func:`available`, e.g. ``"mnist_fcn"``.
      folder: where the files are; the package's own, if left out.

    Returns:
      A :class:`ZooModel`.

    Raises:
      ValueError: if there is no network of this name.
      ZooError: if the folder has no readable index, or the file is missing or not the one that was
        published.
    """
    place: Any = _shipped() if folder is None else pathlib.Path(folder)
    if folder is not None and not (place / INDEX).is_file():
        raise ZooError(f"{place} is no zoo, it has no {INDEX}: give the folder of an export.")
    index = _index(place)
    if name not in ENTRIES or name not in index:
        known = ", ".join(n for n in ENTRIES if n in index) or "none in this version"
        raise ValueError(f"there is no network {name!r} in the zoo: choose one of {known}.")
    card = index[name]
    if not isinstance(card, dict) or "sha256" not in card:
        raise ZooError(f"{place / INDEX} has no hash of {name}: install or export it again.")
    file = place / f"{name}.safetensors"
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ZooError(f"{file} cannot be read ({error.strerror}): install again.") from None
    found = hashlib.sha256(data).hexdigest()
    if found != card["sha256"]:
        raise ZooError(
            f"{file} has the hash {found[:12]}… where {card['sha256'][:12]}… was published: "
            "install again."
        )
    arrays = safetensors.numpy.load(data)
    params = unflatten_dict({tuple(key.split("/")): jnp.asarray(v) for key, v in arrays.items()})
    return ZooModel(name, ENTRIES[name].model, {"params": params}, dict(card))


def export(name: str, params: Any, card: Mapping[str, Any], folder: pathlib.Path) -> pathlib.Path:
    """Write a network and its card into a zoo's folder.

    Args:
      name: a name in :data:`ENTRIES`.
      params: its parameters, as nested dicts.
      card: data, accuracies and command; the hash is added.
      folder: where to; made if need be.

    Returns:
      The file of weights.

    Raises:
      ValueError: for an unknown name, or parameters of other shapes than the model's.
    """
    if name not in ENTRIES:
        raise ValueError(f"the zoo has no place for {name!r}: use one of {', '.join(ENTRIES)}.")
    entry = ENTRIES[name]
    image = jax.ShapeDtypeStruct((1, *SHAPES[entry.data]), jnp.float32)
    shapes = jax.eval_shape(entry.model.init, jax.random.key(0), image)["params"]
    wanted: dict[Any, Any] = flatten_dict(shapes)
    flat = {path: np.asarray(leaf, np.float32) for path, leaf in flatten_dict(params).items()}
    if {path: leaf.shape for path, leaf in flat.items()} != {p: w.shape for p, w in wanted.items()}:
        raise ValueError(f"these parameters are not those of {name}: {sorted(flat)}.")
    folder.mkdir(parents=True, exist_ok=True)
    data = safetensors.numpy.save(
        {"/".join(path): np.ascontiguousarray(v) for path, v in flat.items()}
    )
    path = folder / f"{name}.safetensors"
    path.write_bytes(data)
    index = _index(folder)
    index[name] = {**card, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    text = json.dumps(dict(sorted(index.items())), indent=1, ensure_ascii=False)
    (folder / INDEX).write_text(text + "\n", encoding="utf-8")
    (folder / f"{name}.md").write_text(model_card(name, index[name]), encoding="utf-8")
    return path


def model_card(name: str, card: Mapping[str, Any]) -> str:
    """The card of a network in Markdown."""
    lines = [f"# {name}", "", "| | |", "| --- | --- |"]
    lines += [f"| {key.replace('_', ' ')} | {value} |" for key, value in card.items()]
    use = f'`synscale_jax.zoo.load("{name}")(images)` gives logits of uint8 images.'
    return "\n".join([*lines, "", use, ""])


def _shipped() -> Any:
    return importlib.resources.files("synscale_jax.zoo") / "checkpoints"


def _index(folder: Any) -> dict[str, Any]:
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except OSError:  # an empty zoo
        return {}
    except ValueError:
        index = None
    if not isinstance(index, dict):
        raise ZooError(f"{folder / INDEX} is damaged: install or export the networks again.")
    return index
