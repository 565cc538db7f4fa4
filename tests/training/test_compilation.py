import contextlib
import logging

import jax
import numpy as np
import pytest

from synscale_jax.training.devices import replicated
from synscale_jax.training.loop import train
from synscale_jax.training.methods import synscaw


@contextlib.contextmanager
def compilations():
    """Names of what is compiled within the block."""
    names = []

    class Handler(logging.Handler):
        def emit(self, record):
            if record.getMessage().startswith("Finished XLA compilation"):
                names.append(record.getMessage())

    handler, logger = Handler(), logging.getLogger("jax._src.dispatch")
    with jax.log_compiles():
        logger.addHandler(handler)
        try:
            yield names
        finally:
            logger.removeHandler(handler)


def test_compilations_are_noticed():
    with compilations() as names:
        jax.jit(lambda x: x * 3)(np.ones(7))
    assert names


def test_nothing_is_compiled_after_a_first_run(program, tmp_path):
    """Neither for the shorter last chunk of an epoch, nor for another seed, nor on resuming."""
    # Here, not in a fixture: tests of other files clear JAX's caches.
    train(program, 0, tmp_path / "first", show_progress=False)
    with compilations() as names:
        train(program, 1, tmp_path / "run", show_progress=False)
        (tmp_path / "run" / "result.json").unlink()
        train(program, 1, tmp_path / "run", show_progress=False)
    assert not [name for name in names if "jit(_" in name]  # only the restored arrays' copies


def test_second_chunk_compiles_nothing(program, straight):
    key = jax.device_put(jax.random.key(0), replicated(program.mesh))
    state, _ = program.chunk(program.init(key), key, 5)
    with compilations() as names:
        for steps in (5, 2, 5):
            state, _ = program.chunk(state, key, steps)
    assert not names and int(state.step) == 17


def test_chunk_moves_nothing_between_host_and_device(program, straight):
    key = jax.device_put(jax.random.key(0), replicated(program.mesh))
    state, _ = program.chunk(program.init(key), key, 5)
    with jax.transfer_guard("disallow"):
        state, metrics = program.chunk(state, key, 5)
        jax.block_until_ready(metrics)
        program.evaluate(state, program.splits.test)


def test_steps_beyond_the_asked_for_are_not_run(program, straight):
    key = jax.device_put(jax.random.key(0), replicated(program.mesh))
    one = program.init(key)
    for _ in range(2):
        one, _ = program.chunk(one, key, 1)
    two, metrics = program.chunk(program.init(key), key, 2)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (metrics.loss[2:] == 0).all() and (metrics.loss[:2] > 0).all()


def test_seeds_differ_and_epochs_are_shuffled_anew(program):
    orders = {
        tuple(np.asarray(program._order(program.init(key)._replace(step=step), key, split))[:20])
        for split in [program.splits.train]
        for key in (jax.random.key(0), jax.random.key(1))
        for step in (0, 11, 12)
    }
    assert len(orders) == 4  # two seeds, two epochs


@pytest.mark.parametrize("every_k", ["epoch", 12])
def test_synscaw_every_epoch_acts_after_its_last_step(every_k, program):
    transform = synscaw(0.01, every_k=every_k).after_optimizer(program.layers, 12)
    params = program.init(jax.random.key(0)).params
    state = transform.init(params)
    zeros = jax.tree.map(np.zeros_like, params)
    activity = {
        layer.name: np.ones(16 if layer.name == "dense0" else 10) for layer in program.layers
    }
    acted = []
    update = jax.jit(lambda s: transform.update(zeros, s, params, activity=activity))
    for _ in range(24):
        updates, state = update(state)
        acted.append(bool(np.any(updates["dense0"]["kernel"])))
    assert [i + 1 for i, act in enumerate(acted) if act] == [12, 24]
