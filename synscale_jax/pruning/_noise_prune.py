"""Noise-prune for the recurrent kernels of a trained network."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from synscale_jax.pruning._probability import (
    check_density,
    difference_variance,
    normalised,
)
from synscale_jax.pruning._sampling import RULES, synapse_gain
from synscale_jax.pruning.linear_network import (
    known_value,
    largest_real_eigenvalue,
    stationary_covariance,
)

RECURRENT_KERNELS = ("h", "hr", "hz", "hn", "hi", "hf", "hg", "ho", "dense_h")
"""Modules of flax's recurrent cells, linen and nnx, whose ``kernel`` maps state to state."""

SLOWEST = 0.01  # a mode that decays more slowly would drown all others in the covariance

Rule = Literal["noise", "weight", "uniform"]
Selection = Literal["sampled", "largest"]
SELECTIONS = ("sampled", "largest")


class KernelReport(NamedTuple):
    """What became of one recurrent kernel, or of one gate of a fused one.

    Attributes:
      density: fraction of its synapses (nonzero entries off the diagonal) that stay, shape ().
      shift: s that was subtracted from the diagonal to make the operator stable, shape ().
      largest_gain: the largest factor by which a kept weight grew, shape ().
    """

    density: Array
    shift: Array
    largest_gain: Array


class NoisePruned(NamedTuple):
    """What :func:`noise_prune` returns.

    Attributes:
      params: the parameters, pruned weights zero; structure and dtypes of the input.
      mask: True where a weight stays, of the same structure: an array for each pruned kernel,
        a single True for every other leaf.
      reports: kernel path (``"cell/hr"``; ``"cell/dense_h:0"`` for a gate of a fused kernel) ->
        :class:`KernelReport`.
    """

    params: Any
    mask: Any
    reports: dict[str, KernelReport]


class NoisePruningState(NamedTuple):
    """State of :func:`noise_pruning`.

    Attributes:
      count: updates seen, shape (), int32.
      gain: of the parameters' structure: for each pruned kernel what its weights are multiplied by
        in the first update, 0 where they go; a single 1 for every other leaf. float32.
    """

    count: Array  # pyright: ignore[reportIncompatibleMethodOverride]
    gain: Any


def noise_prune(
    params: Any,
    density: float,
    *,
    key: Array | None = None,
    rule: Rule = "noise",
    selection: Selection = "largest",
    max_gain: float = 1.0,
    kernels: Sequence[str] = RECURRENT_KERNELS,
) -> NoisePruned:
    r"""Prune the recurrent kernels of a trained network by their response to noise.

    A recurrent kernel W is read as the linear network :math:`\dot x = (W - I)\,x`, each gate on
    its own, and its synapses are scored by what noise says of it:

    .. math::
        |W_{ij}| \; \mathrm{Var}\bigl(x_i - \mathrm{sign}(W_{ij})\,x_j\bigr)

    Trained kernels are often not stable. Then :math:`W - (1 + s) I` is probed, with the smallest s
    of 0.5, 1, 2, 4, … that brings all eigenvalues to the left of -0.01; the reports name it. The
    theory behind :func:`prune_network` covers none of this: neither a W that is not symmetric or
    lacks a dominant leak, nor the network's nonlinearity. On networks trained on MNIST by rows
    magnitude pruning was as good or better at every density (``docs/noise_prune.md``); of the
    variants here the default lost least on an Elman net.

    ============= ======================================================================
    ``selection`` which synapses stay
    ============= ======================================================================
    ``largest``   those of the largest scores, exactly the number that the density asks for
    ``sampled``   each with its own probability, in proportion to its score, cut at 1: the rule
                  of the linear theory, together with ``max_gain=math.inf``
    ============= ======================================================================

    Self-connections (the diagonal of W) always stay and do not count.

    Args:
      params: a tree of parameters with recurrent leaves ``<module>/kernel`` of shape (n, n), or
        (n, gates · n) where gates are fused; flax's (inputs, outputs) order.
      density: fraction of each kernel's synapses to keep, in (0, 1].
      key: a random key; ``sampled`` needs one.
      rule: ``"noise"``; ``"weight"`` scores by abs(W) alone (with ``largest``: magnitude pruning),
        ``"uniform"`` does not tell synapses apart (random pruning).
      selection: see the table.
      max_gain: kept weights grow by 1/p but at most by this: 1 leaves them as they are, infinity
        is the rule of the linear theory.
      kernels: names of the modules whose kernels are recurrent; fewer of them prune some gates.

    Returns:
      :class:`NoisePruned`.

    Raises:
      ValueError: if no recurrent kernel is found, one is not square, holds NaN, the density is
        outside (0, 1], or options do not go together.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from flax import linen as nn
      >>> from synscale_jax.pruning import noise_prune
      >>> cell = nn.GRUCell(features=32)
      >>> x = jnp.ones((1, 8))
      >>> carry = cell.initialize_carry(jax.random.key(0), x.shape)
      >>> params = cell.init(jax.random.key(1), carry, x)["params"]
      >>> pruned = noise_prune(params, 0.25)
      >>> {name: (f"{r.density:.3f}", float(r.shift)) for name, r in pruned.reports.items()}
      {'hn': ('0.250', 0.5), 'hr': ('0.250', 0.5), 'hz': ('0.250', 0.5)}

    References:
      Moore and Chaudhuri, NeurIPS 2020, for the rule on linear networks.
    """
    gain, reports = _gains(params, density, key, rule, selection, max_gain, kernels)
    scaled = jax.tree.map(lambda p, g: p if g.ndim == 0 else (p * g).astype(p.dtype), params, gain)
    return NoisePruned(scaled, jax.tree.map(lambda g: g > 0, gain), reports)


