"""The comparison's networks with local rules: as published, and learning from every batch."""

from __future__ import annotations

from collections.abc import Callable

from synscale_jax.models.convnet import FCN, HebbNet
from synscale_jax.plasticity import PlasticityRule, hebb, oja, thresholded_hebb, unit_norm
from synscale_jax.training.plasticity_learner import Learner
from synscale_jax.training.plasticity_rows import Row, Size, by_data


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


def sweep_name(depth: str, percentile: float) -> str:
    """The row of a depth such as ``"1+4"`` at a percentile; 60 is the comparison of depths' own."""
    return f"gupta{depth.replace('+', '_')}" + (f"_p{percentile:.0f}" if percentile != 60 else "")


def _depth_row(depth: str, percentile: float, group: str, last: dict, highest: dict) -> Row:
    cut, name = _DEPTHS[depth], sweep_name(depth, percentile)
    label = f"{depth}, p = {percentile:.0f}"
    learner = _legacy_hebb(name, label, _CHAIN[:cut], _CHAIN[cut:], "gupta", 1e-3, percentile)
    return Row(name, label, group, "legacy", learner, printed=last, printed_max=highest)


def hebb_rows() -> list[Row]:
    """The published semi-Hebbian networks: one local update an epoch, whatever the rule."""
    single = [
        ("hebb", "Hebb", 0.01, 40.94),
        ("oja", "Oja", 1e-4, 83.45),
        ("gupta", "thresholded Hebb", 1e-3, 91.98),
    ]
    rows = [
        Row(
            f"{rule}_single",
            f"{label}, one layer",
            "hebb",
            "legacy",
            _legacy_hebb(f"{rule}_single", f"{label}, one layer", (2000,), (), rule, rate, 70.0),
            printed=by_data(accuracy),
        )
        for rule, label, rate, accuracy in single
    ]
    return rows + [
        _depth_row(depth, 60, "hebb", by_data(*_DEPTH_LAST[depth]), by_data(*_DEPTH_MAX[depth]))
        for depth in _DEPTHS
    ]


def sweep_rows() -> list[Row]:
    """Nine percentiles at three depths, MNIST; those of 60 are the runs of :func:`hebb_rows`."""
    return [
        _depth_row(depth, p, "sweep", by_data(values[i][1]), by_data(values[i][0]))
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
