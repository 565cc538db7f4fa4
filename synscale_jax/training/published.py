"""What others printed: errors, and the protocols they were obtained with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

NOT_SAID = "not said"  # a published protocol's silence: what we do is a choice, no deviation


@dataclasses.dataclass(frozen=True)
class Published:
    """What the paper (or the port) printed for this comparison.

    Attributes:
      source: where, e.g. ``"paper, table I"``.
      errors: method name -> test error in percent.
      protocol: the settings it was obtained with, by name, beside which ours are printed.
    """

    source: str
    errors: Mapping[str, float]
    protocol: Mapping[str, Any]


TABLE_I_PROTOCOL: Mapping[str, Any] = MappingProxyType(
    {
        "test images": 10_000,
        "checkpoint chosen on": NOT_SAID,
        "epochs": 200,
        "batch": 100,
        "optimizer": "adam",
        "learning rate": 5e-4,
        "decay": "× 0.94 every 5 epochs",
        "augmentation": "none",
        "normalization": "none",
        "SynScaW γ": 0.01,
        "SynScaW reading": NOT_SAID,
        "SynScaL γ": 1.0,
        "SynScaL reading": "per_example",
    }
)
"""The settings behind the paper's tables I to III, where the paper names them."""
