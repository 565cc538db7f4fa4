"""The rule itself: golden values, equation 14 by hand, closed forms, invariants."""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import strategies as st

import synscale_jax as ss
from synscale_jax.scaling import gaussian_mean, uniform_mean
from synscale_jax.scaling._gap import _noise_activity
from synscale_jax.scaling._step import Limits, scaling_step

LAYER = ss.Layer(("dense",))


def dense(kernel, bias=None):
    kernel = jnp.asarray(kernel)
    bias = jnp.zeros(kernel.shape[1], kernel.dtype) if bias is None else jnp.asarray(bias)
    return {"dense": {"kernel": kernel, "bias": bias}}


def step(transform, params, activity=None, updates=None, **extra):
    updates = optax.tree.zeros_like(params) if updates is None else updates
    if activity is not None:
        extra["activity"] = {"dense": jnp.asarray(activity)}
    return transform.update(updates, transform.init(params), params, **extra)[0]["dense"]["kernel"]


@pytest.mark.parametrize("case", [1, 2, 3])
def test_notebook_golden_values(golden, case):
    arrays = np.load(golden / "synscaw_notebook.npz")
    kernel, bias, noise, gamma, target, mean, expected = (
        jnp.asarray(arrays[f"case{case}_{name}"], jnp.float32)
        for name in (
            "kernel", "bias", "noise", "gamma", "target", "activity_mean", "new_kernel",
        )
    )  # fmt: skip
    activity = _noise_activity(LAYER, noise, kernel, bias).mean()
    np.testing.assert_allclose(activity, mean, rtol=1e-6)
    gap = jnp.broadcast_to(target - activity, bias.shape)
    change = scaling_step(kernel, gap, LAYER, gamma, Limits(1.0, None, False))
    np.testing.assert_allclose(kernel + change, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("scale_output", "table", "moved"),
    [(None, True, {"dense"}), (False, True, {"dense"}), (True, True, {"dense", "head"}),
     (None, False, {"dense", "head"})],
)  # fmt: skip
def test_the_output_layer_is_left_out_where_a_table_marks_it(scale_output, table, moved):
    params = dense(np.ones((3, 2))) | {"head": dense(np.ones((2, 2)))["dense"]}
    layers = (LAYER, ss.Layer(("head",), output=True)) if table else None
    transform = ss.synscaw(
        0.1, target=1.0, restore_norm=False, scale_output=scale_output, layers=layers
    )
    activity = {"dense": jnp.zeros(2), "head": jnp.zeros(2)}
    updates, state = transform.update(
        optax.tree.zeros_like(params), transform.init(params), params, activity=activity
    )
    assert {name for name in params if jnp.any(updates[name]["kernel"] != 0)} == moved
    assert state.mean_gap.keys() == moved


def test_equation_14_by_hand_on_two_neurons():
    # ẑ = 0.5 − activity = (0.2, −0.3); w + γ w² ẑ with γ = 0.1
    kernel = [[1.0, 2.0], [-1.0, -2.0]]
    change = step(ss.synscaw(0.1, target=0.5, restore_norm=False), dense(kernel), [0.3, 0.8])
    np.testing.assert_allclose(change, [[0.02, -0.12], [0.02, -0.12]], rtol=1e-6)


def test_scales_the_weights_that_the_optimizer_before_it_leads_to():
    params = dense([[1.0], [2.0]])
    updates = {"dense": {"kernel": jnp.array([[1.0], [-1.0]]), "bias": jnp.zeros(1)}}
    change = step(ss.synscaw(0.1, target=1.0, restore_norm=False), params, [0.0], updates)
    np.testing.assert_allclose(change, [[1.0 + 0.1 * 4], [-1.0 + 0.1 * 1]], rtol=1e-6)


def test_closed_form_target_is_formed_from_the_parameters_before_the_update():
    params = dense(np.ones((3, 1), np.float32))
    updates = {"dense": {"kernel": 5 * jnp.ones((3, 1)), "bias": 5 * jnp.ones(1)}}
    transform = ss.synscaw(1.0, target="layer_noise", restore_norm=False)
    target = gaussian_mean("relu", jnp.zeros(1), jnp.ones(1))  # σ² = 3 · 1/3
    change = step(transform, params, target, updates)
    np.testing.assert_array_equal(change, updates["dense"]["kernel"])


