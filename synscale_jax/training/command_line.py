"""The command line of an experiment: presets, and refusals in one sentence."""

from __future__ import annotations

import contextlib
import io
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tyro

from synscale_jax.data import DataNotAvailable
from synscale_jax.report.collect import ResultError
from synscale_jax.training.runs import RunError, same_command


def run_experiment(
    main: Callable[[Any], Any], config_type: type, presets: Mapping[str, Any]
) -> None:
    """Parse the command line over a preset, run, and turn refusals into one sentence.

    ``--preset NAME`` gives the defaults that every other option overrides.

    Args:
      main: takes the resolved config.
      config_type: a frozen dataclass with a field ``preset``.
      presets: name -> config.
    """
    try:
        config = resolve(config_type, presets, sys.argv[1:])
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    try:
        main(config)
    except (RunError, ResultError, DataNotAvailable) as error:
        raise SystemExit(f"error: {error}") from None
    except KeyboardInterrupt:  # while nothing was training, or the second one
        again = same_command(getattr(config, "restart", False))
        print(f"\nstopped; {again} goes on from the last checkpoint.", file=sys.stderr)
        raise SystemExit(130) from None


def resolve(config_type: type, presets: Mapping[str, Any], arguments: list[str]) -> Any:
    """The config that a command line asks for."""
    name = default_preset()
    if name not in presets:  # an experiment without one for this machine: its largest
        name = [*presets][-1]
    for index, argument in enumerate(arguments):
        if argument == "--preset" and index + 1 < len(arguments):
            name = arguments[index + 1]
        elif argument.startswith("--preset="):
            name = argument.removeprefix("--preset=")
    if name not in presets:
        raise ValueError(f"--preset {name} is unknown: use one of {', '.join(presets)}.")
    heard = io.StringIO()
    try:
        with contextlib.redirect_stderr(heard):
            return tyro.cli(config_type, default=presets[name], args=arguments)
    except SystemExit as stop:
        if refusal := _refusal_behind(stop):
            raise refusal from None
        sys.stderr.write(heard.getvalue())
        raise


def _refusal_behind(stop: BaseException) -> ValueError | None:
    """The sentence of a config's own check, which tyro would break over the lines of a box."""
    error = stop.__context__
    while error is not None:
        frames = [frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)]
        if isinstance(error, ValueError) and "__post_init__" in frames:
            return error
        error = error.__context__
    return None


def check_seeds(seeds: Sequence[int]) -> None:
    """Refuse seeds of which there are none, that repeat themselves, or that no folder is for.

    Raises:
      ValueError: in one sentence.
    """
    _each_once("seeds", seeds)
    if min(seeds) < 0:
        raise ValueError(f"seeds={seeds} has a negative seed: use 0 or more.")


def check_each_once(config: Any, *names: str) -> None:
    """Refuse fields of a config that name nothing or one thing twice.

    Raises:
      ValueError: with the first field that is wrong.

    Examples:
      >>> from types import SimpleNamespace
      >>> from synscale_jax.training.command_line import check_each_once
      >>> check_each_once(SimpleNamespace(cells=("mnist-mlp", "mnist-mlp")), "cells")
      Traceback (most recent call last):
      ...
      ValueError: cells=('mnist-mlp', 'mnist-mlp') is empty or repeats itself: name each one once.
    """
    for name in names:
        _each_once(name, getattr(config, name))


def _each_once(name: str, values: Sequence[Any]) -> None:
    if not values or len(set(values)) != len(values):
        raise ValueError(f"{name}={values} is empty or repeats itself: name each one once.")


def check_numbers(config: Any, **least: float) -> None:
    """Refuse fields of a config that are too small or no numbers; called in ``__post_init__``.

    Args:
      config: whose fields are looked at; in a tuple, every one; None passes.
      **least: field -> the least that it may be.

    Raises:
      ValueError: with the first field that is wrong.

    Examples:
      >>> from types import SimpleNamespace
      >>> from synscale_jax.training.command_line import check_numbers
      >>> check_numbers(SimpleNamespace(epochs=0), epochs=1)
      Traceback (most recent call last):
      ...
      ValueError: epochs=0: use 1 or more.
    """
    for name, bound in least.items():
        value = getattr(config, name)
        numbers = value if isinstance(value, tuple) else () if value is None else (value,)
        for number in numbers:
            if not bound <= number < float("inf"):
                raise ValueError(f"{name}={value}: use {bound:g} or more.")


def default_preset() -> str:
    """``"paper"`` where an accelerator is found, else ``"laptop"``."""
    import jax

    return "laptop" if jax.default_backend() == "cpu" else "paper"
