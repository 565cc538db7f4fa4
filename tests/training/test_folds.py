import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from synscale_jax.data import load_table
from synscale_jax.data.tables import Fold, make_folds
from synscale_jax.scaling import synscal_regression
from synscale_jax.training import methods
from synscale_jax.training.folds import FoldConfig, FoldData, FoldProgram, Rows, fold_data
from synscale_jax.training.table5 import table5_methods

EPOCHS, FOLDS, BATCH = 3, 3, 25


def tiny_table(classes=0, rows=60):
    """Few rows and inputs, so that programs are small."""
    generator = np.random.default_rng(1)
    inputs = generator.normal(size=(rows, 2))
    target = (inputs[:, 0] > 0).astype(np.int32) if classes else inputs @ [1.0, 2.0]
    return dataclasses.replace(
        load_table("diabetes"),
        scalars=inputs,
        categories=np.zeros((rows, 0), np.int32),
        columns=("a", "b"),
        target=target,
        class_names=("no", "yes")[:classes],
    )


def train(program, number, data, keys, state=None, epochs=EPOCHS):
    state = program.init(0) if state is None else state
    for first in range(0, epochs, program.epochs_a_call):
        state, metrics = program.run(state, data, keys, number, first)
    return state, metrics


METHODS = ["baseline", "dropout", "synscaw"]


@pytest.fixture(scope="module")
def classifier():
    config = FoldConfig(epochs=EPOCHS, batch=BATCH, folds=FOLDS)
    return FoldProgram(tiny_table(2), table5_methods(config, METHODS), config)


@pytest.fixture(scope="module")
def data(classifier):
    """Longer row lists than are needed, whose padding points at a row of rubbish."""
    data = classifier.data(0)[0]
    last = data.inputs.shape[1]

    def padded(rows):
        return Rows(jnp.pad(rows.index, ((0, 0), (0, 5)), constant_values=last), rows.count)

    return FoldData(
        jnp.concatenate([data.inputs, jnp.full((FOLDS, 1, 2), 1e6)], 1),
        jnp.pad(data.targets, ((0, 0), (0, 1))),
        data.class_weights,
        data.target_mean,
        *(padded(rows) for rows in (data.train, data.validation, data.test)),
    )


def close(first, second, tolerance=1e-5):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance),
        first,
        second,
    )


@pytest.mark.parametrize("method", ["dropout", "synscaw"])
def test_folds_side_by_side_and_padded_equal_folds_one_by_one(classifier, data, method):
    number = METHODS.index(method)
    alone = FoldProgram(
        classifier.table, [classifier.methods[number]], classifier.config, together=1
    )
    keys = classifier.keys(0)
    state, metrics = train(classifier, number, data, keys)
    other, same = train(alone, 0, classifier.data(0)[0], keys)
    close(state.params, other.params)
    close(metrics, same)


def grouped_table():
    groups = np.repeat(np.arange(20), 3).astype(np.int32)
    return dataclasses.replace(tiny_table(2), groups=groups)


def short_folds(table):
    """Two folds with one step where an epoch has three."""
    rows = np.arange(60)
    short = Fold(rows[:20], rows[20:30], rows[30:])
    return fold_data(table, [short, short])[0]


def test_a_step_without_rows_changes_nothing():
    """A fold that needs fewer steps than another takes no more of them."""
    table = grouped_table()
    config = FoldConfig(epochs=EPOCHS, batch=BATCH, folds=2, grouped=True, validation=0.2)
    program = FoldProgram(table, table5_methods(config, ["synscaw"]), config)
    state, _ = train(program, 0, short_folds(table), program.keys(0))
    np.testing.assert_array_equal(state.step, [EPOCHS, EPOCHS])
    np.testing.assert_array_equal(state.adam[0].count, [EPOCHS, EPOCHS])


def changes_by_epoch(method, **settings):
    """How far a grouped fold with one step of three moves in each of four epochs."""
    table = grouped_table()
    config = FoldConfig(epochs=1, batch=BATCH, folds=2, grouped=True, **settings)
    program = FoldProgram(table, [method(config)], config)
    assert program.steps_per_epoch == 3
    data, keys, state, changes = short_folds(table), program.keys(0), program.init(0), []
    for epoch in range(4):
        before = state.params["dense2"]["kernel"]
        state, _ = program.run(state, data, keys, 0, epoch)
        changes.append(float(jnp.linalg.norm(state.params["dense2"]["kernel"] - before)))
    return changes


