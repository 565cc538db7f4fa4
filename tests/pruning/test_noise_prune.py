"""The tool for trained networks: what it keeps, what it leaves alone, what it says."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx

from synscale_jax.pruning import (
    difference_variance,
    keep_pruned,
    noise_prune,
    noise_pruning,
    stationary_covariance,
)


def params_of(cell, features=24):
    kind = {"elman": nn.SimpleCell, "gru": nn.GRUCell}[cell]
    model = nn.RNN(kind(features, name="cell"))
    return model.init(jax.random.key(0), jnp.ones((2, 5, 8)))["params"]


def others(params, kernels):
    return [
        leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if not any(f"/{name}/" in jax.tree_util.keystr(path, separator="/", simple=True) + "/"
                   for name in kernels) or "bias" in str(path)
    ]  # fmt: skip


def test_largest_keeps_the_highest_scores_and_every_self_connection():
    params = params_of("elman")
    kernel = 0.5 * params["cell"]["h"]["kernel"]
    params["cell"]["h"]["kernel"] = kernel
    pruned = noise_prune(params, 0.25, selection="largest")
    W = kernel.T
    score = jnp.abs(W) * difference_variance(W, stationary_covariance(W - jnp.eye(24)))
    score = np.where(np.eye(24, dtype=bool), -1, score)
    kept = np.asarray(pruned.mask["cell"]["h"]["kernel"]).T
    apart = ~np.eye(24, dtype=bool)
    assert kept[~apart].all() and kept[apart].sum() == round(0.25 * 24 * 23)
    assert score[kept & apart].min() > score[~kept].max()
    np.testing.assert_array_equal(
        pruned.params["cell"]["h"]["kernel"], jnp.where(kept.T, kernel, 0)
    )
    report = pruned.reports["cell/h"]
    assert float(report.shift) == 0 and float(report.largest_gain) == 1
    assert float(report.density) == pytest.approx(0.25, abs=1e-3)


def test_magnitude_keeps_the_largest_weights():
    params = params_of("elman")
    kernel = np.asarray(params["cell"]["h"]["kernel"])
    pruned = noise_prune(params, 0.1, rule="weight", selection="largest")
    kept = np.asarray(pruned.mask["cell"]["h"]["kernel"]) & ~np.eye(24, dtype=bool)
    lost = ~np.asarray(pruned.mask["cell"]["h"]["kernel"])
    assert np.abs(kernel[kept]).min() > np.abs(kernel[lost]).max()


def test_gates_by_name_and_nothing_else():
    params = params_of("gru")
    pruned = noise_prune(
        params, 0.3, key=jax.random.key(1), selection="sampled", kernels=("hr", "hz")
    )
    assert set(pruned.reports) == {"cell/hr", "cell/hz"}
    for before, after in zip(
        others(params, ("hr", "hz")), others(pruned.params, ("hr", "hz")), strict=True
    ):
        np.testing.assert_array_equal(before, after)
    assert bool(pruned.mask["cell"]["hn"]["kernel"])
    assert float((pruned.params["cell"]["hr"]["kernel"] == 0).mean()) == pytest.approx(
        0.67, abs=0.1
    )


def test_fused_gates_of_nnx_equal_gates_of_their_own():
    cell = nnx.GRUCell(8, 24, rngs=nnx.Rngs(0))
    state = nnx.state(cell, nnx.Param)
    fused = noise_prune(state, 0.3, selection="largest")
    assert set(fused.reports) == {"dense_h:0", "dense_h:1", "dense_h:2"}
    kernel = cell.dense_h.kernel[...]
    parts = {name: {"kernel": part} for name, part in zip(
        ("hr", "hz", "hn"), jnp.split(kernel, 3, 1), strict=True)}  # fmt: skip
    apart = noise_prune(parts, 0.3, selection="largest").params
    together = jnp.concatenate([apart[name]["kernel"] for name in ("hr", "hz", "hn")], 1)
    nnx.update(cell, fused.params)
    np.testing.assert_array_equal(cell.dense_h.kernel[...], together)


@pytest.mark.parametrize(("size", "shift"), [(0.5, 0.0), (1.2, 0.5), (1.6, 1.0), (4.0, 4.0)])
def test_unstable_kernels_are_shifted_and_it_is_said(size, shift):
    W = size * jax.random.orthogonal(jax.random.key(0), 30)
    top = float(jnp.linalg.eigvals(W).real.max()) - 1
    report = noise_prune({"h": {"kernel": W}}, 0.3, selection="largest").reports["h"]
    ladder = [0.0, 0.5, 1.0, 2.0, 4.0]
    assert float(report.shift) == next(s for s in ladder if top + 0.01 < s or (s == 0 > top + 0.01))
    assert float(report.shift) == shift


def test_rescaled_kernels_are_right_on_average():
    kernel = 0.2 * jax.random.normal(jax.random.key(0), (12, 12))
    draws = jax.vmap(
        lambda key: noise_prune(
            {"h": {"kernel": kernel}}, 0.4, key=key, selection="sampled", max_gain=math.inf
        ).params["h"]["kernel"]
    )(jax.random.split(jax.random.key(1), 3000))
    error = draws.std(0) / 3000**0.5
    assert bool(jnp.all(jnp.abs(draws.mean(0) - kernel) <= 5 * error + 1e-5))


def test_very_sparse_kernels_can_be_pruned_again():
    """Their eigenvectors are linearly dependent."""
    params = params_of("elman", 64)
    once = noise_prune(params, 0.02, rule="weight", selection="largest").params
    twice = noise_prune(once, 0.5, selection="largest")
    assert float(twice.reports["cell/h"].density) == pytest.approx(0.5, abs=0.02)


def test_vmap_over_networks_and_jit():
    stacked = jax.vmap(lambda key: {"h": {"kernel": jax.random.orthogonal(key, 16)}})(
        jax.random.split(jax.random.key(0), 3)
    )

    def prune(params):
        return noise_prune(params, 0.3, selection="largest").params

    together = jax.jit(jax.vmap(prune))(stacked)["h"]["kernel"]
    alone = prune(jax.tree.map(lambda leaf: leaf[1], stacked))["h"]["kernel"]
    np.testing.assert_allclose(together[1], alone, atol=1e-6)


def test_half_precision_is_kept():
    kernel = (0.1 * jax.random.normal(jax.random.key(0), (16, 16))).astype(jnp.bfloat16)
    pruned = noise_prune({"h": {"kernel": kernel}}, 0.5, selection="largest").params
    assert pruned["h"]["kernel"].dtype == jnp.bfloat16


@pytest.mark.parametrize("options", [{"max_gain": 2.0}, {"rule": "weight", "selection": "largest"}])
def test_the_transform_prunes_once_and_holds(options):
    params = params_of("gru", 16)
    options = {"key": jax.random.key(3), "selection": "sampled", **options}
    pruned = noise_prune(params, 0.2, **options)
    optimizer = optax.chain(optax.adamw(1e-2, weight_decay=0.1), noise_pruning(0.2, **options))
    state = optimizer.init(params)

    @jax.jit
    def step(params, state):
        grads = jax.tree.map(jnp.cos, params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    plain = optax.adamw(1e-2, weight_decay=0.1)
    grads = jax.tree.map(jnp.cos, params)
    updates, _ = plain.update(grads, plain.init(params), params)
    first, state = step(params, state)
    expected = jax.tree.map(
        lambda p, u, keep: jnp.where(keep, p + u, 0), pruned.params, updates, pruned.mask
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), first, expected)
    params = first
    for _ in range(5):
        params, state = step(params, state)
    zero = jax.tree.map(lambda p, keep: jnp.where(keep, 0, p), params, pruned.mask)
    assert all(not bool(leaf.any()) for leaf in jax.tree.leaves(zero))
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), params, first)
    assert min(jax.tree.leaves(moved)) > 1e-3


def test_a_mask_is_held_in_a_scan():
    params = params_of("elman", 16)
    pruned = noise_prune(params, 0.2)
    optimizer = optax.chain(optax.sgd(0.1, momentum=0.9), keep_pruned(pruned.mask))

    def body(carry, _):
        params, state = carry
        updates, state = optimizer.update(jax.tree.map(jnp.sin, params), state, params)
        return (optax.apply_updates(params, updates), state), None

    start = (params, optimizer.init(params))  # not the pruned ones: held means taken to zero
    (params, _), _ = jax.lax.scan(body, start, None, length=4)
    kernel, mask = params["cell"]["h"]["kernel"], pruned.mask["cell"]["h"]["kernel"]
    assert not bool(kernel[~mask].any()) and bool(kernel[mask].all())


def square(fill=0.1):
    return {"h": {"kernel": jnp.full((4, 4), fill)}}


@pytest.mark.parametrize(
    ("params", "options", "words"),
    [
        ({"dense": {"kernel": jnp.ones((3, 3))}}, {}, "dense/kernel"),
        ({"h": {"kernel": jnp.ones((4, 6))}}, {}, r"\(4, 6\)"),
        (square(jnp.nan), {}, "16 entries that are NaN"),
        (square(), {"selection": "sampled"}, "key="),
        (square(), {"selection": "top"}, "'top'"),
        (square(), {"rule": "magnitude"}, "'magnitude'"),
        (square(), {"density": 0.0}, "density=0.0"),
        (square(), {"max_gain": 2.0}, "max_gain=2.0"),
        (square(), {"max_gain": 0.0}, "max_gain=0.0"),
    ],
)
def test_refusals_say_the_value(params, options, words):
    with pytest.raises(ValueError, match=words):
        noise_prune(params, **{"density": 0.5, **options})


def test_transforms_need_params():
    for tx in (keep_pruned({"w": True}), noise_pruning(0.5)):
        with pytest.raises(ValueError, match="params"):
            tx.update({"w": jnp.ones(2)}, optax.EmptyState())
