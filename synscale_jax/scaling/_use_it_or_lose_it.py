"""Use it or lose it: weights of inputs that stay silent decay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from synscale_jax.scaling._gap import Number
from synscale_jax.scaling._layers import (
    Layer,
    is_hole,
    layers_from_names,
    leaves_by_path,
    path_of,
)
from synscale_jax.scaling._synscaw import mask_flags


class UseItOrLoseItState(NamedTuple):
    """State of :func:`use_it_or_lose_it`."""

    silent: dict[str, Array]  # layer name -> steps since each input's last use, (inputs,), int32


def use_it_or_lose_it(
    time_constant: Number = 1000.0,
    *,
    threshold: float = 0.0,
    layers: Sequence[Layer] | None = None,
    mask: Any | Callable[[Any], Any] | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Use it or lose it: weights decay as a Gaussian of the time their input has been silent.

    Comes last in a chain. With p the parameters, u the update of the optimizer before it, n the
    steps since an input was last used and w = p + u its weights, the transform returns the update
    that leads to

    .. math::
        w \, e^{-(n^2 - (n - 1)^2) / \tau^2}, \qquad n \ge 1,

    so that a weight nobody else changes is :math:`e^{-n^2 / \tau^2}` of what it was after n silent
    steps, and u itself, to the bit, where the input was used. Used means that its absolute value
    exceeded ``threshold`` somewhere in the batch. Biases and normalisations are left alone.

    The rule stems from a spiking network (:mod:`synscale_jax.spiking`); its transfer to ordinary
    ones, with optimizer steps for time, is ours.

    Args:
      time_constant: τ in optimizer steps.
      threshold: what an input must exceed to be used; behind a sigmoid nothing is ever 0.
      layers: the layer table, ``model.layer_table()`` or ``adapters.linen.layers_of``; without
        one every leaf called ``kernel`` is a layer (see :func:`layers_from_names`).
      mask: a tree of booleans, of the parameters' structure or a prefix of it, or a function from
        parameters to one; False leaves a layer alone.

    Returns:
      A :class:`optax.GradientTransformationExtraArgs` with state :class:`UseItOrLoseItState`.
      ``update`` takes ``params`` and, by name, ``presynaptic``: what entered each layer, batch
      kept, from a collector of ``synscale_jax.adapters`` called with ``presynaptic=True``.

    Raises:
      ValueError: at once for a τ that is not positive or a threshold that is not 0 or more; in
        ``init`` for a layer whose kernel is not there; when traced for missing or misshapen
        ``presynaptic``.

    Examples:
      >>> import jax.numpy as jnp, optax, synscale_jax as ss
      >>> params = {"dense": {"kernel": jnp.ones((2, 1)), "bias": jnp.zeros(1)}}
      >>> optimizer = optax.chain(optax.sgd(0.1), ss.scaling.use_it_or_lose_it(10.0))
      >>> state = optimizer.init(params)
      >>> grads = optax.tree.zeros_like(params)
      >>> entered = {"dense": jnp.array([[0.5, 0.0], [0.1, 0.0]])}  # the second input is silent
      >>> for _ in range(10):
      ...     updates, state = optimizer.update(grads, state, params, presynaptic=entered)
      ...     params = optax.apply_updates(params, updates)
      >>> params["dense"]["kernel"].round(3).tolist()  # the second one: exp(−1)
      [[1.0], [0.368...]]

    References:
      Antonov and Sukhov, Weight regularization in spiking neural networks, Proc. XXXII workshop
      Neuroinformatics, Krasnoyarsk 2024, eq. 5, for the decay.
    """
    if isinstance(time_constant, int | float | np.number) and not time_constant > 0:
        raise ValueError(f"time_constant={time_constant}: use a positive number of steps.")
    if isinstance(threshold, int | float | np.number) and not threshold >= 0:
        raise ValueError(f"threshold={threshold}: absolute values exceed it always, use 0 or more.")

    def chosen(params: Any) -> dict[str, tuple[Layer, Any]]:
        leaves = leaves_by_path(params)
        table = layers_from_names(params) if layers is None else layers
        for layer in table:
            if (*layer.path, layer.kernel) not in leaves:
                raise ValueError(
                    f"layer {layer.name!r} has no {layer.kernel!r} among the parameters "
                    f"{', '.join(sorted('/'.join(path) for path in leaves))}: name one of them."
                )
        found = {layer.name: (layer, leaves.get((*layer.path, layer.kernel))) for layer in table}
        return {name: pair for name, pair in found.items() if not is_hole(pair[1])}

    def init_fn(params: Any) -> UseItOrLoseItState:
        return UseItOrLoseItState(
            {
                name: jnp.zeros(kernel.shape[_input_axis(layer, kernel)], jnp.int32)
                for name, (layer, kernel) in chosen(params).items()
            }
        )

    def update_fn(
        updates: Any, state: Any, params: Any = None, *, presynaptic: Any = None, **extra_args: Any
    ) -> tuple[Any, UseItOrLoseItState]:
        del extra_args
        if params is None:
            raise ValueError(
                "use_it_or_lose_it decays weights: call update(updates, state, params, ...)."
            )
        entered = leaves_by_path({} if presynaptic is None else presynaptic)
        allowed = mask_flags(mask, params)
        silent, factors = {}, {}
        for name, (layer, kernel) in chosen(params).items():
            used = _used(layer, kernel, entered.get(layer.path), threshold)
            silent[name] = jnp.where(used, 0, state.silent[name] + 1)
            path = (*layer.path, layer.kernel)
            if allowed is None or allowed[path]:
                factors[path] = _loss(silent[name], time_constant, layer, kernel)

        def decay(key_path: Any, update: Any, param: Any) -> Any:
            lost = factors.get(path_of(key_path))
            if lost is None or is_hole(update) or is_hole(param):
                return update
            wide = np.promote_types(param.dtype, jnp.float32)
            weights = param.astype(wide) + update.astype(wide)
            decayed = (update.astype(wide) + lost * weights).astype(update.dtype)
            return jnp.where(lost == 0, update, decayed)

        updates = jax.tree_util.tree_map_with_path(decay, updates, params, is_leaf=is_hole)
        return updates, UseItOrLoseItState(silent)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _input_axis(layer: Layer, kernel: Any) -> int:
    return layer.axes.split(kernel.ndim)[0][-1]


