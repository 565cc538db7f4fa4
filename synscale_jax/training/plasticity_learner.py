"""What learns and how, as values: the settings of :mod:`synscale_jax.training.plasticity`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_args

from synscale_jax.plasticity import PlasticityRule
from synscale_jax.training.provenance import model_settings

Objective = Literal["entropy", "likelihood", "tanh_entropy", "tanh_power", "tanh_log_power"]
"""What is minimised, of the network's output u and, where it says tanh, o = tanh(β u):

``entropy``: cross-entropy of softmax(u). ``likelihood``: −u of the label, no softmax, as in a
published network that lacks it. ``tanh_entropy``: cross-entropy of softmax(o). ``tanh_power``:
Σ abs(o − t)^m, the paper's. ``tanh_log_power``: the same of log softmax(o), as in the published
code.
"""
Schedule = Literal["first_batch_per_epoch", "every_batch", "two_phase"]
Optimizer = Literal["adam", "adam_cosine", "sgd"]


@dataclasses.dataclass(frozen=True)
class LearnerConfig:
    """Settings of one training run.

    Raises:
      ValueError: at once, if a value is impossible; the message shows it and what would do.
    """

    epochs: int = 1
    """Passes over the training examples."""
    batch: int = 50
    """Examples a step; what is left at the end of an epoch is dropped."""
    optimizer: Optimizer = "adam"
    """adam_cosine: the rate falls to zero over the run; sgd: plain."""
    learning_rate: float = 1e-3
    """Of the optimizer, at the start."""
    evaluations: int = 1
    """How often an epoch the test examples are classified."""
    dropout_epochs: int | None = None
    """Epochs with dropout; None: all. The published loop forgets it after the first evaluation."""
    objective: Objective = "entropy"
    """See :data:`Objective`."""
    slope: float = 1.0
    """β of the tanh."""
    loss_power: float = 6.0
    """m of the power loss."""
    schedule: Schedule = "every_batch"
    """When local rules learn: the published loop switches them off after the first batch."""
    local_epochs: int = 0
    """Epochs of local rules alone, before the others; for two_phase."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "evaluations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is not possible: use 1 or more.")
        for name in ("dropout_epochs", "local_epochs"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"{name}={getattr(self, name)} is not possible: use 0 or more.")
        for name, usual in (("learning_rate", "1e-3"), ("slope", "1"), ("loss_power", "6")):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name}={getattr(self, name)} trains nothing: use e.g. {usual}.")
        for name, choices in (
            ("optimizer", Optimizer),
            ("objective", Objective),
            ("schedule", Schedule),
        ):
            if getattr(self, name) not in get_args(choices):
                raise ValueError(
                    f"{name}={getattr(self, name)!r} is unknown: use one of "
                    f"{', '.join(get_args(choices))}."
                )
        if (self.schedule == "two_phase") != (self.local_epochs > 0):
            raise ValueError(
                f"local_epochs={self.local_epochs} does not go with schedule={self.schedule!r}: "
                "two_phase needs 1 or more, the others 0."
            )


@dataclasses.dataclass(frozen=True)
class Learner:
    """A network and how it learns, as a value.

    Attributes:
      name: for files and the command line.
      label: for tables and figures.
      model: a linen module called with ``train=``; with a ``layer_table`` where rules or a scaling
        rate are given.
      config: how it is trained.
      rules: layer name -> its local rule; those layers get no gradient.
      rule_settings: what the rules are, in words that go into each result.
      frozen: modules whose parameters stay as they are.
      scaling_rate: γ of SynScaW on top, or None.
    """

    name: str
    label: str
    model: Any
    config: LearnerConfig
    rules: Mapping[str, PlasticityRule] = dataclasses.field(default_factory=dict)
    rule_settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    frozen: tuple[str, ...] = ()
    scaling_rate: float | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that was chosen, for the run's identity.

        Raises:
          ValueError: if a field of the model cannot be written, so that runs could be mistaken.
        """
        return {
            "model": model_settings(self.model),
            "method": {
                "name": self.name,
                "rules": dict(self.rule_settings),
                "frozen": list(self.frozen),
                "scaling_rate": self.scaling_rate,
            },
            "config": dataclasses.asdict(self.config),
        }