# Tolerance of the Gaussian approximation, relative to σ, by fan-in: one dominant weight makes the
# drive uniform, whose rectified mean is 0.034 σ above the Gaussian's.
@pytest.mark.parametrize(
    ("activation", "fan_in", "tolerance"),
    [
        ("relu", 2, 0.035),
        ("relu", 5, 0.015),
        ("relu", 20, 0.004),
        ("relu", 100, 0.001),
        ("leaky_relu", 20, 0.004),
        ("sigmoid", 20, 0.004),
        ("tanh", 20, 0.004),
    ],
)
def test_closed_form_agrees_with_a_million_samples(activation, fan_in, tolerance):
    rng = np.random.default_rng(fan_in)
    kernel = rng.normal(size=(fan_in, 3)).astype(np.float32)
    bias = np.array([-0.5, 0.0, 1.0], np.float32)
    samples = np.concatenate(
        [
            np.asarray(
                ss.scaling.ACTIVATIONS[activation](
                    rng.uniform(-1, 1, (100_000, fan_in)).astype(np.float32) @ kernel + bias
                )
            )
            for _ in range(10)
        ]
    )
    sigma = np.sqrt((kernel**2).sum(0) / 3)
    closed = gaussian_mean(activation, jnp.asarray(bias), jnp.asarray(sigma))
    error = 3 * samples.std(0) / 1000
    assert np.all(np.abs(closed - samples.mean(0)) <= error + tolerance * sigma)


def test_sampled_noise_target_agrees_with_the_closed_form():
    kernel = jax.random.normal(jax.random.key(1), (200, 4)) / 10
    base = dense(kernel, jnp.array([-0.3, 0.0, 0.2, 0.6]))
    closed, sampled = (
        step(ss.synscaw(1.0, target=t, restore_norm=False, **kw), base, jnp.zeros(4))
        for t, kw in (("layer_noise", {}), ("layer_noise_sampled", {"noise_batch": 40_000}))
    )
    np.testing.assert_allclose(sampled, closed, rtol=0.05, atol=1e-6)


@pytest.mark.parametrize(
    ("activation", "value"),
    [("relu", 0.25), ("sigmoid", 0.5), ("tanh", 0.0), ("leaky_relu", 0.2475), ("identity", 0.0)],
)
def test_uniform_target_values(activation, value):
    np.testing.assert_allclose(uniform_mean(activation), value, atol=1e-6)


def test_quadrature_agrees_with_the_closed_form_of_the_identity():
    mean, deviation = jnp.array([-1.0, 0.5]), jnp.array([0.3, 2.0])
    np.testing.assert_allclose(gaussian_mean(lambda x: x, mean, deviation), mean, atol=1e-5)
    np.testing.assert_allclose(gaussian_mean(lambda x: x * x, mean, deviation),
                               mean**2 + deviation**2, rtol=1e-5)  # fmt: skip


def test_a_dead_neuron_has_a_finite_target():
    change = step(
        ss.synscaw(1.0, target="layer_noise"), dense(np.zeros((3, 2), np.float32)), [0, 1.0]
    )
    np.testing.assert_array_equal(change, 0)


def test_per_layer_gap_is_the_mean_of_the_neurons():
    kernel = np.ones((2, 2), np.float32)
    transform = ss.synscaw(1.0, target=0.5, granularity="layer", restore_norm=False)
    change = step(transform, dense(kernel), [0.0, 0.4])
    np.testing.assert_allclose(change, 0.3, rtol=1e-6)


def test_every_k_scales_after_every_kth_step_and_passes_the_others_to_the_bit():
    params = dense([[1.0], [2.0]])
    transform = ss.synscaw(0.1, target=1.0, every_k=3)
    state = transform.init(params)
    updates = {"dense": {"kernel": jnp.array([[0.25], [-0.0]]), "bias": jnp.ones(1)}}
    changed = []
    for _ in range(6):
        out, state = transform.update(updates, state, params, activity={"dense": jnp.zeros(1)})
        changed.append(not np.array_equal(out["dense"]["kernel"], updates["dense"]["kernel"]))
    assert changed == [False, False, True, False, False, True]