def noise_pruning(
    density: float,
    *,
    key: Array | None = None,
    rule: Rule = "noise",
    selection: Selection = "largest",
    max_gain: float = 1.0,
    kernels: Sequence[str] = RECURRENT_KERNELS,
) -> optax.GradientTransformation:
    """Prune at the first update and keep what is pruned at zero: for fine-tuning.

    Comes last in a chain. ``init`` prunes as :func:`noise_prune` does, from the parameters it is
    given. The first update takes them to their pruned values, plus the optimizer's own step on
    what stays; later ones leave weights that are pruned at zero.

    Args:
      density: as in :func:`noise_prune`, like all the others.
      key: a random key; ``sampled`` needs one.
      rule: what scores synapses.
      selection: which stay.
      max_gain: bound on what they grow by.
      kernels: which modules are recurrent.

    Returns:
      A transform with state :class:`NoisePruningState`.

    Raises:
      ValueError: as :func:`noise_prune`, from ``init``; if ``update`` gets no ``params``.

    Examples:
      >>> import jax, jax.numpy as jnp, optax
      >>> from synscale_jax.pruning import noise_pruning
      >>> params = {"h": {"kernel": 0.1 * jax.random.normal(jax.random.key(0), (16, 16))}}
      >>> optimizer = optax.chain(optax.sgd(0.1), noise_pruning(0.2))
      >>> state = optimizer.init(params)
      >>> for _ in range(3):
      ...     updates, state = optimizer.update(params, state, params)
      ...     params = optax.apply_updates(params, updates)
      >>> int((params["h"]["kernel"] != 0).sum()) - 16  # a fifth of 240
      48
    """

    def init_fn(params: Any) -> NoisePruningState:
        gain, _ = _gains(params, density, key, rule, selection, max_gain, kernels)
        return NoisePruningState(jnp.zeros([], jnp.int32), gain)

    def update_fn(updates: Any, state: Any, params: Any = None) -> tuple[Any, NoisePruningState]:
        if params is None:
            raise ValueError("noise_pruning moves weights to zero: call update(u, state, params).")

        def pruned(update: Array, param: Array, gain: Array) -> Array:
            if gain.ndim == 0:
                return update
            growth = jnp.where(state.count == 0, gain - 1, 0).astype(update.dtype)
            return jnp.where(gain > 0, update + growth * param, -param)

        count = jnp.asarray(optax.safe_increment(state.count))
        return jax.tree.map(pruned, updates, params, state.gain), state._replace(count=count)

    return optax.GradientTransformation(init_fn, update_fn)


def keep_pruned(mask: Any) -> optax.GradientTransformation:
    """Hold weights at zero that a mask has pruned.

    Comes last in a chain, so that neither momentum nor weight decay revives a synapse.

    Args:
      mask: ``noise_prune(...).mask``, or any tree of booleans of the parameters' structure.

    Returns:
      A transform without state.

    Raises:
      ValueError: if ``update`` gets no ``params``.

    Examples:
      >>> import jax.numpy as jnp
      >>> from synscale_jax.pruning import keep_pruned
      >>> tx = keep_pruned({"w": jnp.array([True, False])})
      >>> tx.update({"w": jnp.ones(2)}, tx.init(None), {"w": jnp.array([5.0, 0.5])})[0]
      {'w': Array([ 1. , -0.5], dtype=float32)}
    """

    def update_fn(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        if params is None:
            raise ValueError("keep_pruned holds weights at zero: call update(u, state, params).")
        held = jax.tree.map(lambda u, p, keep: jnp.where(keep, u, -p), updates, params, mask)
        return held, state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update_fn)


