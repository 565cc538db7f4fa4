"""One mesh over the local devices, its only axis the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def data_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh ``("data",)`` over these devices, or over all local ones."""
    devices = devices or jax.local_devices()
    return jax.make_mesh((len(devices),), ("data",), (AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole."""
    return NamedSharding(mesh, PartitionSpec())


def split_batch(mesh: Mesh) -> NamedSharding:
    """The first axis is spread over the devices; inside ``jit`` it need not divide evenly."""
    return NamedSharding(mesh, PartitionSpec("data"))
