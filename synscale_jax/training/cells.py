"""The cells of the paper's tables: one image set with one network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from synscale_jax.models import MLP, cifar_resnet

NETWORKS: Mapping[str, tuple[str, Callable[[int], Any]]] = MappingProxyType(
    {
        "mlp": ("MLP", lambda classes: MLP((1024, 1024), classes)),
        "port_mlp": ("port's MLP", lambda classes: MLP((1024,), classes)),
        "resnet32": ("ResNet32", lambda classes: cifar_resnet(32, classes)),
    }
)
"""Name -> what tables call it, and classes -> model."""

IMAGE_SETS: Mapping[str, str] = MappingProxyType(
    {"mnist": "MNIST", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "digits": "digits"}
)
"""Name -> what tables call it."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """A column of the paper's tables.

    Attributes:
      data: an image set's name.
      network: a name in :data:`NETWORKS`.
    """

    data: str
    network: str

    @property
    def name(self) -> str:
        """What files and the command line call it, as in ``"mnist-mlp"``."""
        return f"{self.data}-{self.network}"

    @property
    def label(self) -> str:
        """What tables and figures call it, as in ``"MNIST × MLP"``."""
        return f"{IMAGE_SETS[self.data]} × {NETWORKS[self.network][0]}"

    def model(self, classes: int) -> Any:
        """The network with a head for so many classes."""
        return NETWORKS[self.network][1](classes)


def cells_named(names: Sequence[str]) -> tuple[Cell, ...]:
    """The cells of these names, in their order.

    Raises:
      ValueError: if there is no such cell; the message lists what there is.

    Examples:
      >>> from synscale_jax.training.cells import cells_named
      >>> [cell.label for cell in cells_named(["mnist-mlp", "cifar100-resnet32"])]
      ['MNIST × MLP', 'CIFAR-100 × ResNet32']
    """
    there = {cell.name: cell for cell in all_cells()}
    for name in names:
        if name not in there:
            raise ValueError(f"there is no cell {name!r}: use some of {', '.join(there)}.")
    return tuple(there[name] for name in names)


def all_cells() -> tuple[Cell, ...]:
    """Every image set with every network, network by network."""
    return tuple(Cell(data, network) for network in NETWORKS for data in IMAGE_SETS)
