"""SynScaW: scale the weights between training steps."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from synscale_jax.scaling._activations import Activation, activation_function
from synscale_jax.scaling._gap import LayerInputs, Number, Reading
from synscale_jax.scaling._layers import (
    Layer,
    Path,
    is_hole,
    layers_from_names,
    leaves_by_path,
    path_of,
)
from synscale_jax.scaling._step import Limits, heard_inputs, scaling_step

MISSING_ACTIVITY = (
    "synscaw(measured_on='batch') needs the batch's mean activities: call "
    "`optimizer.update(grads, state, params, activity=activity)` with what a collector of "
    "synscale_jax.adapters returned. TrainState.apply_gradients and "
    "MultiSteps(...).gradient_transformation() drop extra arguments: call state.tx.update "
    "yourself, or wrap MultiSteps in GradientTransformationExtraArgs(ms.init, ms.update). "
    "measured_on='noise' needs no activity."
)

STATIC_ARGS = (
    "measured_on",
    "granularity",
    "norm_reading",
    "every_k",
    "restore_norm",
    "skip_silent_inputs",
    "scale_output",
    "noise_batch",
    "seed",
    "layers",
    "activation",
    "mask",
)
"""What ``optax.inject_hyperparams(synscaw, static_args=STATIC_ARGS)`` must leave alone: it takes
callables for schedules and numbers for traced values, and would switch a ``mask`` off unnoticed."""


class SynScaWState(NamedTuple):
    """State of :func:`synscaw`."""

    count: Array  # shape=(), dtype=int32: optimizer steps seen
    mean_gap: dict[str, Array]  # layer name -> mean |ẑ| when last scaled, shape=(), float32


class _Factors(NamedTuple):
    """What a layer's scaling step needs beside its weights."""

    gap: Array  # ẑ, shape=(neurons...), float32
    heard: Array | None  # which inputs count, broadcastable to the kernel, bool


