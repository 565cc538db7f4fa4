import json

import jax
import job
import numpy as np
import pytest

from synscale_jax.training import methods
from synscale_jax.training.loop import Measures, config_hash
from synscale_jax.training.runs import RunError, run_folder
from synscale_jax.training.sweep import Job, run_jobs


@pytest.fixture
def jobs(tmp_path):
    return [Job(name, seed, tmp_path / name / f"seed{seed}") for seed in (0, 1) for name in "ab"]


@pytest.fixture
def programs(program):
    made = []

    def make(name):
        def build():
            made.append(name)
            return program

        return build

    return {"a": make("a"), "b": make("b")}, made


def test_all_runs_are_done_once_and_programs_made_once(jobs, programs):
    assert run_jobs(jobs, programs[0]) == []
    first = [(job.folder / "result.json").read_text() for job in jobs]
    assert [json.loads(text)["seed"] for text in first] == [0, 0, 1, 1]
    assert programs[1] == ["a", "b"]
    run_jobs(jobs, programs[0])
    assert [(job.folder / "result.json").read_text() for job in jobs] == first


def test_what_another_process_does_is_left_to_it(jobs, programs):
    with run_folder(jobs[1].folder, {}):
        assert run_jobs(jobs, programs[0]) == [jobs[1]]
    assert not (jobs[1].folder / "result.json").exists()
    assert all((job.folder / "result.json").exists() for job in jobs if job is not jobs[1])


def test_run_with_other_settings_is_refused(jobs, programs):
    run_jobs(jobs[:1], programs[0])
    other = {"a": lambda: job.make_program(method=methods.baseline())}
    with pytest.raises(RunError, match="holds a run with other settings"):
        run_jobs(jobs[:1], other)


def test_result_tells_how_to_check_a_rerun(jobs, programs, program):
    run_jobs(jobs[:1], programs[0])
    result = json.loads((jobs[0].folder / "result.json").read_text())
    key, count = jax.random.key(0), min(len(result["first_losses"]), program.config.chunk_steps)
    _, metrics = program.chunk(program.init(key), key, count)
    assert len(result["first_losses"]) == min(50, program.total_steps)
    np.testing.assert_array_equal(result["first_losses"][:count], metrics.loss[:count])


def test_config_hash_is_shared_by_seeds_alone(jobs, programs):
    run_jobs(jobs[::2], programs[0])
    zero, one = (json.loads((job.folder / "result.json").read_text()) for job in jobs[::2])
    assert zero["config_hash"] == one["config_hash"]
    other = {**zero, "config": {**zero["config"], "epochs": 99}}
    assert config_hash(other) != zero["config_hash"] == config_hash(zero)


def test_measures_are_kept_and_do_not_change_the_run(jobs, programs, straight):
    measures = Measures(
        each_epoch=lambda program, state: {"step_seen": int(state.step)},
        at_end=lambda program, first, last: {"steps": [int(first.step), int(last.step)]},
    )
    run_jobs(jobs[:1], programs[0], measures=measures)
    result = json.loads((jobs[0].folder / "result.json").read_text())
    assert [row["step_seen"] for row in result["history"]] == [
        row["step"] for row in result["history"]
    ]
    assert result["measured"] == {"steps": [0, result["steps_planned"]]}
    assert result["state_hash"] == straight[1]["state_hash"]
