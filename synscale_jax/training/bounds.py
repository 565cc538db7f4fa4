"""Methods with bottlenecks attached, and what the bottlenecks measure during a run."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from synscale_jax.adapters.bounds import Mode, VariationalBound, bounds_loss, codes_of, decoded
from synscale_jax.analysis.information import code_information, gaussian_rate, label_information
from synscale_jax.data import Split
from synscale_jax.training.loop import Measures
from synscale_jax.training.methods import Method
from synscale_jax.training.program import Program, TrainState

# Codes drawn for the estimates have keys of their own: training's derive from the run's seed.
_KEY = 17


def with_bounds(
    method: Method,
    places: tuple[str, ...],
    *,
    strength: float,
    mode: Mode = "joint",
    features: int = 256,
    samples: int = 12,
) -> Method:
    """A method whose model carries a bottleneck at each place, see :class:`VariationalBound`.

    Args:
      method: what is trained with, on a model with a field ``num_classes``; SynScaW scales the
        model's own layers only.
      places: names of modules of the model, whose input is read.
      strength: β, the weight of the KL; the paper prints none.
      mode: ``"joint"`` or ``"probe"``.
      features: N; the paper prints none.
      samples: codes drawn for each example.

    Raises:
      ValueError: for settings that :class:`VariationalBound` or :func:`bounds_loss` refuses, when
        the program is made.
    """

    def model(plain: Any) -> VariationalBound:
        inner = method.model(plain)
        return VariationalBound(
            inner, places, inner.num_classes, mode, features=features, samples=samples
        )

    def sown_loss(logits: Array, labels: Array, sown: Mapping[str, Any]) -> Array:
        added = bounds_loss(sown, labels, strength=strength)
        return method.sown_loss(logits, labels, sown) + added

    bounds = {
        "mode": mode,
        "places": list(places),
        "strength": strength,
        "features": features,
        "samples": samples,
    }
    return dataclasses.replace(
        method, settings={**method.settings, "bounds": bounds}, model=model, sown_loss=sown_loss
    )


class _Drawn(NamedTuple):
    """One code an example, and what the decoder makes of it; arrays on the host."""

    means: Any  # shape=(examples, features)
    deviations: Any  # shape=(examples, features)
    codes: Any  # shape=(examples, features)
    log_probabilities: Any  # shape=(examples, classes)


def rates(program: Program, state: TrainState, *, examples: int = 10_000) -> dict[str, Any]:
    """Rate and label information at each place, on training and test examples.

    Args:
      program: of a method from :func:`with_bounds`.
      state: of training.
      examples: how many of each split, from its head.

    Returns:
      ``{"train": {place: {"rate": bits, "label": bits}}, "test": ...}``, with the number of
      examples and H(Y) of each split beside the places.
    """
    return _by_split(program, state, examples, _rates)


def informations(program: Program, state: TrainState, *, examples: int = 10_000) -> dict[str, Any]:
    """As :func:`rates`, with the bounds from samples and their flags; slower.

    Its work grows with the square of the examples: half a second of one core a place and split for
    2500 examples and 256 units.
    """
    return _by_split(program, state, examples, _everything)


def bounds_measures(examples: int = 10_000) -> Measures:
    """Rates after each epoch, all bounds at the end; kept in the result."""

    def each_epoch(program: Program, state: TrainState) -> Mapping[str, Any]:
        return {"bounds": rates(program, state, examples=examples)}

    def at_end(program: Program, first: TrainState, last: TrainState) -> Mapping[str, Any]:
        del first
        return {"bounds": informations(program, last, examples=examples)}

    return Measures(each_epoch=each_epoch, at_end=at_end, settings={"examples": examples})


def _by_split(
    program: Program, state: TrainState, examples: int, summary: Callable[[_Drawn, Any], dict]
) -> dict[str, Any]:
    found = {}
    for name, split in (("train", program.splits.train), ("test", program.splits.test)):
        count = min(examples, len(split.labels))
        labels = np.asarray(split.labels[:count])
        drawn = _draw(program, state, split, count)
        found[name] = {place: summary(part, labels) for place, part in drawn.items()}
    return found


def _rates(drawn: _Drawn, labels: Any) -> dict[str, Any]:
    about = label_information(drawn.log_probabilities, labels)
    return {
        "rate": float(gaussian_rate(drawn.means, drawn.deviations).mean()),
        "label": about.bits,
        "label_entropy": about.entropy,
        "examples": about.examples,
    }


def _everything(drawn: _Drawn, labels: Any) -> dict[str, Any]:
    found = code_information(drawn.means, drawn.deviations, drawn.codes)
    return {
        **_rates(drawn, labels),
        "upper": found.upper,
        "lower": found.lower,
        "ceiling": found.ceiling,
        "flags": list(found.flags),
    }


def _draw(program: Program, state: TrainState, split: Split, count: int) -> dict[str, _Drawn]:
    """Codes of the first ``count`` examples at each place, a batch of evaluation at a time."""
    run, key = _drawer(program), jax.random.key(_KEY)
    size = program.config.eval_batch
    images: Any = split.images[:count]
    parts = [
        jax.device_get(run(state, images[start : start + size], jax.random.fold_in(key, start)))
        for start in range(0, count, size)
    ]
    return {
        place: _Drawn(*map(np.concatenate, zip(*(part[place] for part in parts), strict=True)))
        for place in parts[0]
    }


@functools.lru_cache(maxsize=1)  # compiled once a program
def _drawer(program: Program) -> Callable[[TrainState, Array, Array], dict[str, _Drawn]]:
    model = program.model
    if not isinstance(model, VariationalBound):
        raise ValueError(
            f"{program.method.label} has no bounds to measure: make the method with with_bounds."
        )

    @jax.jit
    def run(state: TrainState, images: Array, key: Array) -> dict[str, _Drawn]:
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        found = {}
        for index, (place, code) in enumerate(
            codes_of(model, variables, program.pixels(images)).items()
        ):
            shape = (model.samples, *code.mean.shape)
            noise = jax.random.normal(jax.random.fold_in(key, index), shape)
            codes = code.mean[None] + code.deviation[None] * noise
            log_q = decoded(model, state.params, place, codes).mean(0)
            found[place] = _Drawn(code.mean, code.deviation, codes[0], log_q)
        return found

    return run
