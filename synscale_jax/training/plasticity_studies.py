"""What the comparison of biologically plausible learners trains: each row as a value.

A row is ``legacy`` (the published code with its slips, beside the accuracy it printed), ``clean``
(the slips mended) or a ``control`` for the clean ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal

from synscale_jax.models.convnet import (
    CNN,
    CNN2,
    FCN,
    SIMPLE,
    SIMPLE_CIFAR,
    DropoutCNN,
    HebbNet,
    LightCNN,
    Readout,
)
from synscale_jax.models.feedback_alignment import FeedbackMLP
from synscale_jax.plasticity import PlasticityRule, hebb, oja, thresholded_hebb, unit_norm
from synscale_jax.training.plasticity import Learner, LearnerConfig

Kind = Literal["legacy", "clean", "control"]
Source = Literal["unit", "signed", "centred", "drive", "response", "standard"]
"""What a learner sees, pixels in [0, 1], in [−1, 1], or less the mean training image; of fixed
units their drive, its response relu(drive)^power, or relu(drive) with mean 0 and deviation 1."""


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
      kind: see the module.
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


def _both(mnist: float | None, cifar10: float | None = None) -> dict[str, float]:
    printed = {"mnist": mnist, "cifar10": cifar10}
    return {name: value for name, value in printed.items() if value is not None}


# Light models -------------------------------------------------------------------------------------


def light_rows() -> list[Row]:
    """The published light models, one epoch; and the linear chain with the ReLU it lacks."""
    models = {
        "cnn": ("CNN", lambda size: LightCNN(CNN, size.classes), _both(98.47, 57.44)),
        "cnn2": ("CNN2", lambda size: LightCNN(CNN2, size.classes), _both(94.50, 49.26)),
        "fcn": ("FCN", lambda size: FCN((8, 8), size.classes), _both(89.36, 37.44)),
        "fcn_relu": ("FCN with ReLU", lambda size: FCN((8, 8), size.classes, "relu"), {}),
    }

    def learner(name: str) -> Callable[[Size, float | None], Learner]:
        label, model, _ = models[name]
        return lambda size, rate: Learner(name, label, model(size), size.config())

    return [
        Row(name, label, "light", "legacy" if printed else "clean", learner(name), printed=printed)
        for name, (label, _, printed) in models.items()
    ]


# Semi-Hebbian networks ----------------------------------------------------------------------------


def published_rule(name: str, rate: float, percentile: float = 70.0) -> PlasticityRule:
    """A rule as the published code has it: sums over the batch, and an unscaled running mean."""
    if name == "gupta":
        return thresholded_hebb(rate, percentile=percentile, baseline="published", reduction="sum")
    return {"hebb": hebb, "oja": oja}[name](rate, reduction="sum")


def _legacy_hebb(
    name: str, label: str, widths: tuple, readout: tuple, rule: str, rate: float, p: float
) -> Callable[[Size, float | None], Learner]:
    def learner(size: Size, _: float | None) -> Learner:
        features = tuple(map(size.width, widths))
        rules = {f"hebb{i}": published_rule(rule, rate, p) for i in range(len(widths))}
        return Learner(
            name,
            label,
            HebbNet(features, tuple(map(size.width, readout)), size.classes),
            size.config(
                learning_rate=rate,
                evaluations={"mnist": 24, "cifar10": 20}.get(size.data, 2),
                schedule="first_batch_per_epoch",
            ),
            rules=rules,
            rule_settings={"rule": rule, "rate": rate, "percentile": p, "reading": "published"},
        )

    return learner


_DEPTHS = {"1+4": 1, "2+3": 2, "3+2": 3, "4+1": 4}
_CHAIN = (1000, 2000, 4000, 2000)
_DEPTH_LAST = {
    "1+4": (91.67, 34.56),
    "2+3": (88.41, 33.57),
    "3+2": (93.0, 37.67),
    "4+1": (74.26, 25.5),
}
_DEPTH_MAX = {
    "1+4": (92.22, 37.86),
    "2+3": (91.88, 36.01),
    "3+2": (93.0, 38.3),
    "4+1": (74.26, 26.57),
}
# p -> (max, last) of 1+4, 2+3, 3+2 on MNIST
SWEEP = {
    10: ((86.22, 79.08), (78.21, 76.68), (79.72, 73.48)),
    20: ((86.88, 82.32), (84.41, 78.39), (86.70, 79.93)),
    30: ((87.40, 86.27), (86.37, 83.08), (90.55, 85.46)),
    40: ((88.89, 84.22), (90.36, 89.41), (91.27, 87.22)),
    50: ((89.67, 88.56), (92.08, 89.63), (91.74, 91.18)),
    60: ((91.94, 89.90), (91.89, 91.89), (92.01, 92.01)),
    70: ((92.01, 87.44), (91.70, 90.29), (91.05, 90.62)),
    80: ((91.49, 91.49), (92.26, 92.26), (92.32, 92.09)),
    90: ((91.83, 90.17), (92.44, 89.76), (91.14, 90.57)),
}


def _depth_row(depth: str, percentile: float, group: str, last: dict, highest: dict) -> Row:
    cut = _DEPTHS[depth]
    name = f"gupta{depth.replace('+', '_')}" + (f"_p{percentile:.0f}" if group == "sweep" else "")
    label = f"{depth}, p = {percentile:.0f}"
    learner = _legacy_hebb(name, label, _CHAIN[:cut], _CHAIN[cut:], "gupta", 1e-3, percentile)
    return Row(name, label, group, "legacy", learner, printed=last, printed_max=highest)


def hebb_rows() -> list[Row]:
    """The published semi-Hebbian networks: one local update an epoch, whatever the rule."""
    single = [("hebb", 0.01, 40.94), ("oja", 1e-4, 83.45), ("gupta", 1e-3, 91.98)]
    rows = [
        Row(
            f"{rule}_single",
            f"{rule}, one layer",
            "hebb",
            "legacy",
            _legacy_hebb(f"{rule}_single", f"{rule}, one layer", (2000,), (), rule, rate, 70.0),
            printed=_both(printed),
        )
        for rule, rate, printed in single
    ]
    return rows + [
        _depth_row(depth, 60, "hebb", _both(*_DEPTH_LAST[depth]), _both(*_DEPTH_MAX[depth]))
        for depth in _DEPTHS
    ]


def sweep_rows() -> list[Row]:
    """Nine percentiles at three depths, MNIST."""
    return [
        _depth_row(depth, p, "sweep", _both(values[i][1]), _both(values[i][0]))
        for p, values in SWEEP.items()
        for i, depth in enumerate(("1+4", "2+3", "3+2"))
    ]


def local_rows() -> list[Row]:
    """Rules that learn from every batch, then a linear readout; none at all, and backprop."""
    rules: dict[str, tuple[str, PlasticityRule | None, dict]] = {
        "oja_clean": ("Oja", oja(0.01), {"rule": "oja", "rate": 0.01}),
        "hebb_clean": ("Hebb, unit norm", unit_norm(hebb(0.01)), {"rule": "hebb", "rate": 0.01}),
        "gupta_clean": (
            "thresholded Hebb, p = 70 of the layer, unit norm",
            unit_norm(thresholded_hebb(0.01)),
            {"rule": "gupta", "rate": 0.01, "scope": "layer"},
        ),
        "gupta_local": (
            "thresholded Hebb, p = 70 of each unit, unit norm",
            unit_norm(thresholded_hebb(0.01, scope="unit")),
            {"rule": "gupta", "rate": 0.01, "scope": "unit"},
        ),
        "random_features": ("random features", None, {}),
    }

    def learner(name: str) -> Callable[[Size, float | None], Learner]:
        label, rule, settings = rules[name]

        def make(size: Size, _: float | None) -> Learner:
            width = size.width(2000)
            return Learner(
                name,
                label,
                HebbNet((width,), (), size.classes, deviation=size.inputs**-0.5),
                size.config(
                    epochs=10,
                    batch=100,
                    schedule="two_phase" if rule else "every_batch",
                    local_epochs=1 if rule else 0,
                ),
                rules={"hebb0": rule} if rule else {},
                rule_settings=settings,
                frozen=() if rule else ("hebb0",),
            )

        return make

    rows = [
        Row(
            name,
            label,
            "local",
            "clean" if rule else "control",
            learner(name),
            source="centred",
        )
        for name, (label, rule, _) in rules.items()
    ]

    def backprop(size: Size, _: float | None) -> Learner:
        model = FCN((size.width(2000),), size.classes, "relu")
        return Learner("backprop", "backprop", model, size.config(epochs=10, batch=100))

    return [*rows, Row("backprop", "backprop", "local", "control", backprop, source="centred")]


# Feedback alignment -------------------------------------------------------------------------------


def feedback_rows() -> list[Row]:
    """Backprop, feedback alignment and direct feedback in one MLP, each at its own best rate."""
    labels = {
        "backprop": "backprop",
        "alignment": "feedback alignment",
        "direct": "direct feedback alignment",
    }

    def learner(kind: Any) -> Callable[[Size, float | None], Learner]:
        def make(size: Size, rate: float | None) -> Learner:
            widths = (size.width(500),) * 2
            return Learner(
                f"mlp_{kind}",
                f"{labels[kind]}, MLP",
                FeedbackMLP(widths, size.classes, kind),
                size.config(epochs=10, batch=100, learning_rate=rate or 1e-3),
            )

        return make

    return [
        Row(
            f"mlp_{kind}",
            f"{label}, MLP",
            "feedback",
            "control" if kind == "backprop" else "clean",
            learner(kind),
            source="unit",
            rates=(1e-4, 3e-4, 1e-3, 3e-3),
        )
        for kind, label in labels.items()
    ]


def convolution_rows() -> list[Row]:
    """The published CNN whose dense layers are replaced by feedback alignment; and mended."""

    def learner(name: str, label: str, **how: Any) -> Callable[[Size, float | None], Learner]:
        def make(size: Size, _: float | None) -> Learner:
            blocks = SIMPLE if size.data == "mnist" else SIMPLE_CIFAR
            model = DropoutCNN(
                blocks, size.classes, how.get("feedback", "backprop"), how.get("bias", 0.0)
            )
            config = {"batch": 64, "epochs": 5, "optimizer": "sgd", **how.get("config", {})}
            return Learner(name, label, model, size.config(**config), frozen=how.get("frozen", ()))

        return make

    def row(name: str, label: str, kind: Kind, printed: dict, start: Any = None, **how: Any) -> Row:
        leaves = how.pop("leaves", ("kernel", "bias"))
        source = how.pop("source", "signed")
        return Row(
            name,
            label,
            "convolution",
            kind,
            learner(name, label, **how),
            printed=printed,
            source=source,
            start_from=start,
            start_leaves=leaves,
        )

    forgets = {"dropout_epochs": 1}
    frozen = ("conv0", "conv1")
    return [
        row(
            "simple_cnn", "CNN", "legacy", _both(97.45, 48.50),
            config={"learning_rate": 0.01, **forgets},
        ),
        row(
            "cnn_fa", "its kernels + feedback alignment", "legacy", _both(64.32, 25.90),
            "simple_cnn", feedback="alignment", bias=1.0, leaves=("kernel",),
            config={"learning_rate": 1e-4, **forgets},
        ),
        row("simple_cnn_clean", "CNN", "clean", {}, config={"learning_rate": 0.01}),
        row(
            "cnn_fa_clean", "its frozen convolutions + feedback alignment", "clean", {},
            "simple_cnn_clean", feedback="alignment", frozen=frozen,
            config={"learning_rate": 0.01},
        ),
        row(
            "cnn_retrained", "its frozen convolutions + backprop", "control", {},
            "simple_cnn_clean", frozen=frozen, config={"learning_rate": 0.01},
        ),
        row(
            "simple_cnn_adam", "CNN, Adam", "legacy", _both(98.63), source="unit",
            config={"learning_rate": 1e-3, "epochs": 10, "optimizer": "adam"},
        ),
    ]  # fmt: skip


# Competing units ----------------------------------------------------------------------------------


def _readout(
    name: str, label: str, kind: Kind, config: Mapping[str, Any], *, printed: float | None = None,
    units: Any = "competing", source: Source = "response", power: float = 4.5, group: str = "units",
    **model: Any,
) -> Row:  # fmt: skip
    def learner(size: Size, _: float | None) -> Learner:
        shape = dict(model)
        if "features" in shape:
            shape["features"] = tuple(map(size.width, shape["features"]))
        return Learner(name, label, Readout(size.classes, **shape), size.config(**config))

    return Row(
        name, label, group, kind, learner, source, units, power, printed=_both(printed)
    )  # fmt: skip


def unit_rows() -> list[Row]:
    """Everything that reads competing units out, as published and mended."""
    nll = {"batch": 64, "epochs": 10}
    bio = {"batch": 3584, "epochs": 200, "learning_rate": 1e-4, "objective": "tanh_log_power",
           "slope": 0.01}  # fmt: skip
    late = {**bio, "batch": 1024, "epochs": 10, "objective": "tanh_power"}
    tanh = {**nll, "objective": "tanh_entropy", "slope": 0.01}
    three: dict[str, Any] = {"features": (256, 1024), "unit_bias": "relu", "source": "drive"}
    legacy = [
        _readout("units_power", "power units + dense", "legacy", bio, printed=97.08,
                 use_bias=False),
        _readout("units_power_fa", "power units + feedback alignment", "legacy", bio,
                 printed=95.69, use_bias=False, feedback="alignment"),
        _readout("units_power_v2", "power units + dense, tanh output, 10 epochs", "legacy", late,
                 printed=92.0, use_bias=False),
        _readout("units_tanh", "power units + dense, likelihood", "legacy", tanh, printed=76.58,
                 use_bias=False),
        _readout("units_tanh_fa", "power units + feedback alignment, likelihood", "legacy", tanh,
                 printed=64.25, use_bias=False, feedback="alignment"),
        _readout("units_3fc", "units + 3 dense", "legacy", nll, printed=94.26, **three),
        _readout("units_3fa", "units + 3 feedback alignment", "legacy", nll, printed=90.41,
                 feedback="alignment", bias=1.0, **three),
        _readout("units_linear", "drive + dense", "legacy", {**nll, "epochs": 20}, printed=87.10,
                 source="drive", use_bias=False),
        _readout("units_no_softmax", "drive + dense, softmax forgotten", "legacy",
                 {**nll, "epochs": 20, "objective": "likelihood"}, printed=11.35, source="drive",
                 unit_bias="linear"),
    ]  # fmt: skip
    mended = {"batch": 512, "epochs": 200, "learning_rate": 3e-4, "optimizer": "adam_cosine",
              "objective": "tanh_power", "slope": 0.01}  # fmt: skip
    linear = {"batch": 512, "epochs": 20, "learning_rate": 1e-3, "optimizer": "adam_cosine"}
    clean = [
        _readout("units_clean", "power units + dense", "clean", mended, use_bias=False),
        _readout("units_clean_fa", "power units + feedback alignment (no-op)", "clean", mended,
                 use_bias=False, feedback="alignment"),
        _readout("random_power", "random power units + dense", "control", mended, use_bias=False,
                 units="random"),
        _readout("units_3fc_clean", "units + 3 dense", "control", nll, **three),
        _readout("units_3fa_clean", "units + 3 feedback alignment", "clean", nll,
                 feedback="alignment", **three),
        _readout("units_standard", "standardised units + dense", "clean", linear,
                 source="standard"),
        _readout("random_standard", "standardised random units + dense", "control", linear,
                 source="standard", units="random"),
    ]  # fmt: skip

    def backprop(size: Size, _: float | None) -> Learner:
        model = FCN((size.width(2000),), size.classes, "relu")
        config = {"batch": 512, "epochs": 20, "learning_rate": 1e-3, "optimizer": "adam_cosine"}
        return Learner("units_backprop", "backprop, as many units", model, size.config(**config))

    end_to_end = Row("units_backprop", "backprop, as many units", "units", "control", backprop,
                     source="unit")  # fmt: skip
    return [*legacy, *clean, end_to_end]


GROUPS: Mapping[str, Callable[[], list[Row]]] = MappingProxyType(
    {
        "light": light_rows,
        "hebb": hebb_rows,
        "sweep": sweep_rows,
        "local": local_rows,
        "feedback": feedback_rows,
        "convolution": convolution_rows,
        "units": unit_rows,
    }
)
"""Name of a study -> its rows."""


def with_scaling(learner: Learner, scaling_rate: float) -> Learner:
    """The same learner with SynScaW on top."""
    name, label = f"{learner.name}_synscaw", f"{learner.label} + SynScaW"
    return dataclasses.replace(learner, name=name, label=label, scaling_rate=scaling_rate)
