"""What every transform here owes to optax: one suite, one row a transform."""

import logging
import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import synscale_jax as ss

TRANSFORMS_UNDER_TEST = {
    "synscaw": {},
    "synscaw_paper": {"target": "layer_noise", "restore_norm": False},
    "synscaw_sampled": {"target": "layer_noise_sampled", "noise_batch": 16},
    "synscaw_uniform_per_layer": {"target": "uniform", "granularity": "layer"},
    "synscaw_every_second_step": {"target": 0.1, "every_k": 2, "restore_norm": False},
    "synscaw_notebook": {
        "target": 0.1, "measured_on": "noise", "granularity": "layer", "clip": 1.0,
        "noise_batch": 16, "restore_norm": False,
    },
}  # fmt: skip

rows = pytest.mark.parametrize("kwargs", TRANSFORMS_UNDER_TEST.values(), ids=TRANSFORMS_UNDER_TEST)

# What every transform owes, not only those with a scaling rate, a counter and a mean gap.
DECAY = {"use_it_or_lose_it": {"transform": ss.scaling.use_it_or_lose_it, "rate": 2.0}}
ALL = TRANSFORMS_UNDER_TEST | DECAY
all_rows = pytest.mark.parametrize("kwargs", ALL.values(), ids=ALL)

ENTERED = {"hidden": jnp.eye(2, 5), "out": jnp.eye(2, 4)}  # three and two inputs are silent


def made(transform=ss.synscaw, rate=0.1, **kwargs):
    return transform(rate, **kwargs)


def problem(dtype=jnp.float32, seed=0):
    keys = jax.random.split(jax.random.key(seed), 6)
    shapes = {"hidden": (5, 4), "out": (4, 3)}
    params = {
        name: {
            "kernel": jax.random.normal(keys[2 * i], shape, dtype),
            "bias": jax.random.normal(keys[2 * i + 1], shape[1:], dtype) / 4,
        }
        for i, (name, shape) in enumerate(shapes.items())
    }
    grads = jax.tree.map(lambda leaf: jnp.cos(leaf) / 10, params)
    activity = {
        "hidden": jax.random.uniform(keys[4], (4,), dtype),
        "out": jax.random.uniform(keys[5], (3,), dtype),
    }
    return params, grads, activity


def steps(transform, params, grads, activity, count=3, **extra):
    state = transform.init(params)
    for _ in range(count):
        updates, state = transform.update(
            grads, state, params, activity=activity, presynaptic=ENTERED, **extra
        )
        params = optax.apply_updates(params, updates)
    return params


def assert_close(a, b, **kwargs):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **{"rtol": 1e-6, **kwargs}), a, b)


@all_rows
def test_takes_unknown_extra_arguments_in_a_chain(kwargs):
    tx = optax.chain(optax.adam(1e-2), made(**kwargs))
    assert_close(steps(tx, *problem()), steps(tx, *problem(), value=1.0, something=None))


@all_rows
def test_jit_equals_eager(kwargs):
    tx = made(**kwargs)
    params, grads, activity = problem()
    state = tx.init(params)
    eager, _ = tx.update(grads, state, params, activity=activity, presynaptic=ENTERED)
    jitted, _ = jax.jit(tx.update)(grads, state, params, activity=activity, presynaptic=ENTERED)
    assert_close(eager, jitted, rtol=2e-5, atol=1e-7)


@all_rows
def test_nothing_is_compiled_on_the_second_step(kwargs, caplog):
    tx = made(**kwargs)
    params, grads, activity = problem()
    update = jax.jit(tx.update)
    updates, state = update(grads, tx.init(params), params, activity=activity, presynaptic=ENTERED)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        update(updates, state, params, activity=activity, presynaptic=ENTERED)
    assert "ompil" not in caplog.text


@all_rows
def test_masked_by_layer_changes_only_that_layer(kwargs):
    params, grads, activity = problem()
    tx = optax.masked(made(**kwargs), {"hidden": True, "out": False})
    bare = made(**kwargs)
    out = steps(tx, params, grads, activity)
    assert_close(out["hidden"], steps(bare, params, grads, activity)["hidden"], rtol=1e-5)
    assert_close(out["out"], jax.tree.map(lambda p, g: p + g + g + g, params["out"], grads["out"]))


@all_rows
def test_own_mask_equals_masked(kwargs):
    params, grads, activity = problem()
    inner = steps(made(**kwargs, mask={"hidden": False, "out": True}), *problem())
    outer = optax.masked(made(**kwargs), {"hidden": False, "out": True})
    assert_close(inner, steps(outer, params, grads, activity), rtol=1e-5)