@pytest.mark.parametrize(("name", "rate"), [("baseline", 1e-3), ("synscaw", 1e-9)])
def test_rates_of_grouped_folds_decay_by_the_epoch(name, rate):
    """Also where most steps of an epoch are empty; SynScaW moves weights by its own rate alone."""
    first, second, third, fourth = changes_by_epoch(
        lambda config: table5_methods(config, [name])[0],
        learning_rate=rate,
        decay=0.1,
        decay_epochs=2,
    )
    assert second > 0.5 * first > 0
    assert third < 0.3 * second and fourth > 0.5 * third


def test_scaling_once_an_epoch_scales_grouped_folds_in_every_epoch():
    changes = changes_by_epoch(lambda _: methods.synscaw(0.1, every_k="epoch"), learning_rate=1e-9)
    assert min(changes) > 0.5 * max(changes) > 0


def test_two_seeds_of_grouped_folds_compile_once():
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(12), generator.integers(1, 10, 12))[:60].astype(np.int32)
    table = dataclasses.replace(tiny_table(2, rows=len(groups)), groups=groups)
    config = FoldConfig(epochs=1, batch=BATCH, folds=2, grouped=True, validation=0.2)
    program = FoldProgram(table, table5_methods(config, ["baseline"]), config)
    longest = {
        tuple(max(len(fold[part]) for fold in make_folds(table, seed, **program._partition))
              for part in range(2))
        for seed in (0, 1)
    }  # fmt: skip
    assert len(longest) == 2  # else nothing is tested
    for seed in (0, 1):
        train(program, 0, program.data(seed)[0], program.keys(seed), epochs=1)
    assert program._run._cache_size() == 1