def _gains(
    params: Any,
    density: float,
    key: Array | None,
    rule: str,
    selection: str,
    max_gain: float,
    kernels: Sequence[str],
) -> tuple[Any, dict[str, KernelReport]]:
    """What each weight is multiplied by, and a report a gate."""
    _check_options(density, key, rule, selection, max_gain)
    reports: dict[str, KernelReport] = {}

    def leaf_gain(path: Any, leaf: Array) -> Array:
        name = _kernel_module(path, kernels)
        if name is None:
            return jnp.ones([], jnp.float32)
        gates = _gates(name, leaf)
        gains = []
        for label, W in gates.items():
            gain, report = _gate_gain(label, W, density, key, rule, selection, max_gain)
            reports[label] = report
            gains.append(gain.T)  # back to (inputs, outputs)
        return jnp.concatenate(gains, 1)

    gain = jax.tree_util.tree_map_with_path(leaf_gain, params)
    if not reports:
        leaves = [_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
        raise ValueError(
            f"No recurrent kernel among {leaves}: name the modules that hold them, "
            "kernels=('...',)."
        )
    return gain, reports


def _gate_gain(
    label: str,
    W: Array,
    density: float,
    key: Array | None,
    rule: str,
    selection: str,
    max_gain: float,
) -> tuple[Array, KernelReport]:
    """One gate's gains, in the order (to, from)."""
    W = W.astype(np.promote_types(W.dtype, jnp.float32))  # what LAPACK knows
    own = jnp.eye(len(W), dtype=bool)
    shift = jnp.zeros([], W.dtype)
    score = jnp.abs(W) if rule == "weight" else jnp.where(W == 0, 0, jnp.ones_like(W))
    if rule == "noise":
        A = W - jnp.eye(len(W), dtype=W.dtype)
        shift = _shift(largest_real_eigenvalue(A))
        covariance = stationary_covariance(A - shift * jnp.eye(len(W), dtype=W.dtype))
        score = jnp.abs(W) * difference_variance(W, covariance)
    score = jnp.where(own, 0, score)
    if selection == "largest":
        order = jnp.argsort(jnp.argsort(-score, axis=None)).reshape(score.shape)
        synapses = (score > 0).sum()
        gain = jnp.where((order < jnp.round(density * synapses)) & (score > 0), 1.0, 0.0)
    else:
        assert key is not None
        probability = normalised(score, W, density)
        draw = jax.random.uniform(jax.random.fold_in(key, zlib.crc32(label.encode())), W.shape)
        gain = jnp.where(draw < probability, synapse_gain(probability, max_gain), 0)
    synapses = ((W != 0) & ~own).sum()
    kept = (gain > 0).sum() / synapses
    gain = jnp.where(own, 1, gain).astype(jnp.float32)
    return gain, KernelReport(kept, shift, gain.max())


def _shift(largest: Array) -> Array:
    """The smallest of 0, 0.5, 1, 2, 4, … that leaves all modes a finite memory."""
    largest = largest + SLOWEST
    doublings = jnp.floor(jnp.log2(jnp.maximum(2 * largest, 0.5))) + 1
    return jnp.where(largest < 0, 0, jnp.exp2(doublings) / 2).astype(largest.dtype)


def _kernel_module(path: Any, kernels: Sequence[str]) -> str | None:
    """The module's path if this leaf is its recurrent kernel."""
    parts = _name(path).split("/")
    if parts[-1] == "value":  # nnx.Param
        parts.pop()
    if len(parts) < 2 or parts[-1] != "kernel" or parts[-2] not in kernels:
        return None
    return "/".join(parts[:-1])


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _gates(name: str, kernel: Array) -> dict[str, Array]:
    """Square matrices (to, from), one a gate."""
    n = kernel.shape[0]
    if kernel.ndim != 2 or kernel.shape[1] % n:
        raise ValueError(
            f"The kernel of {name} has shape {kernel.shape}, which maps no state to itself: leave "
            "it out of kernels=."
        )
    known = known_value(kernel)
    if known is not None and (bad := int((~np.isfinite(known.astype(np.float32))).sum())):
        raise ValueError(f"The kernel of {name} holds {bad} entries that are NaN or infinite.")
    parts = jnp.split(kernel, kernel.shape[1] // n, 1)
    if len(parts) == 1:
        return {name: kernel.T}
    return {f"{name}:{index}": part.T for index, part in enumerate(parts)}


def _check_options(
    density: float, key: Array | None, rule: str, selection: str, max_gain: float
) -> None:
    check_density(density)
    if rule not in RULES:
        raise ValueError(f"rule={rule!r} is no rule: use one of {', '.join(RULES)}.")
    if selection not in SELECTIONS:
        raise ValueError(
            f"selection={selection!r} is no selection: use one of {', '.join(SELECTIONS)}."
        )
    if not max_gain >= 1:
        raise ValueError(f"max_gain={max_gain} would weaken what stays: use 1 or more.")
    if selection == "largest" and (max_gain > 1 or rule == "uniform"):
        raise ValueError(
            f"selection='largest' knows no probabilities (rule={rule!r}, max_gain={max_gain}): "
            "use selection='sampled'."
        )
    if selection == "sampled" and key is None:
        raise ValueError("selection='sampled' draws: give it key=jax.random.key(seed).")