@all_rows
def test_partition(kwargs):
    params, grads, activity = problem()
    tx = optax.partition(
        {"scaled": made(**kwargs), "plain": optax.identity()},
        {"hidden": "scaled", "out": "plain"},
    )
    out = steps(tx, params, grads, activity)
    alone = steps(made(**kwargs), params, grads, activity)
    assert_close(out["hidden"], alone["hidden"], rtol=1e-5)


@rows
def test_inject_hyperparams_with_a_callable_mask(kwargs):
    params, grads, activity = problem()

    def mask(tree):
        return {name: name == "hidden" for name in tree}

    injected = optax.inject_hyperparams(ss.synscaw, static_args=ss.STATIC_ARGS)(
        scaling_rate=0.1, mask=mask, **kwargs
    )
    assert float(injected.init(params).hyperparams["scaling_rate"]) == pytest.approx(0.1)
    plain = ss.synscaw(0.1, mask=mask, **kwargs)
    assert_close(
        steps(injected, params, grads, activity), steps(plain, params, grads, activity), rtol=1e-5
    )


def test_inject_hyperparams_without_static_args_is_told():
    with pytest.raises(ValueError, match="STATIC_ARGS"):
        optax.inject_hyperparams(ss.synscaw)(scaling_rate=0.1, every_k=2).init(problem()[0])


@all_rows
def test_multi_steps_scales_once_an_accumulated_step(kwargs):
    params, grads, activity = problem()
    inner = optax.chain(optax.sgd(0.1), made(**kwargs))
    accumulated = optax.MultiSteps(inner, 3)
    state = accumulated.init(params)
    reached = params
    for _ in range(3):
        updates, state = accumulated.update(
            grads, state, reached, activity=activity, presynaptic=ENTERED
        )
        reached = optax.apply_updates(reached, updates)
    assert_close(reached, steps(inner, params, grads, activity, count=1), rtol=1e-5)


@rows
def test_scan_and_cond_keep_the_state_as_it_is(kwargs):
    tx = ss.synscaw(0.1, **kwargs)
    params, grads, activity = problem()

    def body(carry, _):
        params, state = carry
        updates, state = jax.lax.cond(
            state.count < 10,
            lambda: tx.update(grads, state, params, activity=activity),
            lambda: (grads, state),
        )
        return (optax.apply_updates(params, updates), state), None

    (scanned, _), _ = jax.lax.scan(body, (params, tx.init(params)), None, length=3)
    assert_close(scanned, steps(tx, params, grads, activity), rtol=2e-5, atol=1e-6)


@all_rows
def test_vmap_over_seeds_equals_one_by_one(kwargs):
    tx = made(**kwargs)
    problems = [problem(seed=seed) for seed in (1, 2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *problems)
    together = jax.jit(jax.vmap(lambda p, g, a: steps(tx, p, g, a)))(*stacked)
    for index, one in enumerate(problems):
        alone = steps(tx, *one)
        assert_close(jax.tree.map(lambda leaf: leaf[index], together), alone, rtol=2e-5, atol=1e-6)  # noqa: B023


@rows
def test_vmap_over_scaling_rates(kwargs):
    params, grads, activity = problem()
    rates = jnp.array([0.0, 0.1])
    scaled = jax.vmap(lambda rate: steps(ss.synscaw(rate, **kwargs), params, grads, activity))
    both = jax.jit(scaled)(rates)
    expected = steps(ss.synscaw(0.1, **kwargs), params, grads, activity)
    assert_close(jax.tree.map(lambda leaf: leaf[1], both), expected, rtol=2e-5, atol=1e-6)


@rows
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_dtypes_are_kept(kwargs, dtype):
    params, grads, activity = problem(dtype)
    tx = ss.synscaw(0.1, **kwargs)
    with jax.numpy_dtype_promotion("strict"):
        updates, state = tx.update(grads, tx.init(params), params, activity=activity)
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype(dtype)}
    assert state.count.dtype == jnp.int32


@rows
def test_a_constant_schedule_equals_the_constant(kwargs):
    assert_close(
        steps(ss.synscaw(optax.constant_schedule(0.1), **kwargs), *problem()),
        steps(ss.synscaw(0.1, **kwargs), *problem()),
    )


@rows
def test_abstract_init(kwargs):
    params, _, _ = problem()
    shapes = jax.eval_shape(ss.synscaw(0.1, **kwargs).init, params)
    assert set(shapes.mean_gap) == {"hidden", "out"}