def test_schedule_sees_the_step_count():
    params = dense([[1.0]])
    transform = ss.synscaw(lambda count: 0.1 * count, target=1.0, restore_norm=False)
    state, changes = transform.init(params), []
    for _ in range(3):
        out, state = transform.update(
            optax.tree.zeros_like(params), state, params, activity={"dense": jnp.zeros(1)}
        )
        changes.append(float(out["dense"]["kernel"][0, 0]))
    np.testing.assert_allclose(changes, [0.0, 0.1, 0.2], rtol=1e-6)


def test_restored_norm():
    params = dense(jax.random.normal(jax.random.key(0), (50, 4)))
    change = step(
        ss.synscaw(0.5, target=1.0, restore_norm=True), params, jnp.array([0, 0.5, 1.0, 3])
    )
    before = jnp.linalg.norm(params["dense"]["kernel"], axis=0)
    after = jnp.linalg.norm(params["dense"]["kernel"] + change, axis=0)
    np.testing.assert_allclose(after, before, rtol=1e-5)
    assert np.abs(change[:, 0]).max() > 1e-3
    np.testing.assert_array_equal(change[:, 2], 0)


def test_small_steps_survive_the_restored_norm():
    # p'' − p would lose a step of 1e-9 of the weights; the transform must not.
    kernel = jax.random.normal(jax.random.key(0), (50, 2), jnp.float32)
    exact = np.asarray(kernel, np.float64)
    change = step(ss.synscaw(1e-9, target=1.0, restore_norm=True), dense(kernel), [0.0, 0.0])
    raw = 1e-9 * exact**2
    expected = (exact + raw) * np.linalg.norm(exact, axis=0) / np.linalg.norm(exact + raw, axis=0)
    np.testing.assert_allclose(change, expected - exact, rtol=1e-3, atol=1e-12)


def test_bounded_relative_change():
    kernel = np.array([[0.5], [-0.5], [50.0]], np.float32)
    transform = ss.synscaw(0.1, target=1.0, max_relative_change=0.06, restore_norm=False)
    change = step(transform, dense(kernel), [0.0])
    np.testing.assert_allclose(change / kernel, [[0.05], [-0.05], [0.06]], rtol=1e-5)


def test_clip_bounds_before_the_rate():
    kernel = np.array([[0.5], [3.0]], np.float32)
    change = step(ss.synscaw(0.1, target=1.0, clip=1.0, restore_norm=False), dense(kernel), [0.0])
    np.testing.assert_allclose(change, [[0.025], [0.1]], rtol=1e-6)


def test_silent_inputs_are_left_out():
    kernel = np.ones((3, 2), np.float32)
    entered = {"dense": jnp.array([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])}
    transform = ss.synscaw(0.1, target=1.0, skip_silent_inputs=True, restore_norm=False)
    change = step(transform, dense(kernel), [0.0, 0.0], presynaptic=entered)
    np.testing.assert_allclose(change, [[0, 0], [0.1, 0.1], [0, 0]], rtol=1e-6)


def test_silent_inputs_are_left_out_of_a_norm_that_is_restored():
    kernel = np.array([[1.0], [2.0], [3.0]], np.float32)
    entered = {"dense": jnp.array([[1.0, 1.0, 0.0]])}
    transform = ss.synscaw(0.1, target=1.0, skip_silent_inputs=True)
    change = step(transform, dense(kernel), [0.0], presynaptic=entered)
    alone = step(ss.synscaw(0.1, target=1.0), dense(kernel[:2]), [0.0])
    np.testing.assert_allclose(change, [*alone, [0]], rtol=1e-6)


def test_norm_readings():
    layer = ss.Layer(("conv",), bias=None, norm=("bn",))
    kernel = jax.random.normal(jax.random.key(0), (3, 3, 4, 2))
    stats = {"bn": {"mean": jnp.array([0.5, -0.5]), "var": jnp.array([4.0, 1.0])}}
    params = {
        "conv": {"kernel": kernel},
        "bn": {"scale": jnp.array([1.0, 2.0]), "bias": jnp.array([0.0, 0.3])},
    }
    sigma = jnp.sqrt(jnp.square(kernel).sum((0, 1, 2)) / 3)
    line = params["bn"]["scale"] / jnp.sqrt(stats["bn"]["var"] + 1e-5)
    targets = {
        "pre_norm": gaussian_mean("relu", jnp.zeros(2), sigma),
        "batch_norm": gaussian_mean("relu", params["bn"]["bias"], params["bn"]["scale"]),
        "running_norm": gaussian_mean(
            "relu", params["bn"]["bias"] - stats["bn"]["mean"] * line, sigma * line
        ),
    }
    for reading, target in targets.items():
        transform = ss.synscaw(1.0, target="layer_noise", norm_reading=reading, layers=[layer],
                               restore_norm=False)  # fmt: skip
        out, _ = transform.update(
            optax.tree.zeros_like(params), transform.init(params), params,
            activity={"conv": jnp.zeros(2)}, batch_stats=stats,
        )  # fmt: skip
        expected = jnp.square(kernel) * target[None, None, None]
        np.testing.assert_allclose(out["conv"]["kernel"], expected, rtol=1e-4)


