import dataclasses
import itertools

import jax
import jax.numpy as jnp
import job
import numpy as np
import optax
import pytest

from synscale_jax.data import load_images
from synscale_jax.models import FeedbackMLP
from synscale_jax.training import methods
from synscale_jax.training.config import TrainConfig, make_optimizer
from synscale_jax.training.mlp_protocols import MLPConfig
from synscale_jax.training.program import Program, split_data


@pytest.mark.parametrize(
    ("settings", "shown", "remedy"),
    [
        ({"epochs": 0}, "epochs=0", "use 1 or more"),
        ({"batch": -1}, "batch=-1", "use 1 or more"),
        ({"chunk_steps": 0}, "chunk_steps=0", "use 1 or more"),
        ({"eval_batch": 0}, "eval_batch=0", "use 1 or more"),
        ({"decay_epochs": 0}, "decay_epochs=0", "use 1 or more"),
        ({"train_examples": 0}, "train_examples=0", "None for all"),
        ({"test_examples": -5}, "test_examples=-5", "None for all"),
        ({"validation_examples": -1}, "validation_examples=-1", "use 0 or more"),
        ({"learning_rate": 0.0}, "learning_rate=0.0", "use e.g. 5e-4"),
        ({"learning_rate": float("nan")}, "learning_rate=nan", "use e.g. 5e-4"),
        ({"learning_rate": float("inf")}, "learning_rate=inf", "use e.g. 5e-4"),
        ({"decay": 0.0}, "decay=0.0", "a factor in (0, 1]"),
        ({"decay": 1.5}, "decay=1.5", "a factor in (0, 1]"),
        ({"optimizer": "lion"}, "optimizer='lion'", "adam, adam_restarted, sgd"),
        ({"optimizer": "adam_restarted", "decay_epochs": 3}, "decay_epochs=3", "leave it at 5"),
        ({"normalization": (0.1, 0.0)}, "normalization=(0.1, 0.0)", "a deviation above 0"),
        ({"normalization": (float("nan"), 1.0)}, "normalization=(nan, 1.0)", "give the mean"),
    ],
)
def test_impossible_settings_are_refused(settings, shown, remedy):
    with pytest.raises(ValueError) as refused:
        TrainConfig(**settings)
    text = str(refused.value)
    assert shown in text and remedy in text and "\n" not in text and text.endswith(".")


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({"batch": 1438}, "batch=1438 is larger than the 1437 training examples of digits"),
        ({"batch": 100, "train_examples": 99}, "batch=100 is larger than the 99"),
        ({"train_examples": 1438}, "1438"),
        ({"test_examples": 361}, "361"),
        ({"validation_examples": 1437}, "1437"),
        ({"validation_examples": 400, "train_examples": 1200}, "1200"),
    ],
)
def test_splits_that_do_not_fit_are_refused(settings, shown):
    with pytest.raises(ValueError, match=shown):
        split_data(job.digits(), TrainConfig(**settings))


def test_splits_do_not_meet():
    config = TrainConfig(validation_examples=200, train_examples=1000, test_examples=100)
    splits = split_data(job.digits(), config)
    assert [len(split.labels) for split in splits] == [1000, 200, 100]
    rows = [{image.tobytes() for image in np.asarray(split.images)} for split in splits]
    assert not any(a & b for a, b in itertools.combinations(rows, 2))


@pytest.mark.parametrize(
    ("make", "shown"),
    [
        (lambda: methods.synscaw(-0.1), "scaling_rate=-0.1"),
        (lambda: methods.synscaw(0.1, target="loud"), "loud"),
        (lambda: methods.synscaw(0.1, every_k=0), "every_k=0"),
        (lambda: methods.synscaw(0.1, every_k="week"), "every_k='week'"),
        (lambda: methods.synscaw(0.1, clip=1.0, max_relative_change=0.1), "clip=1.0"),
        (lambda: methods.synscaw(0.1, norm_reading="none"), "none"),
        (lambda: methods.synscaw(lambda count: 0.1), "scaling_rate is a schedule"),
        (lambda: methods.synscal(-1.0), "scaling_rate=-1.0"),
        (lambda: methods.synscal(1.0, reading="total"), "reading='total'"),
        (lambda: MLPConfig(hidden=()), "hidden=() has no layer but the output"),
    ],
)
def test_impossible_methods_are_refused(make, shown):
    with pytest.raises(ValueError) as refused:
        make()
    assert shown in str(refused.value) and "\n" not in str(refused.value)


def trajectory(optimizer, steps):
    """What an optimizer makes of a parameter under gradients that change."""
    params = {"w": jnp.array([1.0, -2.0, 0.5])}
    state, seen = optimizer.init(params), []
    update = jax.jit(optimizer.update)
    for step in range(steps):
        grads = jax.tree.map(lambda p, s=step: p * jnp.cos(0.7 * s) + 0.1, params)
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
        seen.append(np.asarray(params["w"]))
    return np.stack(seen)


