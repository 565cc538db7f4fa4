"""The trainer: exact resume, sharing, schedules of local rules, what stays fixed."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from synscale_jax.data import load_images
from synscale_jax.models import MLP
from synscale_jax.models.convnet import FCN, HebbNet, Readout
from synscale_jax.models.feedback_alignment import FeedbackMLP
from synscale_jax.plasticity import krotov_hopfield, oja
from synscale_jax.training.plasticity import Examples, LearnerProgram, View
from synscale_jax.training.plasticity_learner import Learner, LearnerConfig
from synscale_jax.training.plasticity_rows import Size
from synscale_jax.training.plasticity_runs import (
    NotYet,
    load_variables,
    share_jobs,
    train_learner,
)
from synscale_jax.training.plasticity_studies import GROUPS, with_scaling
from synscale_jax.training.plasticity_units import UnitsConfig, train_units, units_epoch
from synscale_jax.training.runs import Busy, Interrupted


@pytest.fixture(scope="module")
def digits():
    images = load_images("digits")
    return Examples(*images.train), Examples(*images.test)


def program(digits, model, rules=(), **config):
    learner = Learner(
        "job", "job", model, LearnerConfig(**{"batch": 100, **config}), rules=dict(rules)
    )
    return LearnerProgram(learner, *digits, View(1 / 255))


def run(made, seed=0, until=None):
    key, state, kept = jax.random.key(seed), None, []
    state = made.init(key)
    for mark in made.boundaries():
        state, _ = made.chunk(state, key, mark - int(state.step))
        kept.append(jax.device_get(state))
        if until is not None and mark >= until:
            break
    return kept


def leaves_equal(a, b):
    return all(jax.tree.leaves(jax.tree.map(lambda x, y: bool(np.array_equal(x, y)), a, b)))


def test_a_linear_chain_learns_and_resumes_to_the_bit(digits, tmp_path, monkeypatch):
    made = program(digits, FCN((8,), 10), epochs=3, evaluations=2, learning_rate=1e-2)
    settings = {**made.learner.settings, "data": {"name": "digits"}}
    whole = train_learner(lambda: made, settings, 0, tmp_path / "whole", say=lambda _: None)
    assert whole["status"] == "finished" and whole["final"]["test_accuracy"] > 0.6
    assert [row["step"] for row in whole["history"]] == [7, 14, 21, 28, 35, 42]

    seen = itertools.count()

    def stop(line):  # as a signal would, in the middle of the run
        if next(seen) == 2:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        train_learner(lambda: made, settings, 0, tmp_path / "cut", say=stop)
    assert (tmp_path / "cut" / "state.npz").exists()
    resumed = train_learner(lambda: made, settings, 0, tmp_path / "cut", say=lambda _: None)
    assert resumed["test_correct"] == whole["test_correct"]
    assert leaves_equal(load_variables(tmp_path / "cut"), load_variables(tmp_path / "whole"))
    assert not (tmp_path / "cut" / "state.npz").exists()
    again = train_learner(None, settings, 0, tmp_path / "whole")  # is not made anew
    assert again == json.loads((tmp_path / "whole" / "result.json").read_text())


def test_published_schedule_is_one_local_update_an_epoch(digits):
    made = program(
        digits,
        HebbNet((6,), (), 10),
        {"hebb0": oja(0.1)},
        epochs=2,
        evaluations=2,
        schedule="first_batch_per_epoch",
    )
    start = made.init(jax.random.key(0)).params["hebb0"]["kernel"]
    kernels = [state.params["hebb0"]["kernel"] for state in run(made)]
    moved = [bool(np.any(a != b)) for a, b in itertools.pairwise([start, *kernels])]
    assert moved == [True, False, True, False]


@pytest.mark.parametrize("scaling_rate", [None, 0.1])
def test_two_phases_learn_one_after_the_other(digits, scaling_rate):
    config = LearnerConfig(batch=100, schedule="two_phase", local_epochs=1)
    learner = Learner(
        "j", "j", HebbNet((6,), (), 10), config, {"hebb0": oja(0.1)}, scaling_rate=scaling_rate
    )
    made = LearnerProgram(learner, *digits, View(1 / 255))
    first = jax.device_get(made.init(jax.random.key(0)))
    local, end = run(made)
    assert leaves_equal(first.params["head"], local.params["head"])
    assert not leaves_equal(first.params["hebb0"], local.params["hebb0"])
    assert leaves_equal(local.params["hebb0"], end.params["hebb0"])
    assert not leaves_equal(local.params["head"], end.params["head"])


def test_feedback_weights_never_change(digits):
    made = program(digits, FeedbackMLP((12,), 10))
    fixed = jax.device_get(made.init(jax.random.key(0)).fixed)
    assert leaves_equal(fixed, run(made)[-1].fixed)


def test_angles_fall_below_ninety_degrees_while_feedback_alignment_learns(digits, tmp_path):
    history = {}
    for kind in ("backprop", "alignment", "direct"):
        made = program(digits, FeedbackMLP((32,), 10, kind), epochs=10, learning_rate=3e-3)
        settings = {**made.learner.settings, "data": {"name": "digits"}}
        result = train_learner(lambda made=made: made, settings, 0, tmp_path / kind,
                               say=lambda _: None)  # fmt: skip
        history[kind] = result["history"]
    assert all("angles" not in row for kind in ("backprop", "direct") for row in history[kind])
    first, last = (history["alignment"][index]["angles"] for index in (0, -1))
    assert set(last) == {"dense0", "head"}
    assert last["dense0"] < min(90, first["dense0"])
    assert last["head"] == pytest.approx(0, abs=1)  # whatever the feedback


def test_frozen_modules_stay_with_scaling_on_top_of_the_others(digits):
    model = FCN((8, 8), 10, "relu")
    learner = Learner("j", "j", model, LearnerConfig(batch=100), frozen=("dense0",))
    made = LearnerProgram(learner, *digits, View(1 / 255))
    first = jax.device_get(made.init(jax.random.key(0)))
    end = run(made)[-1]
    assert leaves_equal(first.params["dense0"], end.params["dense0"])
    scaled = run(LearnerProgram(with_scaling(learner, 0.1), *digits, View(1 / 255)))[-1]
    assert leaves_equal(first.params["dense0"], scaled.params["dense0"])
    assert not leaves_equal(scaled.params["dense1"], end.params["dense1"])


def test_feedback_on_the_only_trained_layer_is_backprop(digits):
    """Item 10 of the ledger: on frozen units both readouts are the same run."""
    params = []
    for feedback in ("backprop", "alignment"):
        learner = Learner(
            "r", "r", Readout(10, feedback=feedback, use_bias=False), LearnerConfig(batch=100)
        )
        kernel = jax.random.normal(jax.random.key(5), (64, 10)) / 8
        flat = [Examples(np.reshape(part.inputs, (-1, 64)), part.labels) for part in digits]
        made = LearnerProgram(learner, *flat, View(1 / 255), {"head": {"kernel": kernel}})
        params.append(run(made)[-1].params)
    np.testing.assert_allclose(params[0]["head"]["kernel"], params[1]["head"]["kernel"], rtol=1e-6)


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        ("entropy", lambda u: -jax.nn.log_softmax(u)[0, 1]),
        ("likelihood", lambda u: -u[0, 1]),
        ("tanh_entropy", lambda u: -jax.nn.log_softmax(jnp.tanh(0.5 * u))[0, 1]),
        ("tanh_power", lambda u: jnp.sum(
            jnp.abs(jnp.tanh(0.5 * u) - jnp.array([[-1.0, 1.0, -1.0]])) ** 6)),
        ("tanh_log_power", lambda u: jnp.sum(jnp.abs(
            jax.nn.log_softmax(jnp.tanh(0.5 * u)) - jnp.array([[-1.0, 1.0, -1.0]])) ** 6)),
    ],
)  # fmt: skip
def test_objectives(digits, objective, expected):
    made = program(digits, FCN((), 10), objective=objective, slope=0.5)
    u = jnp.array([[0.3, -1.0, 2.0]])
    np.testing.assert_allclose(made.losses(u, jnp.array([1]))[0], expected(u), rtol=1e-5)


def test_units_resume_to_the_bit_and_are_read_when_done(digits, tmp_path):
    images, config = digits[0].inputs, UnitsConfig(units=12, epochs=4, batch=200)
    data = {"name": "digits"}
    whole = train_units(images, config, data, 0, tmp_path / "a", say=lambda _: None)
    assert whole.shape == (64, 12)
    by_hand = jax.random.uniform(jax.random.split(jax.random.key(0))[0], (64, 12))
    for epoch in range(4):
        key = jax.random.split(jax.random.key(0))[1]
        by_hand = units_epoch(config, by_hand, jnp.asarray(images), key, np.int32(epoch))
    np.testing.assert_array_equal(whole, by_hand)
    again = train_units(images, config, data, 0, tmp_path / "a", say=lambda _: None)
    np.testing.assert_array_equal(whole, again)


def test_the_rate_of_units_falls_once_an_epoch():
    rule = UnitsConfig(units=4, epochs=10, batch=5).rule(3)
    weights, x = jax.random.uniform(jax.random.key(0), (6, 4)), jnp.ones((5, 6))
    state = rule.init(weights)
    for count, share in ((0, 1.0), (2, 1.0), (3, 0.9), (29, 0.1)):
        new, _ = rule.update(weights, x, None, state._replace(count=jnp.int32(count)))
        assert float(jnp.abs(new - weights).max()) == pytest.approx(0.02 * share, rel=1e-3)
    assert krotov_hopfield().reads_postsynaptic is False


def test_jobs_wait_for_what_they_need_and_leave_what_is_busy():
    done = []

    def needs_a():
        if "a" not in done:
            raise NotYet
        done.append("b")

    def busy():
        raise Busy("elsewhere")

    assert share_jobs([needs_a, busy, lambda: done.append("a")], pause=0) == 1
    assert done == ["a", "b"]


def test_what_a_dead_process_left_is_taken_over_while_something_needs_it():
    done, tries, lines = [], itertools.count(), []

    def needs_a():
        if "a" not in done:
            raise NotYet("a/seed0")
        done.append("b")

    def a():
        if next(tries) < 3:  # then the other process dies
            raise Busy("elsewhere")
        done.append("a")

    assert share_jobs([needs_a, a], pause=0, say=lines.append) == 0
    assert done == ["a", "b"]
    assert lines == ["waiting for another process to finish a/seed0"]


@pytest.mark.parametrize("data", ["mnist", "cifar10"])
def test_every_row_of_the_comparison_can_be_made(data):
    shape = {"mnist": (28, 28, 1), "cifar10": (32, 32, 3)}[data]
    size = Size(data, 10, int(np.prod(shape)), shrink=50, most_epochs=1)
    learners = {}
    for group in GROUPS.values():
        for row in group():
            learner = row.learner(size, None)
            assert learner.name == row.name
            inputs = (1, 16) if row.units else (1, *shape)
            variables = jax.eval_shape(learner.model.init, jax.random.key(0), jnp.zeros(inputs))
            missing = {*learner.rules, *learner.frozen} - set(variables["params"])
            assert not missing, row.name
            same = learners.setdefault(row.name, learner)  # two studies may share a run
            assert same.settings == learner.settings


def test_no_run_is_made_twice():
    """Rows of other names differ in more than the name."""
    size, made = Size("mnist", 10, 784), {}
    for row in [row for group in GROUPS.values() for row in group()]:
        settings = row.learner(size, None).settings
        method = {**settings["method"], "name": None}
        seen = (row.source, row.units, row.power, row.start_from, row.start_leaves)
        made.setdefault(str(({**settings, "method": method}, seen)), set()).add(row.name)
    assert [names for names in made.values() if len(names) > 1] == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch": 0}, "batch=0"),
        ({"learning_rate": -1.0}, "learning_rate=-1.0"),
        ({"slope": float("nan")}, "slope=nan"),
        ({"loss_power": -1.0}, "loss_power=-1.0"),
        ({"dropout_epochs": -1}, "dropout_epochs=-1"),
        ({"local_epochs": -1}, "local_epochs=-1 is not possible"),
        ({"objective": "hinge"}, "objective='hinge'"),
        ({"local_epochs": 1}, "local_epochs=1"),
        ({"schedule": "two_phase"}, "two_phase needs"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        LearnerConfig(**settings)


def test_models_that_differ_have_other_identities():
    def model(made):
        return json.loads(json.dumps(Learner("j", "j", made, LearnerConfig()).settings))["model"]

    assert model(FCN([8], 10)) == model(FCN((8,), 10)) != model(FCN([9], 10))
    assert model(FCN([8], 10))["features"] == [8]
    assert model(MLP((8,), 10)) != model(MLP((8,), 10, dropout=(0.1, 0.2)))
    with pytest.raises(ValueError, match=r"MLP has kernel_init=.* cannot be written"):
        model(MLP((8,), 10, kernel_init=jax.nn.initializers.zeros))


def test_fewer_units_than_the_rank_are_refused():
    with pytest.raises(ValueError, match=r"rank=2 is larger than units=1"):
        UnitsConfig(units=1)
