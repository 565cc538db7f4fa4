"""Which layers are scaled, and which axis of a kernel is postsynaptic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import optax

Path = tuple[str, ...]


class SynapseAxes(NamedTuple):
    """Where a kernel keeps its neurons.

    Attributes:
      post: the postsynaptic axis (output units or channels). Every other axis is presynaptic.
    """

    post: int = -1


class Layer(NamedTuple):
    """One scaled layer: a kernel, what is added to its product, and what its neurons fire.

    Attributes:
      path: module names that lead to the layer, e.g. ``("stage1_block0", "conv1")``.
      kernel: name of the kernel's leaf below ``path``.
      bias: name of the bias leaf below ``path``, or None.
      norm: path of the normalisation that consumes the layer's output, or None.
      activation: φ, by name (see :data:`synscale_jax.scaling.ACTIVATIONS`).
      axes: which axis of the kernel is postsynaptic.
      output: whether this is an output layer, whose activity the task sets.
    """

    path: Path
    kernel: str = "kernel"
    bias: str | None = "bias"
    norm: Path | None = None
    activation: str = "relu"
    axes: SynapseAxes = SynapseAxes()
    output: bool = False

    @property
    def name(self) -> str:
        """The path as text, e.g. ``"stage1_block0/conv1"``."""
        return "/".join(self.path)