def synscaw(
    scaling_rate: optax.ScalarOrSchedule = 0.01,
    *,
    target: str | Number = "layer_noise",
    measured_on: str = "batch",
    granularity: str = "neuron",
    norm_reading: str = "pre_norm",
    every_k: int = 1,
    clip: Number | None = None,
    max_relative_change: Number | None = None,
    restore_norm: bool = True,
    skip_silent_inputs: bool = False,
    scale_output: bool | None = None,
    layers: Sequence[Layer] | None = None,
    activation: Activation = "relu",
    mask: Any | Callable[[Any], Any] | None = None,
    noise_batch: int = 100,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    r"""SynScaW: scale weights by the gap between target and measured activity.

    Comes last in a chain. With p the parameters, u the update of the optimizer before it, γ the
    scaling rate and w = p + u the weights that u leads to, the transform returns

    .. math::
        u + \gamma \, w^2 \, \hat z, \qquad \hat z = \bar z_{target} - \bar z

    elementwise, and u itself, to the bit, where ẑ is zero. :math:`\bar z` is a neuron's mean
    activity φ(W x + b) over the batch, passed to ``update`` as ``activity=``. Biases and
    normalisations are never scaled. The step does not pass through the optimizer's moments, and
    gradients clipped before it stay as they are.

    The paper leaves open what exactly the target is, where activity is measured and what keeps the
    rule stable; each reading has a name here.

    ================ ========================= ====================================================
    argument         value                     meaning
    ================ ========================= ====================================================
    ``target``       ``"layer_noise"``         mean of φ(W u + b), u ~ U(−1, 1), in closed form: the
                                               drive is taken as Gaussian with mean b and variance
                                               Σ w² / 3
    ..               ``"layer_noise_sampled"`` the same over ``noise_batch`` random inputs
    ..               ``"uniform"``             E[φ(u)]: ReLU 1/4, sigmoid 1/2, tanh 0 (eq. 16)
    ..               a number                  constant; the authors' notebook: 0.1
    ``measured_on``  ``"batch"``               ``activity=`` of the training batch (eq. 15)
    ..               ``"noise"``               U(−1, 1) + 0.1 through each layer alone (notebook)
    ``granularity``  ``"neuron"``              one ẑ a neuron
    ..               ``"layer"``               one ẑ a layer, the mean over its neurons (notebook)
    ``norm_reading`` ``"pre_norm"``            a normalised layer is read before its norm
    ..               ``"batch_norm"``          behind it, noise normalised by its own statistics
    ..               ``"running_norm"``        behind it, noise through the running statistics
    ================ ========================= ====================================================

    .. rubric:: Stability

    As the text has it (``restore_norm=False, scale_output=True``) the rule diverges: dw/dt = γ ẑ w²
    reaches infinity in finite time wherever the gap does not close. On the paper's MNIST network it
    took 7 epochs at γ = 0.01 and one at 0.1, with a sampled target and without the output layer no
    longer. The default restores each neuron's weight norm after scaling and leaves the output layer
    out. Of what keeps weights below 10 for 200 epochs at γ 0.01 and 0.1 it is the closest to the
    text with which no network of three is worse than its baseline beyond chance: held-out error
    1.97, 1.78 and 1.79 % at 0.01 and 1.79, 1.70 and 1.75 % at 0.1, against 1.85, 1.64 and 1.67 %.
    It is not harmless: at 24 epochs, with ten seeds, γ = 0.01 ends at 2.22 % test error against
    1.63 % (Δ +0.33 to +0.82 points). With the output layer scaled, too, as without a table, two of
    the three are worse at 0.01 (2.01, 1.95 and 2.16 %). ``experiments/default_reading.py`` has
    every candidate's figures.

    Args:
      scaling_rate: γ, a number of 0 or more or a schedule of the step count.
      target: see the table.
      measured_on: see the table.
      granularity: see the table.
      norm_reading: see the table. The two behind the norm need a table with norms in ``layers``,
        and ``"running_norm"`` needs ``batch_stats=`` in ``update``.
      every_k: scale after every k-th optimizer step; the others pass unchanged.
      clip: bound on w² ẑ, before γ (the notebook: 1).
      max_relative_change: bound on the relative change of a weight in one step; restoring the norm
        afterwards may add as much again.
      restore_norm: shrink each neuron's scaled weight vector back to the norm it had, so that
        scaling shifts weight between synapses and cannot run away.
      skip_silent_inputs: leave out synapses whose input was zero throughout the batch; needs
        ``presynaptic=`` in ``update``. The norm is then that of the others.
      scale_output: whether to scale the output layer, whose activity the task sets. By default it
        is left out where ``layers`` marks one, ``Layer(..., output=True)``; names alone do not tell
        which layer it is, so without a table all are scaled, and False is refused.
      layers: the layer table, ``model.layer_table()`` or :func:`adapters.linen.layers_of`; without
        one every leaf called ``kernel`` is a layer (see :func:`layers_from_names`).
      activation: φ of every layer, where no table says it.
      mask: a tree of booleans, of the parameters' structure or a prefix of it, or a function from
        parameters to one; False leaves a layer alone. Under :func:`optax.masked` biases are hidden
        and the noise targets refuse; this mask has no such trap.
      noise_batch: random inputs in the sampled readings.
      seed: of the sampled readings; noise is a function of the seed and the step.

    Returns:
      A :class:`optax.GradientTransformationExtraArgs` with state :class:`SynScaWState`, which
      holds mean abs(ẑ) of each layer. ``update`` takes ``params`` and, by name, ``activity``,
      ``presynaptic`` and ``batch_stats``.

    Raises:
      ValueError: at once for settings that are no reading; when traced for a missing or misshapen
        ``activity``, a bias hidden by a mask, or a kernel whose neurons cannot be told.

    Examples:
      >>> import jax.numpy as jnp, optax, synscale_jax as ss
      >>> params = {"dense": {"kernel": jnp.array([[1.0, 2.0], [-1.0, 1.0]]), "bias": jnp.zeros(2)}}
      >>> optimizer = optax.chain(optax.sgd(0.1), ss.synscaw(0.01, target=0.5, restore_norm=False))
      >>> state = optimizer.init(params)
      >>> grads = optax.tree.zeros_like(params)
      >>> activity = {"dense": jnp.array([0.5, 1.5])}  # the first neuron is where it should be
      >>> updates, state = optimizer.update(grads, state, params, activity=activity)
      >>> updates["dense"]["kernel"].tolist()
      [[-0.0, -0.0399...], [-0.0, -0.0099...]]

      The authors' notebook, for 600 steps an epoch:

      >>> notebook = ss.synscaw(0.1, target=0.1, measured_on="noise", granularity="layer",
      ...                       clip=1.0, every_k=600, restore_norm=False, scale_output=True)

      Under ``inject_hyperparams`` callables and counts must be kept static:

      >>> tx = optax.inject_hyperparams(ss.synscaw, static_args=ss.STATIC_ARGS)(scaling_rate=0.01)

    .. note::
      ``MultiSteps`` hands on the last micro-batch's activity only: average it yourself if that
      matters. ``TrainState.apply_gradients`` drops extra arguments; use
      ``synscale_jax.adapters.linen.ScalingTrainState``.

    References:
      Hofmann and Mäder, `Synaptic Scaling: An Artificial Neural Network Regularization Inspired by
      Nature <https://doi.org/10.1109/TNNLS.2021.3050422>`_, IEEE TNNLS 33(7), 2022, eq. 14 to 16.
    """
    reading = Reading(target, measured_on, granularity, norm_reading, noise_batch, seed)
    _validate(scaling_rate, every_k, clip, max_relative_change)
    activation_function(activation)
    if wrong := [layer for layer in layers or () if not isinstance(layer, Layer)]:
        raise ValueError(
            f"layers= holds {wrong[0]!r}, which is no Layer: give a table as model.layer_table() "
            "and adapters' layers_of return it."
        )
    limits = Limits(clip, max_relative_change, restore_norm)
    if scale_output is False and not any(layer.output for layer in layers or ()):
        raise ValueError(
            "scale_output=False needs to know the output layer: give layers= a table with one "
            "Layer(..., output=True), as model.layer_table() and adapters' layers_of do."
        )
    if layers is not None and not len(layers):
        raise ValueError("layers=() scales nothing: give a table, or None for names by convention.")
    if layers and not scale_output and all(layer.output for layer in layers):
        raise ValueError(
            f"layers= holds no layer but the output, {layers[-1].name}, which is left out: "
            "scale_output=True scales it."
        )

    def table(params: Any) -> tuple[Layer, ...]:
        if layers is None:
            return layers_from_names(params, activation)
        return tuple(layer for layer in layers if scale_output or not layer.output)

    def init_fn(params: Any) -> SynScaWState:
        inputs = LayerInputs(params, None, None)
        names = [layer.name for layer in table(params) if inputs.kernel(layer) is not None]
        return SynScaWState(
            jnp.zeros([], jnp.int32), {name: jnp.zeros([], jnp.float32) for name in names}
        )

    def measure(
        state: SynScaWState, params: Any, inputs: LayerInputs, presynaptic: Any
    ) -> tuple[dict[Path, _Factors], dict[str, Array]]:
        step_key = None
        if reading.needs_noise:
            step_key = jax.random.fold_in(jax.random.key(reading.seed), state.count)
        entered = leaves_by_path({} if presynaptic is None else presynaptic)
        allowed = mask_flags(mask, params)
        gaps, factors = {}, {}
        for layer in table(params):
            kernel = inputs.kernel(layer)
            if kernel is None:
                continue
            gap = reading.gap(
                layer,
                kernel,
                inputs.bias(layer, reading),
                inputs.norm(layer, reading),
                inputs.activity(layer, kernel) if reading.measured_on == "batch" else None,
                None if step_key is None else jax.random.fold_in(step_key, _stream(layer)),
            )
            gaps[layer.name] = jnp.mean(jnp.abs(gap))
            path = (*layer.path, layer.kernel)
            if allowed is None or allowed[path]:
                heard = heard_inputs(layer, kernel, entered) if skip_silent_inputs else None
                factors[path] = _Factors(gap, heard)
        return factors, gaps

    def apply(updates: Any, state: SynScaWState, params: Any, factors: dict) -> Any:
        rate = jnp.asarray(
            scaling_rate(state.count) if callable(scaling_rate) else scaling_rate, jnp.float32
        )
        changes = {
            path: (layer, *factors[path])
            for layer in table(params)
            if (path := (*layer.path, layer.kernel)) in factors
        }
        return _apply(updates, params, changes, rate, limits)

    def update_fn(
        updates: Any,
        state: Any,
        params: Any = None,
        *,
        activity: Any = None,
        presynaptic: Any = None,
        batch_stats: Any = None,
        **extra_args: Any,
    ) -> tuple[Any, SynScaWState]:
        del extra_args
        if params is None:
            raise ValueError("synscaw scales weights: call update(updates, state, params, ...).")
        if activity is None and reading.measured_on == "batch":
            raise ValueError(MISSING_ACTIVITY)
        inputs = LayerInputs(params, activity, batch_stats)
        count = jnp.asarray(optax.safe_increment(state.count))
        due = count % every_k == 0

        def measured() -> tuple[dict[Path, _Factors], dict[str, Array]]:
            return measure(state, params, inputs, presynaptic)

        def scaled() -> tuple[Any, dict[str, Array]]:
            factors, gaps = measured()
            return apply(updates, state, params, factors), gaps

        if every_k == 1:
            updates, gaps = scaled()
        elif restore_norm:  # its sums over the weights belong into the branch, too
            updates, gaps = jax.lax.cond(due, scaled, lambda: (updates, state.mean_gap))
        else:
            # ẑ = 0 changes nothing. Updates that come out of a branch are written to memory first,
            # and are no longer fused with the optimizer's arithmetic: 5 % of an MLP's step.
            idle = jax.eval_shape(measured)[0]
            factors, gaps = jax.lax.cond(
                due,
                measured,
                lambda: (jax.tree.map(lambda f: jnp.zeros(f.shape, f.dtype), idle), state.mean_gap),
            )
            updates = apply(updates, state, params, factors)
        return updates, SynScaWState(count, gaps)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _stream(layer: Layer) -> int:
    """A layer's own stream of noise, whatever else is in the table."""
    return zlib.crc32(layer.name.encode())


def _apply(updates: Any, params: Any, changes: dict, rate: Array, limits: Limits) -> Any:
    """Add the scaling step to the updates of the layers in ``changes``."""

    def scale_leaf(key_path: Any, update: Any, param: Any) -> Any:
        change = changes.get(path_of(key_path))
        if change is None or is_hole(update) or is_hole(param):
            return update
        layer, gap, heard = change
        wide = np.promote_types(param.dtype, jnp.float32)
        weights = param.astype(wide) + update.astype(wide)
        step = scaling_step(weights, gap, layer, rate, limits, heard)
        scaled = (update.astype(wide) + step).astype(update.dtype)
        return jnp.where(step == 0, update, scaled)  # −0 + 0 would lose the sign bit

    return jax.tree_util.tree_map_with_path(scale_leaf, updates, params, is_leaf=is_hole)


def mask_flags(mask: Any, params: Any) -> dict | None:
    """The mask as one flag a leaf path."""
    if mask is None:
        return None
    flags = mask(params) if callable(mask) else mask
    spread = jax.tree.map(
        lambda flag, part: jax.tree.map(lambda _: flag, part, is_leaf=is_hole), flags, params
    )
    return leaves_by_path(spread)


def _validate(
    scaling_rate: optax.ScalarOrSchedule,
    every_k: int,
    clip: Number | None,
    max_relative_change: Number | None,
) -> None:
    if isinstance(scaling_rate, str | None) or (
        isinstance(scaling_rate, int | float | np.number) and not 0 <= scaling_rate < float("inf")
    ):
        raise ValueError(
            f"scaling_rate={scaling_rate!r} is no rate: use a number of 0 or more (the paper: "
            "0.01) or a schedule."
        )
    if not isinstance(every_k, int | np.integer) or every_k < 1:
        raise ValueError(
            f"every_k={every_k!r} is no number of steps: use 1 or more (under "
            "optax.inject_hyperparams pass static_args=synscale_jax.STATIC_ARGS)."
        )
    if clip is not None and max_relative_change is not None:
        raise ValueError(
            f"clip={clip} and max_relative_change={max_relative_change} both bound a step: "
            "give one of them."
        )
    for name, bound in (("clip", clip), ("max_relative_change", max_relative_change)):
        if isinstance(bound, int | float | np.number) and not bound > 0:  # nan, too
            raise ValueError(f"{name}={bound} leaves no step: use a positive number or None.")
