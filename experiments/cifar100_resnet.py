"""ResNet on CIFAR-100: baseline, SynScaW and SynScaL under identical seeds.

Reproduces the CIFAR-100 × ResNet32 column of table I of Hofmann and Mäder, IEEE TNNLS 33(7), 2022:
error 40.85 % (baseline), 38.07 % (SynScaW), 40.88 % (SynScaL), one run each.

    python experiments/cifar100_resnet.py                 # laptop on a CPU, paper on an accelerator
    python experiments/cifar100_resnet.py --preset smoke  # every step of the way in a minute
    python experiments/cifar100_resnet.py --seeds 0 1 2 --depth 20 --epochs 30

Give the same command again to go on after an interruption.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from synscale_jax.models import cifar_resnet
from synscale_jax.training.command_line import run_experiment
from synscale_jax.training.comparison import compare
from synscale_jax.training.config import TrainConfig
from synscale_jax.training.published import NOT_SAID, TABLE_I_PROTOCOL, Published
from synscale_jax.training.settings import ComparisonConfig

PUBLISHED = Published(
    "paper, table I, CIFAR-100 × ResNet32, one run",
    {"baseline": 40.85, "synscaw": 38.07, "synscal": 40.88},
    {
        "network": "ResNet32",
        "shortcut": NOT_SAID,
        "data": "cifar100",
        "training images": 50_000,
        **TABLE_I_PROTOCOL,
    },
)


@dataclasses.dataclass(frozen=True)
class Config(ComparisonConfig):
    """Train a CIFAR ResNet on CIFAR-100 with each method and compare them."""

    preset: Literal["smoke", "laptop", "paper"] = "laptop"
    """Defaults of all the rest: smoke (about a minute), laptop (2 cores), paper (accelerator)."""
    depth: int = 32
    """Layers of the ResNet: 6 n + 2, from 8 to 110; the paper's is 32."""
    shortcut: Literal["projection", "zero_pad"] = "projection"
    """Where a block changes shape: a 1×1 convolution, or padding with zeros."""

    def __post_init__(self) -> None:
        super().__post_init__()
        cifar_resnet(self.depth, 100)  # refuses a depth that there is not


PRESETS = {
    "smoke": Config(
        preset="smoke",
        depth=8,
        train=TrainConfig(
            epochs=3,
            batch=20,
            train_examples=1000,
            validation_examples=500,
            test_examples=500,
            chunk_steps=25,
        ),
    ),
    "laptop": Config(
        preset="laptop",
        depth=20,
        train=TrainConfig(
            epochs=20,
            train_examples=10_000,
            validation_examples=2000,
            test_examples=2000,
            chunk_steps=10,
        ),
    ),
    "paper": Config(preset="paper", depth=32, train=TrainConfig(chunk_steps=100)),
}


def main(config: Config) -> None:
    """Train, print the table, write the figure."""
    compare(
        config,
        "cifar100",
        f"cifar100_resnet{config.depth}_{config.preset}",
        lambda classes: cifar_resnet(config.depth, classes, shortcut=config.shortcut),
        PUBLISHED,
        {"network": f"ResNet{config.depth}", "shortcut": config.shortcut},
    )


if __name__ == "__main__":
    run_experiment(main, Config, PRESETS)
