"""What a comparison of methods is asked for, each setting with a name on the command line."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Annotated, Literal

import tyro

from synscale_jax.training import methods
from synscale_jax.training.command_line import check_each_once, check_seeds
from synscale_jax.training.config import TrainConfig

MethodName = Literal["baseline", "synscaw", "synscal"]


@dataclasses.dataclass(frozen=True)
class SynScaWSettings:
    """SynScaW; see ``synscale_jax.synscaw`` for what each reading means."""

    scaling_rate: float = 0.01
    """γ."""
    target: Literal["layer_noise", "layer_noise_sampled", "uniform"] | float = "layer_noise"
    """Target activity, by name or a constant."""
    measured_on: Literal["batch", "noise"] = "batch"
    """Where the activity is measured."""
    granularity: Literal["neuron", "layer"] = "neuron"
    """One gap a neuron or one a layer."""
    norm_reading: Literal["pre_norm", "batch_norm", "running_norm"] = "pre_norm"
    """Where normalised layers are read."""
    every_k: int | Literal["epoch"] = 1
    """Scale after every so many optimizer steps, or after each epoch."""
    clip: float | None = None
    """Bound on abs(w² ẑ)."""
    max_relative_change: float | None = None
    """Bound on a step's relative change of a weight."""
    restore_norm: bool = True
    """Restore each neuron's weight norm after scaling."""
    skip_silent_inputs: bool = False
    """Leave out synapses whose input was silent throughout the batch."""
    scale_output: bool = False
    """Scale the output layer, too."""

    def method(self) -> methods.Method:
        """The method with these settings."""
        return methods.synscaw(**dataclasses.asdict(self))


@dataclasses.dataclass(frozen=True)
class SynScaLSettings:
    """SynScaL; see ``synscale_jax.synscal``."""

    scaling_rate: float = 1.0
    """γ."""
    reading: Literal["per_example", "per_example_mean", "batch_mean", "mean_logit"] = "per_example"
    """Which mean of which activity."""

    def method(self) -> methods.Method:
        """The method with these settings."""
        return methods.synscal(**dataclasses.asdict(self))


@dataclasses.dataclass(frozen=True)
class MethodsConfig:
    """Which methods are compared, under which seeds and where."""

    synscaw: SynScaWSettings = SynScaWSettings()
    """SynScaW."""
    synscal: SynScaLSettings = SynScaLSettings()
    """SynScaL."""
    methods: tuple[MethodName, ...] = ("baseline", "synscaw", "synscal")
    """What to compare."""
    seeds: tuple[int, ...] = (0,)
    """Every method is trained with each of these seeds."""
    output: pathlib.Path | None = None
    """Folder of runs, table and figure; by default runs/<experiment>_<preset>."""
    restart: bool = False
    """Begin anew; earlier runs are kept aside."""

    def __post_init__(self) -> None:
        check_each_once(self, "methods")
        check_seeds(self.seeds)
        self.chosen_methods()

    def chosen_methods(self) -> list[methods.Method]:
        """The methods to compare; refuses impossible settings."""
        made = {
            "baseline": methods.baseline(),
            "synscaw": self.synscaw.method(),
            "synscal": self.synscal.method(),
        }
        return [made[name] for name in self.methods]


@dataclasses.dataclass(frozen=True)
class ComparisonConfig(MethodsConfig):
    """Settings of a comparison; each can be overridden on the command line."""

    train: Annotated[TrainConfig, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=TrainConfig
    )
    """How each network is trained."""
    fallback: bool = True
    """Where the images cannot be had, go on with scikit-learn's digits (and say so everywhere)."""
