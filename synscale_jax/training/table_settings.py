"""What the experiments on the paper's tables are asked for."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal

from synscale_jax.training import methods
from synscale_jax.training.cells import Cell, cells_named
from synscale_jax.training.command_line import check_each_once, check_seeds
from synscale_jax.training.config import TrainConfig
from synscale_jax.training.mlp_protocols import NOTEBOOK, PORT_TRAINING
from synscale_jax.training.settings import SynScaLSettings, SynScaWSettings

TableMethod = Literal[
    "baseline",
    "dropout",
    "confidence_penalty",
    "bottleneck",
    "synscaw",
    "synscal",
    "synscaw_confidence_penalty",
    "synscal_confidence_penalty",
    "label_smoothing",
]
TablePreset = Literal["smoke", "laptop", "paper", "port"]

MLP_CELLS = ("mnist-mlp", "cifar10-mlp", "cifar100-mlp")
RESNET_CELLS = ("mnist-resnet32", "cifar10-resnet32", "cifar100-resnet32")
PORT_CELLS = ("mnist-port_mlp", "cifar10-port_mlp", "cifar100-port_mlp")
PAPER_METHODS: tuple[TableMethod, ...] = (
    "baseline",
    "dropout",
    "confidence_penalty",
    "bottleneck",
    "synscaw",
    "synscal",
    "synscaw_confidence_penalty",
    "synscal_confidence_penalty",
)
MAIN_METHODS: tuple[TableMethod, ...] = ("baseline", "synscaw", "synscal")


@dataclasses.dataclass(frozen=True)
class DropoutSettings:
    """Dropout; the paper prints rates for table V only."""

    input_rate: float = 0.2
    """Of the inputs."""
    hidden_rate: float = 0.5
    """Of the hidden units."""


@dataclasses.dataclass(frozen=True)
class BottleneckSettings:
    """The variational information bottleneck; β and N are ours (Alemi et al.'s for MNIST)."""

    strength: float = 1e-3
    """β."""
    features: int = 256
    """N."""
    samples: int = 12
    """Codes drawn for each example."""


_SMOKE = TrainConfig(epochs=2, train_examples=1000, test_examples=300, chunk_steps=10)

PROTOCOLS: Mapping[str, Mapping[str, TrainConfig]] = MappingProxyType(
    {
        "smoke": {"mlp": _SMOKE, "resnet32": _SMOKE},
        "laptop": {
            "mlp": TrainConfig(epochs=24),
            "resnet32": TrainConfig(epochs=20, chunk_steps=20),
        },
        "paper": {"mlp": TrainConfig(), "resnet32": TrainConfig(chunk_steps=20)},
        "port": {"port_mlp": PORT_TRAINING},
    }
)
"""Preset -> network -> how it is trained."""


@dataclasses.dataclass(frozen=True)
class TablesConfig:
    """Train cells of the paper's tables I to III with each method and draw the tables.

    Give the same command again to go on after an interruption, or at the same time in another
    process to share the work.
    """

    preset: TablePreset = "laptop"
    """smoke (a minute), laptop (24 epochs of the MLPs), paper (200 epochs), port (the PyTorch
    port's network, schedule and readings). Also the name of the folder of the runs."""
    cells: tuple[str, ...] = MLP_CELLS
    """Image set and network, e.g. mnist-mlp or cifar100-resnet32. Tables show those of earlier
    commands, too."""
    methods: tuple[TableMethod, ...] = PAPER_METHODS
    """What to compare."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Every method is trained with each of these seeds."""
    synscaw: SynScaWSettings = dataclasses.field(default_factory=SynScaWSettings)
    """SynScaW, alone and in combination."""
    synscal: SynScaLSettings = dataclasses.field(default_factory=SynScaLSettings)
    """SynScaL, alone and in combination."""
    dropout: DropoutSettings = DropoutSettings()
    """Dropout."""
    confidence_penalty: float = 1.0
    """β of the confidence penalty, alone and in combination; ours (Pereyra et al.'s for MNIST, the
    paper's for table V)."""
    bottleneck: BottleneckSettings = BottleneckSettings()
    """Variational information bottleneck."""
    label_smoothing: float = 0.1
    """Share of the label that is spread over the classes."""
    output: pathlib.Path = pathlib.Path("runs/tables")
    """Folder of runs and tables; runs are in <output>/<preset>/<cell>/<method>/seed<k>."""
    draw: bool = False
    """Only draw the tables of what is there."""
    restart: bool = False
    """Begin anew; earlier runs are kept aside."""

    def __post_init__(self) -> None:
        check_each_once(self, "cells", "methods")
        check_seeds(self.seeds)
        for cell in cells_named(self.cells):
            if cell.network not in PROTOCOLS[self.preset]:
                raise ValueError(
                    f"the {self.preset} protocol has no cell {cell.name}: its networks are "
                    f"{', '.join(PROTOCOLS[self.preset])}."
                )
        self.chosen_methods()

    @property
    def folder(self) -> pathlib.Path:
        """Where the runs of this protocol are."""
        return self.output / self.preset

    def settings(self, cell: Cell) -> TrainConfig:
        """How the network of a cell is trained."""
        return PROTOCOLS[self.preset][cell.network]

    def chosen_methods(self) -> list[methods.Method]:
        """The methods to compare; refuses impossible settings."""
        return [self._method(name) for name in self.methods]

    def _method(self, name: str) -> methods.Method:
        if name == "dropout":
            return methods.dropout(**dataclasses.asdict(self.dropout))
        if name == "bottleneck":
            return methods.bottleneck(**dataclasses.asdict(self.bottleneck))
        if name == "label_smoothing":
            return methods.label_smoothing(self.label_smoothing)
        penalty = methods.confidence_penalty(self.confidence_penalty)
        made = {
            "baseline": methods.baseline(),
            "confidence_penalty": penalty,
            "synscaw": self.synscaw.method(),
            "synscal": self.synscal.method(),
        }
        if name in made:
            return made[name]
        return methods.combined(made[name.removesuffix("_confidence_penalty")], penalty)


def table_presets() -> dict[str, TablesConfig]:
    """The presets of the table experiments, by name."""
    port = TablesConfig(
        preset="port",
        cells=PORT_CELLS,
        methods=MAIN_METHODS,
        seeds=(0, 1, 2, 3, 4),
        synscaw=NOTEBOOK,
        synscal=SynScaLSettings(1.0, "mean_logit"),
    )
    return {
        "smoke": TablesConfig(preset="smoke", cells=("mnist-mlp",), seeds=(0, 1)),
        "laptop": TablesConfig(preset="laptop"),
        "paper": TablesConfig(preset="paper", cells=(*MLP_CELLS, *RESNET_CELLS)),
        "port": port,
    }


def method_labels(chosen: Sequence[methods.Method]) -> dict[str, str]:
    """Method name -> what tables call it."""
    return {method.name: method.label for method in chosen}
