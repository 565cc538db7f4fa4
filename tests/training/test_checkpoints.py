import logging

import jax
import jax.numpy as jnp
import job
import numpy as np
import pytest

from synscale_jax.training.checkpoints import Checkpointer
from synscale_jax.training.loop import train


def state(step):
    return {"weights": jnp.full(1000, float(step)), "count": jnp.int32(step)}


ABSTRACT = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state(0))


def save(checkpointer, step, metrics):
    checkpointer.save(step, state(step), {"step": step}, metrics)


def metrics(accuracy, loss):
    return {"accuracy": accuracy, "loss": loss}


def damage(folder):
    """Truncate the largest data file below a checkpoint."""
    largest = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])


@pytest.fixture
def four(tmp_path):
    """Four checkpoints saved, with the best accuracy at 2 and the least loss at 3."""
    with Checkpointer(tmp_path / "checkpoints") as checkpointer:
        save(checkpointer, 1, metrics(0.1, 3.0))
        save(checkpointer, 2, metrics(0.9, 2.0))
        save(checkpointer, 3, metrics(0.5, 1.0))
        save(checkpointer, 4, metrics(0.2, 4.0))
    return tmp_path / "checkpoints"


def test_latest_best_and_least_loss_stay_after_reopening(four):
    with Checkpointer(four) as checkpointer:
        assert checkpointer.steps() == [2, 3, 4]
        save(checkpointer, 5, metrics(0.6, 1.5))
        save(checkpointer, 6, None)
        save(checkpointer, 7, metrics(0.3, 2.5))
        save(checkpointer, 8, None)
        checkpointer.wait()
        assert checkpointer.steps() == [2, 3, 8]
        assert checkpointer.best_step() == 2
    with Checkpointer(four) as checkpointer:
        assert checkpointer.steps() == [2, 3, 8]
        assert checkpointer.best_step() == 2
        restored = checkpointer.restore_latest(ABSTRACT)
        assert restored.extra == {"step": 8}
        np.testing.assert_array_equal(restored.state["weights"], state(8)["weights"])


def test_a_new_best_replaces_the_old_one(four):
    with Checkpointer(four) as checkpointer:
        save(checkpointer, 5, metrics(0.95, 0.5))
        checkpointer.wait()
        assert checkpointer.steps() == [5] and checkpointer.best_step() == 5


def test_truncated_newest_falls_back_to_the_one_before(four, caplog):
    damage(four / "4")
    with Checkpointer(four) as checkpointer, caplog.at_level(logging.WARNING):
        assert checkpointer.restore_latest(ABSTRACT).extra == {"step": 3}
        assert "checkpoint 4 of" in caplog.text and "the one before it, 3" in caplog.text
        save(checkpointer, 4, metrics(0.2, 4.0))  # the run comes by the same step again
        checkpointer.wait()
        assert checkpointer.steps() == [2, 3, 4] and checkpointer.best_step() == 2
        assert checkpointer.restore_latest(ABSTRACT).extra == {"step": 4}
    assert list(four.with_name("checkpoints.damaged").iterdir())  # nothing was deleted


def test_without_a_readable_checkpoint_there_is_none(four, caplog):
    for step in (2, 3, 4):
        damage(four / str(step))
    with Checkpointer(four) as checkpointer, caplog.at_level(logging.WARNING):
        assert checkpointer.restore_latest(ABSTRACT) is None
        assert "going on from the beginning" in caplog.text
        assert checkpointer.steps() == []
        save(checkpointer, 1, metrics(0.1, 3.0))
        checkpointer.wait()
        assert checkpointer.steps() == [1]
    assert len(list(four.with_name("checkpoints.damaged").iterdir())) == 3


def test_an_empty_folder_has_no_checkpoint(tmp_path):
    with Checkpointer(tmp_path / "new") as checkpointer:
        assert checkpointer.restore_latest(ABSTRACT) is None
        assert checkpointer.best_step() is None


def test_state_comes_back_with_its_types(four):
    with Checkpointer(four) as checkpointer:
        count = checkpointer.restore(2, ABSTRACT).state["count"]
        assert count.dtype == jnp.int32 and int(count) == 2


@pytest.mark.parametrize("broken", ["newest", "all"])
def test_run_with_damaged_checkpoints_ends_the_same(broken, program, straight, tmp_path, caplog):
    folder, stop = tmp_path / "run", RuntimeError("stop")

    def fail():
        raise stop

    chunk = program.chunk
    try:
        job.before_chunk(program, 8, fail)
        with pytest.raises(RuntimeError, match="stop"):
            train(program, 0, folder, show_progress=False)
    finally:
        program.chunk = chunk
    steps = sorted(int(p.name) for p in (folder / "checkpoints").iterdir())
    assert steps[-1] == 24
    for step in steps if broken == "all" else steps[-1:]:
        damage(folder / "checkpoints" / str(step))
    with caplog.at_level(logging.WARNING):
        result = train(program, 0, folder, show_progress=False)
    assert "cannot be read" in caplog.text
    assert result["state_hash"] == straight[1]["state_hash"]