floats = st.floats(-3, 3, width=32, allow_subnormal=False)


def problems(dtype=np.float32):
    def build(shape):
        arrays = st.lists(floats, min_size=shape[0] * shape[1], max_size=shape[0] * shape[1])
        row = st.lists(floats, min_size=shape[1], max_size=shape[1])
        return st.tuples(
            arrays.map(lambda v: np.array(v, dtype).reshape(shape)),
            arrays.map(lambda v: np.array(v, dtype).reshape(shape) / 10),
            row.map(lambda v: np.array(v, dtype)),
        )

    return st.tuples(st.integers(1, 4), st.integers(1, 4)).flatmap(build)


READINGS = st.fixed_dictionaries(
    {
        "target": st.sampled_from(["layer_noise", "uniform", 0.1]),
        "granularity": st.sampled_from(["neuron", "layer"]),
        "restore_norm": st.booleans(),
    },
    optional={"clip": st.just(0.5)},
)


@hypothesis.given(problems(), READINGS)
@hypothesis.settings(deadline=None, max_examples=40)
def test_permuting_neurons_permutes_updates(problem, reading):
    kernel, update, activity = problem
    order = np.random.default_rng(0).permutation(len(activity))
    transform = ss.synscaw(0.1, **reading)
    updates = {"dense": {"kernel": jnp.asarray(update), "bias": jnp.zeros(len(activity))}}
    permuted = {"dense": {"kernel": jnp.asarray(update[:, order]), "bias": jnp.zeros(len(order))}}
    plain = step(transform, dense(kernel), activity, updates)
    turned = step(transform, dense(kernel[:, order]), activity[order], permuted)
    np.testing.assert_allclose(turned, plain[:, order], rtol=1e-4, atol=1e-6)


@hypothesis.given(problems(), st.booleans(), st.sampled_from(["neuron", "layer"]))
@hypothesis.settings(deadline=None, max_examples=40)
def test_zero_gap_changes_nothing_to_the_bit(problem, restore_norm, granularity):
    kernel, update, _ = problem
    updates = {"dense": {"kernel": jnp.asarray(update), "bias": jnp.zeros(kernel.shape[1])}}
    transform = ss.synscaw(0.3, target=0.5, restore_norm=restore_norm, granularity=granularity)
    out = step(transform, dense(kernel), np.full(kernel.shape[1], 0.5, np.float32), updates)
    assert np.asarray(out).tobytes() == update.tobytes()


@hypothesis.given(problems(), READINGS)
@hypothesis.settings(deadline=None, max_examples=20)
def test_masked_leaves_and_biases_stay_untouched(problem, reading):
    kernel, update, activity = problem
    params = {"a": dense(kernel)["dense"], "b": dense(kernel)["dense"]}
    updates = {
        name: {"kernel": jnp.asarray(update), "bias": jnp.ones(len(activity))} for name in "ab"
    }
    transform = ss.synscaw(0.3, mask={"a": True, "b": False}, **reading)
    out, _ = transform.update(
        updates, transform.init(params), params, activity=dict.fromkeys("ab", jnp.asarray(activity))
    )
    np.testing.assert_array_equal(out["b"]["kernel"], update)
    np.testing.assert_array_equal(out["a"]["bias"], 1)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_dtype_is_kept(dtype):
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), dense(np.ones((3, 2), np.float32)))
    with jax.numpy_dtype_promotion("strict"):
        change = step(ss.synscaw(0.1), params, jnp.zeros(2, dtype))
    assert change.dtype == dtype
    assert np.all(np.isfinite(np.asarray(change, np.float32)))
