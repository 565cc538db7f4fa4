"""Local rules as an optax transform."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from synscale_jax.plasticity._rule import PlasticityRule
from synscale_jax.scaling._layers import (
    Layer,
    Path,
    is_hole,
    layers_from_names,
    leaves_by_path,
    path_of,
)

MISSING = (
    "local_learning needs what entered its layers{also}: call `optimizer.update(grads, state, "
    "params, presynaptic=..., postsynaptic=...)` with what a collector of synscale_jax.adapters "
    "returned with presynaptic=True and postsynaptic=True."
)


class LocalLearningState(NamedTuple):
    """State of :func:`local_learning`."""

    count: Array  # shape=(), dtype=int32: optimizer steps seen
    rules: dict[str, Any]  # layer name -> state of its rule


def _check(rules: Any) -> None:
    if isinstance(rules, PlasticityRule):
        return
    if not isinstance(rules, Mapping) or not rules:
        raise ValueError(f"rules={rules!r} learns nothing: use e.g. {{'hidden': oja(0.01)}}.")
    for name, rule in rules.items():
        if not isinstance(rule, PlasticityRule):
            raise ValueError(f"rules[{name!r}]={rule!r} is no rule: use e.g. oja(0.01).")


def local_learning(
    rules: PlasticityRule | Mapping[str, PlasticityRule],
    *,
    layers: Sequence[Layer] | None = None,
    when: Callable[[Array], Array] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Local rules for some layers of a network, beside an optimizer for the others.

    The change that a rule makes to a kernel is added to the update that arrives, which is zero
    where the model stops the gradient. Other leaves pass unchanged.

    Args:
      rules: one rule for all layers, or layer name -> rule.
      layers: the layer table; without one every leaf called ``kernel`` is a layer.
      when: step count -> whether the rules learn in this step; always, if left out.

    Returns:
      A :class:`optax.GradientTransformationExtraArgs` with state :class:`LocalLearningState`.
      ``update`` takes ``params`` and, by name, ``presynaptic`` and ``postsynaptic``, both as trees
      under the layers' module names, batch kept.

    Raises:
      ValueError: if ``rules`` is empty or holds something else; at init for a layer that is not
        there or has no matrix; when traced for missing or misshapen activities.

    Examples:
      >>> import jax.numpy as jnp, optax
      >>> from synscale_jax.plasticity import local_learning, oja
      >>> params = {"hidden": {"kernel": jnp.array([[1.0], [0.0]])}}
      >>> optimizer = optax.chain(optax.sgd(0.1), local_learning(oja(0.5)))
      >>> state = optimizer.init(params)
      >>> x = jnp.array([[1.0, 1.0]])
      >>> updates, state = optimizer.update(
      ...     optax.tree.zeros_like(params), state, params,
      ...     presynaptic={"hidden": x}, postsynaptic={"hidden": x @ params["hidden"]["kernel"]})
      >>> updates["hidden"]["kernel"].ravel().tolist()
      [0.0, 0.5]
    """
    _check(rules)

    def chosen(params: Any) -> dict[str, tuple[Layer, PlasticityRule]]:
        table = {layer.name: layer for layer in (layers or layers_from_names(params))}
        of = dict.fromkeys(table, rules) if isinstance(rules, PlasticityRule) else rules
        if unknown := [name for name in of if name not in table]:
            raise ValueError(
                f"there is no layer {unknown[0]!r} to learn: use some of {', '.join(table)}."
            )
        return {name: (table[name], rule) for name, rule in of.items()}

    def init_fn(params: Any) -> LocalLearningState:
        kernels = leaves_by_path(params)
        states = {}
        for name, (layer, rule) in chosen(params).items():
            kernel = kernels.get((*layer.path, layer.kernel))
            if kernel is None or is_hole(kernel):
                raise ValueError(f"layer {name!r} has no leaf {layer.kernel!r} among the params.")
            if kernel.ndim != 2:
                raise ValueError(
                    f"the kernel of layer {name!r} has shape {kernel.shape}: local rules learn "
                    "matrices (inputs, units), leave the layer out of rules=."
                )
            states[name] = rule.init(kernel)
        return LocalLearningState(jnp.zeros([], jnp.int32), states)

    def update_fn(
        updates: Any,
        state: Any,
        params: Any = None,
        *,
        presynaptic: Any = None,
        postsynaptic: Any = None,
        **extra_args: Any,
    ) -> tuple[Any, LocalLearningState]:
        del extra_args
        if params is None:
            raise ValueError("local_learning changes weights: call update(updates, state, params).")
        table = chosen(params)
        reads_both = any(rule.reads_postsynaptic for _, rule in table.values())
        if presynaptic is None or (reads_both and postsynaptic is None):
            raise ValueError(MISSING.format(also=" and what they put out" if reads_both else ""))
        kernels, entered = leaves_by_path(params), leaves_by_path(presynaptic)
        put_out = leaves_by_path({} if postsynaptic is None else postsynaptic)

        def learn() -> tuple[dict[str, Array], dict[str, Any]]:
            changes, states = {}, {}
            for name, (layer, rule) in table.items():
                kernel = kernels[(*layer.path, layer.kernel)]
                x, z = _of(entered, layer, "presynaptic"), None
                if rule.reads_postsynaptic:
                    z = _of(put_out, layer, "postsynaptic")
                learned, states[name] = rule.update(kernel, x, z, state.rules[name])
                changes[name] = learned - kernel
            return changes, states

        def rest() -> tuple[dict[str, Array], dict[str, Any]]:
            shapes = {n: kernels[(*layer.path, layer.kernel)] for n, (layer, _) in table.items()}
            return jax.tree.map(jnp.zeros_like, shapes), dict(state.rules)

        changes, states = learn() if when is None else jax.lax.cond(when(state.count), learn, rest)
        by_path: dict[Path, Array] = {
            (*layer.path, layer.kernel): changes[name] for name, (layer, _) in table.items()
        }

        def add(key_path: Any, update: Any) -> Any:
            change = by_path.get(path_of(key_path))
            return update if change is None or is_hole(update) else update + change

        updates = jax.tree_util.tree_map_with_path(add, updates, is_leaf=is_hole)
        return updates, LocalLearningState(state.count + 1, states)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _of(tree: Mapping[Any, Any], layer: Layer, name: str) -> Array:
    if layer.path not in tree:
        raise ValueError(
            f"{name} has nothing for layer {layer.name!r}: give the collector the same layer table."
        )
    return tree[layer.path]