def test_the_baseline_is_a_plain_loop():
    """Adam on the weighted cross-entropy of whole batches, written out with optax."""
    table = tiny_table(2)
    config = FoldConfig(epochs=4, batch=60, folds=2, decay_epochs=2, validation=0.0)
    program = FoldProgram(table, table5_methods(config, ["baseline"]), config)
    data, _ = program.data(0)
    state, metrics = train(program, 0, data, program.keys(0), epochs=4)
    fold = make_folds(table, 0, count=2, validation=0.0)[1]
    inputs, labels = data.inputs[1][fold.train], jnp.asarray(table.target)[fold.train]
    weights = len(fold.train) / (2 * np.bincount(table.target[fold.train]))

    def loss(params):
        logits = program.model.apply({"params": params}, inputs)
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        each = jnp.asarray(weights, jnp.float32)[labels]
        return jnp.sum(each * entropy) / jnp.sum(each)

    params = jax.tree.map(lambda leaf: leaf[1], program.init(0).params)
    adam = optax.adam(lambda step: 0.01 * 0.9 ** (step // 2))
    memory = adam.init(params)
    update = jax.jit(lambda p, m: adam.update(jax.grad(loss)(p), m, p))
    for _ in range(4):
        updates, memory = update(params, memory)
        params = optax.apply_updates(params, updates)
    close(jax.tree.map(lambda leaf: leaf[1], state.params), params, 1e-4)
    predicted = program.model.apply({"params": params}, data.inputs[1][fold.test]).argmax(-1)
    accuracy = float(jnp.mean(predicted == table.target[fold.test]))
    np.testing.assert_allclose(metrics.test[-1, 1], accuracy)


def test_every_method_is_a_branch_of_its_own(classifier, data):
    keys = classifier.keys(0)
    ends = [train(classifier, number, data, keys)[0].params for number in range(len(METHODS))]
    kernels = [np.asarray(end["dense1"]["kernel"]) for end in ends]
    for kernel in kernels[1:]:
        assert not np.allclose(kernels[0], kernel)


def test_one_compilation_serves_all_methods_and_seeds(classifier, data):
    for seed, number in ((0, 0), (1, 1), (2, 2)):
        train(classifier, number, data, classifier.keys(seed))
    assert classifier._run._cache_size() == 1
    shapes = [jax.tree.map(jnp.shape, classifier.data(seed)[0]) for seed in range(5)]
    assert all(shape == shapes[0] for shape in shapes)


def test_answers_that_are_no_numbers_are_never_right(classifier, data):
    right = data._replace(targets=jnp.zeros_like(data.targets))  # what argmax makes of nan
    state = classifier.init(0)
    broken = state._replace(params=jax.tree.map(lambda w: w * jnp.nan, state.params))
    _, metrics = classifier.run(broken, right, classifier.keys(0), 0, 0)
    assert not metrics.test.any() and not metrics.validation.any()


def test_synscaws_rate_decays_with_the_learning_rate():
    config = FoldConfig(epochs=4, batch=60, folds=2, learning_rate=1e-9, decay=0.5, decay_epochs=2)
    program = FoldProgram(tiny_table(2), table5_methods(config, ["synscaw"]), config)
    data, keys = program.data(0)[0], program.keys(0)
    changes, state = [], program.init(0)
    one = FoldProgram(program.table, program.methods, dataclasses.replace(config, epochs=1))
    one.steps_per_epoch, one._after = program.steps_per_epoch, program._after
    for epoch in range(4):
        before = state.params["dense2"]["kernel"]
        state, _ = one.run(state, data, keys, 0, epoch)
        changes.append(float(jnp.linalg.norm(state.params["dense2"]["kernel"] - before)))
    assert changes[2] / changes[1] == pytest.approx(0.5, rel=0.1)
    assert changes[1] / changes[0] == pytest.approx(1.0, rel=0.1)


def test_synscals_regression_form_shrinks_towards_the_mean():
    """With squared error the best prediction is (E[y|x] + γ ȳ) / (1 + γ)."""
    generator = np.random.default_rng(0)
    x = generator.integers(2, size=400)
    y = np.where(x, 3.0, -1.0) + generator.normal(size=400)
    mean, rate = y.mean(), 0.5
    level = jnp.zeros(2)
    optimizer = optax.adam(0.1)
    state = optimizer.init(level)

    @jax.jit
    def step(level, state):
        def loss(level):
            predictions = level[jnp.asarray(x)]
            squared = jnp.square(predictions - jnp.asarray(y, jnp.float32))
            return jnp.mean(squared + synscal_regression(predictions, mean, scaling_rate=rate))

        updates, state = optimizer.update(jax.grad(loss)(level), state)
        return optax.apply_updates(level, updates), state

    for _ in range(500):
        level, state = step(level, state)
    expected = [(y[x == value].mean() + rate * mean) / (1 + rate) for value in (0, 1)]
    np.testing.assert_allclose(level, expected, atol=1e-3)


@pytest.mark.parametrize("loss", ["squared", pytest.param("absolute", marks=pytest.mark.slow)])
def test_a_regression_learns_and_synscal_pulls_its_predictions_together(loss):
    config = FoldConfig(epochs=30, batch=BATCH, folds=2, loss=loss)
    program = FoldProgram(tiny_table(), table5_methods(config, ["baseline", "synscal"]), config)
    data, ranges = program.data(0)
    spreads = []
    for number in range(2):
        state, metrics = train(program, number, data, program.keys(0), epochs=30)
        assert metrics.test[-1].max() < 0.5 * metrics.test[0].max()
        first = jax.tree.map(lambda leaf: leaf[0], state.params)
        spreads.append(float(program.model.apply({"params": first}, data.inputs[0]).std()))
    assert spreads[1] < 0.9 * spreads[0]
    assert ranges.min() > 1  # errors come as shares of it


@pytest.mark.parametrize(
    ("method", "classes"),
    [
        (methods.bottleneck(), 2),
        (methods.combined(methods.synscaw(), methods.confidence_penalty()), 0),
        (methods.combined(methods.synscal(), methods.confidence_penalty()), 0),
    ],
)
def test_methods_that_folds_cannot_train_are_refused(method, classes):
    with pytest.raises(ValueError, match=r"leave it\s+out"):
        FoldProgram(tiny_table(classes), [method], FoldConfig(epochs=1, batch=BATCH, folds=FOLDS))


def test_folds_tell_synscaw_what_was_silent():
    """Rows of padding do not count: the second input is 0 in all others."""
    table = tiny_table(2)
    table.scalars[:, 1] = 0
    config = FoldConfig(epochs=1, batch=BATCH, folds=FOLDS)
    program = FoldProgram(table, [methods.synscaw(10.0, skip_silent_inputs=True)], config)
    state = program.init(0)
    after, _ = program.run(state, program.data(0)[0], program.keys(0), 0, 0)
    first, last = (s.params["dense0"]["kernel"] for s in (state, after))
    assert (first[:, 0] != last[:, 0]).any()
    np.testing.assert_array_equal(first[:, 1], last[:, 1])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"epochs": 0}, "epochs=0 is not possible"),
        ({"folds": 1}, "folds=1 is no cross-validation"),
        ({"validation": 1.0}, "validation=1.0 is no share"),
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
        ({"loss": "mse"}, "loss='mse' is unknown: use 'squared' or 'absolute'"),
    ],
)
def test_impossible_settings_are_told(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        FoldConfig(**change)