def test_eight_devices_agree_with_one():
    script = textwrap.dedent("""
        import jax, jax.numpy as jnp, numpy as np, optax, synscale_jax as ss
        from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
        mesh = jax.make_mesh((8,), ("data",), (AxisType.Auto,))
        x = jax.random.normal(jax.random.key(0), (16, 6))
        params = {"dense": {"kernel": jax.random.normal(jax.random.key(1), (6, 8)),
                            "bias": jnp.zeros(8)}}
        tx = optax.chain(optax.adam(1e-2), ss.synscaw(0.1))
        @jax.jit
        def step(params, state, x):
            def loss(p):
                drive = x @ p["dense"]["kernel"] + p["dense"]["bias"]
                return jnp.square(drive).mean(), jax.nn.relu(drive).mean(0)
            (_, z), grads = jax.value_and_grad(loss, has_aux=True)(params)
            updates, state = tx.update(grads, state, params, activity={"dense": z})
            return optax.apply_updates(params, updates), state
        def train(params, x):
            state = tx.init(params)
            for _ in range(20):
                params, state = step(params, state, x)
            return jax.device_get(params)
        one = train(params, x)
        for spec in (P(), P(None, "data")):
            kernel = jax.device_put(params["dense"]["kernel"], NamedSharding(mesh, spec))
            spread = {"dense": {"kernel": kernel, "bias": jax.device_put(jnp.zeros(8),
                      NamedSharding(mesh, P()))}}
            eight = train(spread, jax.device_put(x, NamedSharding(mesh, P("data"))))
            for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
        print("agree")
    """)
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "agree", done.stderr


def test_submodules_come_when_they_are_asked_for():
    script = (
        "import sys, synscale_jax as ss\n"
        "assert 'flax' not in sys.modules and not hasattr(ss, 'nothing')\n"
        "print(ss.analysis.lognormal.__name__, ss.adapters.nnx.__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["synscale_jax.analysis.lognormal", "synscale_jax.adapters.nnx"]


@rows
def test_converges_on_a_parabola_behind_adam(kwargs):
    goal = {"dense": {"kernel": jnp.array([[1.0, -1.0], [0.5, 0.2]]), "bias": jnp.zeros(2)}}
    tx = optax.chain(optax.adam(5e-2), ss.synscaw(1e-4, **kwargs))
    params = jax.tree.map(jnp.ones_like, goal)

    @jax.jit
    def step(params, state):
        grads = jax.tree.map(lambda p, g: 2 * (p - g), params, goal)
        updates, state = tx.update(grads, state, params, activity={"dense": jnp.full(2, 0.3)})
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for _ in range(400):
        params, state = step(params, state)
    assert_close(params, goal, atol=2e-2, rtol=0)


@pytest.mark.parametrize("kwargs", [{}, {"target": "layer_noise_sampled"}])
def test_layers_without_bias_in_float64_mode(kwargs):
    params = {"dense": {"kernel": np.ones((3, 2), np.float32)}}
    with jax.enable_x64(True):
        tx = ss.synscaw(0.1, **kwargs)
        updates, state = tx.update(
            optax.tree.zeros_like(params), tx.init(params), params,
            activity={"dense": np.ones(2, np.float32)},
        )  # fmt: skip
    assert updates["dense"]["kernel"].dtype == state.mean_gap["dense"].dtype == np.float32


@all_rows
def test_float64_updates_keep_their_digits(kwargs):
    with jax.enable_x64(True):
        params, grads, activity = problem(jnp.float64)
        tx = made(**{**kwargs, "rate": 1e6 if kwargs in DECAY.values() else 1e-12})
        told = {"activity": activity, "presynaptic": ENTERED}
        state = tx.update(grads, tx.init(params), params, **told)[1]
        updates, _ = tx.update(grads, state, params, **told)
    for ours, before in zip(jax.tree.leaves(updates), jax.tree.leaves(grads), strict=True):
        assert ours.dtype == np.float64
        np.testing.assert_allclose(ours, before, rtol=0, atol=1e-11)


def test_a_neuron_whose_weights_a_step_cancels_keeps_them():
    params = {"dense": {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)}}
    tx = ss.synscaw(1.0, target=0.0)  # γ w ẑ = −1
    zeros = optax.tree.zeros_like(params)
    updates, _ = tx.update(zeros, tx.init(params), params, activity={"dense": jnp.ones(2)})
    np.testing.assert_array_equal(updates["dense"]["kernel"], 0)
