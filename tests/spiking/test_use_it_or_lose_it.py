"""The decay on ordinary networks, and what every transform owes to optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synscale_jax.scaling import STATIC_ARGS, Layer, synscaw, use_it_or_lose_it


def problem(dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 3)
    params = {
        "hidden": {"kernel": jax.random.normal(keys[0], (5, 4), dtype), "bias": jnp.ones(4, dtype)},
        "out": {"kernel": jax.random.normal(keys[1], (4, 3), dtype), "bias": jnp.ones(3, dtype)},
    }
    grads = jax.tree.map(lambda leaf: jnp.cos(leaf) / 10, params)
    entered = {
        "hidden": jnp.array([[0.0, 1.0, 0.0, -2.0, 0.0], [0.0, 0.0, 0.5, 0.0, 0.0]]),
        "out": jnp.zeros((2, 4)),
    }
    return params, grads, entered


def steps(transform, params, grads, entered, count=3, **extra):
    state = transform.init(params)
    for _ in range(count):
        updates, state = transform.update(grads, state, params, presynaptic=entered, **extra)
        params = optax.apply_updates(params, updates)
    return params


def assert_close(a, b, **kwargs):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **{"rtol": 1e-6, **kwargs}), a, b)


@settings(max_examples=25, deadline=None)
@given(pattern=st.lists(st.booleans(), min_size=1, max_size=12), tau=st.floats(1.0, 50.0))
def test_a_weight_follows_the_time_since_its_last_use(pattern, tau):
    params = {"a": {"kernel": jnp.full((1, 1), 0.7)}}
    tx = use_it_or_lose_it(tau)
    state, expected, silent = tx.init(params), 0.7, 0
    for used in pattern:
        updates, state = tx.update(
            jax.tree.map(jnp.zeros_like, params), state, params,
            presynaptic={"a": jnp.full((2, 1), float(used))},
        )  # fmt: skip
        params = optax.apply_updates(params, updates)
        silent = 0 if used else silent + 1
        expected *= 1 if used else np.exp(-(silent**2 - (silent - 1) ** 2) / tau**2)
    np.testing.assert_allclose(params["a"]["kernel"][0, 0], expected, rtol=1e-5, atol=1e-7)


def test_used_inputs_and_biases_keep_the_update_to_the_bit():
    params, grads, entered = problem()
    tx = use_it_or_lose_it(2.0)
    updates, _ = tx.update(grads, tx.init(params), params, presynaptic=entered)
    kernel = updates["hidden"]["kernel"]
    assert bool((kernel[1:4] == grads["hidden"]["kernel"][1:4]).all())
    assert bool((updates["out"]["bias"] == grads["out"]["bias"]).all())
    weights = params["hidden"]["kernel"] + grads["hidden"]["kernel"]
    after = params["hidden"]["kernel"] + kernel
    np.testing.assert_allclose(after[0], weights[0] * np.exp(-1 / 4), rtol=1e-5)


def test_threshold_says_what_is_used():
    params, grads, entered = problem()
    tx = use_it_or_lose_it(2.0, threshold=1.5)
    _, state = tx.update(grads, tx.init(params), params, presynaptic=entered)
    assert state.silent["hidden"].tolist() == [1, 1, 1, 0, 1]


def test_convolutions_decay_by_input_channel():
    params = {"conv": {"kernel": jnp.ones((3, 3, 2, 4)), "bias": jnp.zeros(4)}}
    entered = {"conv": jnp.zeros((2, 5, 5, 2)).at[1, 2, 2, 1].set(1.0)}
    tx = use_it_or_lose_it(1.0)
    updates, _ = tx.update(
        jax.tree.map(jnp.zeros_like, params), tx.init(params), params, presynaptic=entered
    )
    assert float(jnp.abs(updates["conv"]["kernel"][:, :, 1]).max()) == 0
    np.testing.assert_allclose(updates["conv"]["kernel"][:, :, 0], np.expm1(-1), rtol=1e-6)


def test_contracts_of_optax():
    params, grads, entered = problem()
    tx = optax.chain(optax.adam(1e-2), use_it_or_lose_it(2.0))
    plain = steps(tx, params, grads, entered)
    assert_close(plain, steps(tx, params, grads, entered, value=1.0, something=None))
    state = tx.init(params)
    eager, _ = tx.update(grads, state, params, presynaptic=entered)
    jitted, _ = jax.jit(tx.update)(grads, state, params, presynaptic=entered)
    assert_close(eager, jitted, rtol=2e-5, atol=1e-7)
    masked = steps(optax.masked(use_it_or_lose_it(2.0), {"hidden": True, "out": False}),
                   params, grads, entered)  # fmt: skip
    own = steps(use_it_or_lose_it(2.0, mask={"hidden": True, "out": False}), params, grads, entered)
    assert_close(masked, own)
    parted = optax.partition(
        {"decayed": use_it_or_lose_it(2.0), "plain": optax.identity()},
        {"hidden": "decayed", "out": "plain"},
    )
    assert_close(steps(parted, params, grads, entered), own)
    injected = optax.inject_hyperparams(use_it_or_lose_it, static_args=("mask", "layers"))(2.0)
    assert_close(steps(injected, params, grads, entered),
                 steps(use_it_or_lose_it(2.0), params, grads, entered))  # fmt: skip


def test_stands_beside_synscaw():
    params, grads, entered = problem()
    tx = optax.chain(synscaw(0.01, target=0.1), use_it_or_lose_it(2.0))
    activity = {"hidden": jnp.full(4, 0.3), "out": jnp.full(3, 0.3)}
    out = steps(tx, params, grads, entered, activity=activity)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(out))
    assert "scale_output" in STATIC_ARGS


def test_bfloat16_keeps_its_dtype():
    params, grads, entered = problem(jnp.bfloat16)
    assert (
        steps(use_it_or_lose_it(2.0), params, grads, entered)["out"]["kernel"].dtype == "bfloat16"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"time_constant": 0.0}, "time_constant=0.0"),
        ({"threshold": -1.0}, "threshold=-1.0"),
    ],
)
def test_refuses_what_is_no_decay(arguments, said):
    with pytest.raises(ValueError, match=said):
        use_it_or_lose_it(**arguments)


def test_missing_or_misshapen_activity_is_told():
    params, grads, entered = problem()
    tx = use_it_or_lose_it(2.0, layers=[Layer(("hidden",))])
    with pytest.raises(ValueError, match="presynaptic=True"):
        tx.update(grads, tx.init(params), params)
    with pytest.raises(ValueError, match=r"shape \(2, 4\)"):
        tx.update(grads, tx.init(params), params, presynaptic={"hidden": entered["out"]})