def test_adam_restarted_is_a_fresh_adam_after_epochs_4_9_14():
    per_epoch, rate = 3, 5e-4
    params, state, expected = {"w": jnp.array([1.0, -2.0, 0.5])}, None, []
    for epoch in range(1, 17):  # the port counts from 1 and changes at the start of 5, 10, 15
        if epoch % 5 == 0:
            rate *= 0.94
        if epoch == 1 or epoch % 5 == 0:
            adam = optax.adam(rate)
            state = adam.init(params)
        for batch in range(per_epoch):
            step = per_epoch * (epoch - 1) + batch
            grads = jax.tree.map(lambda p, s=step: p * jnp.cos(0.7 * s) + 0.1, params)
            updates, state = adam.update(grads, state)
            params = optax.apply_updates(params, updates)
            expected.append(np.asarray(params["w"]))
    optimizer = make_optimizer(TrainConfig(optimizer="adam_restarted"), per_epoch)
    np.testing.assert_allclose(trajectory(optimizer, 16 * per_epoch), expected, rtol=1e-6)


def test_adam_decays_its_rate_every_five_epochs_and_keeps_its_moments():
    schedule = optax.piecewise_constant_schedule(5e-4, {15: 0.94, 30: 0.94})
    expected = trajectory(optax.adam(schedule), 40)
    actual = trajectory(make_optimizer(TrainConfig(), 3), 40)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_sgd_has_momentum_and_weight_decay():
    params, momentum, expected = np.array([1.0, -2.0, 0.5]), np.zeros(3), []
    for step in range(10):
        grads = params * np.cos(0.7 * step) + 0.1 + 1e-4 * params
        momentum = 0.9 * momentum + grads
        params = params - 0.1 * (0.5 if step >= 6 else 1) * momentum
        expected.append(params)
    config = TrainConfig(optimizer="sgd", learning_rate=0.1, decay=0.5, decay_epochs=2)
    np.testing.assert_allclose(trajectory(make_optimizer(config, 3), 10), expected, rtol=1e-5)


def test_collections_that_the_trainer_does_not_keep_are_refused(program):
    model = FeedbackMLP((8,), 10)
    other = Program(model, methods.baseline(), program.config, load_images("digits"))
    with pytest.raises(ValueError, match=r"variables feedback.*LearnerProgram"):
        other.init(jax.random.key(0))


def test_pixels_are_scaled_and_normalised(program):
    images = np.array([[[[0], [255]]]], np.uint8)
    np.testing.assert_allclose(program.pixels(images).ravel(), [0, 1])
    for others in (np.array([[7, 0]], np.int32), np.array([[7.5]], np.float32)):  # words, signals
        np.testing.assert_array_equal(program.pixels(others), others)
    port = Program.__new__(Program)
    port.config = dataclasses.replace(program.config, normalization=(0.1307, 0.3081))
    expected = [-0.1307 / 0.3081, (1 - 0.1307) / 0.3081]
    np.testing.assert_allclose(port.pixels(images).ravel(), expected, rtol=1e-6)


def test_an_epoch_shows_every_example_once(program, straight):
    config = dataclasses.replace(program.config, batch=100)
    order = np.asarray(
        program._order(program.init(jax.random.key(3)), jax.random.key(3), program.splits.train)
    )
    assert sorted(order) == list(range(1237))
    assert program.steps_per_epoch == 1237 // config.batch


def test_evaluation_counts_every_example_once(program, straight):
    """360 examples in batches of 500 and of 7, by hand and compiled."""
    state = program.init(jax.random.key(1))
    images, labels = program.splits.test
    logits = program.model.apply({"params": state.params}, program.pixels(images))
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    evaluation = program.evaluate(state, program.splits.test)
    np.testing.assert_allclose(evaluation.loss, entropy.mean(), rtol=1e-5)
    np.testing.assert_array_equal(evaluation.correct, logits.argmax(-1) == labels)
    small = job.make_program(methods.baseline(), eval_batch=7)
    again = small.evaluate(state, small.splits.test)
    np.testing.assert_allclose(again.loss, evaluation.loss, rtol=1e-5)
    np.testing.assert_array_equal(again.correct, evaluation.correct)
    assert evaluation.accuracy == evaluation.correct.mean()


def test_loss_term_is_minimised_and_kept_apart_from_the_entropy():
    program = job.make_program(methods.synscal(2.0))
    key = jax.random.key(0)
    state = program.init(key)
    images, labels, step_key = program._batch(
        state, key, program.splits.train, program._order(state, key, program.splits.train)
    )
    logits, *_ = program._forward(state.params, state, images, step_key)
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    term = 2 * jnp.square(0.1 - jax.nn.softmax(logits)).sum(-1).mean()
    _, metrics = program.chunk(state, key, 1)
    np.testing.assert_allclose(metrics.entropy[0], entropy, rtol=1e-5)
    np.testing.assert_allclose(metrics.loss[0], entropy + term, rtol=1e-5)