def _loss(silent: Array, time_constant: Number, layer: Layer, kernel: Array) -> Array:
    """exp(−(n² − (n − 1)²) / τ²) − 1, exactly 0 at n = 0, broadcastable to the kernel."""
    n = silent.astype(jnp.float32)
    lost = jnp.where(silent > 0, jnp.expm1(-(2 * n - 1) / time_constant**2), 0)
    shape = [1] * kernel.ndim
    shape[_input_axis(layer, kernel)] = len(silent)
    return lost.reshape(shape)


def _used(layer: Layer, kernel: Array, entered: Any, threshold: float) -> Array:
    """Which inputs were used somewhere in the batch, bool (inputs,)."""
    size = kernel.shape[_input_axis(layer, kernel)]
    if is_hole(entered) or entered.shape[-1] != size:
        got = "nothing" if is_hole(entered) else f"an array of shape {entered.shape}"
        raise ValueError(
            f"use_it_or_lose_it needs what entered layer {layer.name!r} (kernel {kernel.shape}), "
            f"got {got}: pass presynaptic= to update, from a collector called with "
            "presynaptic=True. TrainState.apply_gradients and MultiSteps(...)."
            "gradient_transformation() drop extra arguments: call state.tx.update yourself."
        )
    return jnp.any(jnp.abs(entered) > threshold, axis=tuple(range(entered.ndim - 1)))
