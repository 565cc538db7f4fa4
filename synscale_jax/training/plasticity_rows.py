"""What a row of the comparison of biologically plausible learners is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

from synscale_jax.training.plasticity_learner import Learner, LearnerConfig

Kind = Literal["legacy", "clean", "control"]
Source = Literal["unit", "signed", "centred", "drive", "response", "scaled", "standard"]
"""What a learner sees, pixels in [0, 1], in [−1, 1], or less the mean training image; of fixed
units their drive, its response relu(drive)^power, this divided by its root mean square over the
training images, or relu(drive) with mean 0 and deviation 1."""


@dataclasses.dataclass(frozen=True)
class Size:
    """The data set, and how small a trial run is to be.

    Attributes:
      data: ``"mnist"`` or ``"cifar10"``.
      classes: how many there are.
      inputs: numbers in an image.
      shrink: what widths are divided by.
      most_epochs: cap on epochs.
    """

    data: str
    classes: int
    inputs: int
    shrink: int = 1
    most_epochs: int | None = None

    def width(self, units: int) -> int:
        """A layer's width at this size."""
        return max(8, units // self.shrink)

    def config(self, **settings: Any) -> LearnerConfig:
        """Settings at this size."""
        if self.most_epochs is not None:
            settings["epochs"] = min(settings.get("epochs", 1), self.most_epochs)
            settings["batch"] = min(settings.get("batch", 50), 500)
        return LearnerConfig(**settings)


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a table: a learner, what it sees, and what was printed of it.

    Attributes:
      name: for files.
      label: for tables.
      group: the study it belongs to.
      kind: ``"legacy"`` as published, ``"clean"`` with its slips mended, or ``"control"``.
      learner: size and learning rate -> learner, the rate None except where ``rates`` are tried.
      source: what it sees.
      units: whose drive it sees: ``"competing"``, ``"random"`` or None.
      power: of the response.
      printed: data set -> accuracy the original prints at its end, in %.
      printed_max: data set -> the largest it prints along the way.
      start_from: row whose trained convolutions it begins with.
      start_leaves: which of their leaves are copied.
      rates: learning rates to choose from on 5000 validation examples with seed 0.
    """

    name: str
    label: str
    group: str
    kind: Kind
    learner: Callable[[Size, float | None], Learner]
    source: Source = "signed"
    units: Literal["competing", "random"] | None = None
    power: float = 1.0
    printed: Mapping[str, float] = dataclasses.field(default_factory=dict)
    printed_max: Mapping[str, float] = dataclasses.field(default_factory=dict)
    start_from: str | None = None
    start_leaves: tuple[str, ...] = ("kernel", "bias")
    rates: tuple[float, ...] = ()


def by_data(mnist: float | None, cifar10: float | None = None) -> dict[str, float]:
    """Data set -> what was printed of it, for those of which something was."""
    both = {"mnist": mnist, "cifar10": cifar10}
    return {name: value for name, value in both.items() if value is not None}
