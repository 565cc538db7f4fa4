"""The two published protocols for multilayer perceptrons: the paper's and the PyTorch port's."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from synscale_jax.models import MLP
from synscale_jax.training.comparison import compare
from synscale_jax.training.config import TrainConfig
from synscale_jax.training.published import TABLE_I_PROTOCOL, Published
from synscale_jax.training.settings import ComparisonConfig, SynScaLSettings, SynScaWSettings

Preset = Literal["smoke", "laptop", "paper", "port"]

TRAINING_IMAGES = {"mnist": 60_000, "cifar10": 50_000}
PORT_PROTOCOL: Mapping[str, Any] = MappingProxyType(
    {
        **TABLE_I_PROTOCOL,
        "network": "MLP 1024",
        "checkpoint chosen on": "test",
        "epochs": 24,
        "optimizer": "adam_restarted",
        "decay": "× 0.94 after epochs 4, 9, 14, …",
        "normalization": (0.1307, 0.3081),
        "SynScaW γ": 0.1,
        "SynScaW reading": "the notebook's",
        "SynScaL reading": "mean_logit",
    }
)
PORT_TRAINING = TrainConfig(
    epochs=24, optimizer="adam_restarted", normalization=(0.1307, 0.3081), eval_batch=100
)
NOTEBOOK = SynScaWSettings(
    0.1,
    target=0.1,
    measured_on="noise",
    granularity="layer",
    clip=1.0,
    every_k="epoch",
    restore_norm=False,
    scale_output=True,
)
"""SynScaW as in the authors' notebook, which the port follows."""


@dataclasses.dataclass(frozen=True)
class MLPConfig(ComparisonConfig):
    """Train a multilayer perceptron with each method and compare them."""

    preset: Preset = "laptop"
    """Defaults of everything else: smoke (seconds), laptop (2 cores), paper, port."""
    hidden: tuple[int, ...] = (1024, 1024)
    """Widths of the hidden layers; the paper's are 1024 1024, the port's 1024."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.hidden and "synscaw" in self.methods and not self.synscaw.scale_output:
            raise ValueError(
                "hidden=() has no layer but the output, which SynScaW leaves out: give widths, or "
                "--synscaw.scale-output."
            )


def mlp_presets() -> dict[str, MLPConfig]:
    """The presets of the MLP experiments, by name."""
    laptop = TrainConfig(epochs=12, validation_examples=5000, chunk_steps=100)
    smoke = TrainConfig(
        epochs=2, train_examples=2000, validation_examples=500, test_examples=500, chunk_steps=10
    )
    return {
        "smoke": MLPConfig(preset="smoke", hidden=(64, 64), train=smoke),
        "laptop": MLPConfig(preset="laptop", train=laptop),
        "paper": MLPConfig(preset="paper", train=TrainConfig()),
        "port": MLPConfig(
            preset="port",
            hidden=(1024,),
            train=PORT_TRAINING,
            synscaw=NOTEBOOK,
            synscal=SynScaLSettings(1.0, "mean_logit"),
        ),
    }


def compare_mlp(
    config: MLPConfig, data_name: str, paper: Mapping[str, float], port: Mapping[str, float]
) -> None:
    """Train the methods on an image set and report them beside the published errors.

    Args:
      config: the settings.
      data_name: the image set.
      paper: method name -> the paper's error in percent.
      port: method name -> the port's best test error in percent.
    """
    images = {"data": data_name, "training images": TRAINING_IMAGES[data_name]}
    if config.preset == "port":
        source, errors = "PyTorch port, best of 24 epochs on the test set, one run", port
        protocol = images | dict(PORT_PROTOCOL)
    else:
        source, errors = f"paper, table I, {data_name} × MLP, one run", paper
        protocol = images | {"network": "MLP 1024-1024"} | dict(TABLE_I_PROTOCOL)
    compare(
        config,
        data_name,
        f"{data_name}_mlp_{config.preset}",
        lambda classes: MLP(config.hidden, classes),
        Published(source, errors, protocol),
        {"network": "MLP " + "-".join(map(str, config.hidden))},
    )
