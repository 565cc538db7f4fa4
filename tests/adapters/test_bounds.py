"""Bottlenecks attached to models: names, modes, losses, and what they read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from synscale_jax.adapters.bounds import VariationalBound, bounds_loss, codes_of, decoded
from synscale_jax.data import load_images
from synscale_jax.models import MLP, cifar_resnet
from synscale_jax.training import methods
from synscale_jax.training.bounds import informations, rates, with_bounds
from synscale_jax.training.config import TrainConfig
from synscale_jax.training.program import Program

PLACES = ("dense1", "head")
CONFIG = TrainConfig(epochs=1, chunk_steps=6, batch=50, train_examples=300, test_examples=200)


def attached(mode="joint", **kwargs):
    return VariationalBound(MLP((8, 8), 3), PLACES, 3, mode, features=4, samples=5, **kwargs)


@pytest.fixture(scope="module")
def case():
    x = jax.random.normal(jax.random.key(0), (6, 5))
    params = attached().init(jax.random.key(1), x, train=False)["params"]
    return params, x, jnp.arange(6) % 3


def apply(model, params, x, key=2):
    return model.apply(
        {"params": params},
        x,
        train=True,
        rngs={"dropout": jax.random.key(key)},
        mutable=["regularizers"],
    )


def test_output_names_and_initial_weights_stay_the_models(case):
    params, x, _ = case
    plain = MLP((8, 8), 3)
    own = plain.init(jax.random.key(1), x, train=False)["params"]
    jax.tree.map(np.testing.assert_array_equal, own, {name: params[name] for name in own})
    assert set(params) - set(own) == {"bound_dense1", "bound_head"}
    want = plain.apply({"params": own}, x, train=False)
    np.testing.assert_array_equal(attached().apply({"params": params}, x), want)
    np.testing.assert_array_equal(apply(attached(), params, x)[0], want)
    assert attached().layer_table() == plain.layer_table()


@pytest.mark.parametrize("mode", ["joint", "probe"])
def test_only_joint_bounds_reach_the_model(case, mode):
    params, x, labels = case

    def loss(params):
        sown = apply(attached(mode), params, x)[1]["regularizers"]
        return bounds_loss(sown, labels, strength=0.1).mean()

    grads = jax.grad(loss)(params)
    reached = {name: any(np.any(leaf) for leaf in jax.tree.leaves(grads[name])) for name in grads}
    assert reached["bound_head"] and reached["bound_dense1"]
    assert reached["dense0"] == reached["dense1"] == (mode == "joint")
    assert not reached["head"]  # no bottleneck reads what the head puts out


def test_bottlenecks_read_what_enters_their_module(case):
    params, x, _ = case
    hidden = nn.relu(x @ params["dense0"]["kernel"] + params["dense0"]["bias"][None])
    encoder = params["bound_dense1"]["encoder"]
    code = hidden @ encoder["kernel"] + encoder["bias"][None]
    found = codes_of(attached(), {"params": params}, x)["dense1"]
    np.testing.assert_allclose(found.mean, code[:, :4], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.deviation, jax.nn.softplus(code[:, 4:] - 5), rtol=1e-5)
    log_q = decoded(attached(), params, "dense1", found.mean)
    np.testing.assert_allclose(jnp.exp(log_q).sum(-1), 1, rtol=1e-5)


def test_images_are_read_as_the_mean_over_positions():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, *, train=False):
            return nn.Dense(2, name="head")(nn.Conv(3, (1, 1), name="conv")(x).mean((1, 2)))

    model = VariationalBound(Net(), ("conv",), 2, features=3)
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 5))
    variables = model.init(jax.random.key(1), x, train=False)
    moved = jnp.flip(x, axis=(1, 2))  # other positions, the same mean
    codes, again = (codes_of(model, variables, images)["conv"].mean for images in (x, moved))
    np.testing.assert_allclose(codes, again, rtol=1e-5)
    assert variables["params"]["bound_conv"]["encoder"]["kernel"].shape == (5, 6)


def test_loss_is_the_sum_over_places(case):
    params, x, labels = case
    sown = apply(attached(), params, x)[1]["regularizers"]
    both = bounds_loss(sown, labels, strength=0.3)
    parts = [bounds_loss({name: part}, labels, strength=0.3) for name, part in sown.items()]
    np.testing.assert_allclose(both, sum(parts), rtol=1e-6)
    (terms,) = sown["bound_head"]["bottleneck"]
    without = bounds_loss({"bound_head": sown["bound_head"]}, labels, strength=0.0)
    own = -np.asarray(terms.log_probabilities)[np.arange(6), labels]
    np.testing.assert_allclose(without, own, rtol=1e-6)


@pytest.mark.parametrize("method", [methods.baseline(), methods.synscaw()], ids=lambda m: m.name)
@pytest.mark.parametrize(
    ("model", "places"),
    [
        pytest.param(MLP((16, 16), 10), PLACES, id="mlp"),
        pytest.param(
            cifar_resnet(8, 10, width=2),
            ("stage2_block0", "head"),
            id="resnet",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_probe_leaves_training_unchanged_to_the_bit(model, places, method):
    data, key = load_images("digits"), jax.random.key(0)
    states, metrics = [], []
    for one in (method, with_bounds(method, places, strength=0.1, mode="probe", features=8)):
        program = Program(model, one, CONFIG, data)
        state, measured = program.chunk(program.init(key), key, 6)
        states.append(state)
        metrics.append(measured)
    plain, probed = states
    own = {name: probed.params[name] for name in plain.params}
    jax.tree.map(np.testing.assert_array_equal, own, plain.params)
    jax.tree.map(np.testing.assert_array_equal, probed.batch_stats, plain.batch_stats)
    np.testing.assert_array_equal(metrics[0].entropy, metrics[1].entropy)
    first = program.init(key).params["bound_head"]["encoder"]["kernel"]
    assert np.any(first != probed.params["bound_head"]["encoder"]["kernel"])  # it did train


def test_bounds_hold_on_held_out_data():
    method = with_bounds(methods.baseline(), PLACES, strength=1e-3, features=8)
    program = Program(MLP((16, 16), 10), method, CONFIG, load_images("digits"))
    key = jax.random.key(0)
    state = program.init(key)
    before = rates(program, state, examples=150)
    for _ in range(5):
        state, _ = program.chunk(state, key, 6)
    after = informations(program, state, examples=150)
    for split in ("train", "test"):
        for place in PLACES:
            point = after[split][place]
            assert point["label"] <= point["label_entropy"] <= np.log2(10)
            assert point["lower"] <= min(point["upper"], point["ceiling"], point["rate"])
            assert point["label"] > before[split][place]["label"]
            assert point["examples"] == 150


@pytest.mark.parametrize(
    ("call", "shown"),
    [
        (lambda: attached("both"), "mode='both'"),
        (lambda: VariationalBound(MLP((8,), 3), (), 3), "places=()"),
        (
            lambda: VariationalBound(MLP((8,), 3), ("dense7",), 3).init(
                jax.random.key(0), jnp.ones((1, 2)), train=False
            ),
            "'dense7' was called 0 times",
        ),
        (lambda: bounds_loss({}, jnp.zeros(2, int), strength=1.0), "no bottleneck"),
        (lambda: bounds_loss({}, jnp.zeros(2, int), strength=-1.0), "strength=-1.0"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call, shown):
    with pytest.raises(ValueError) as refused:
        call()
    assert shown in str(refused.value) and "\n" not in str(refused.value)
