import dataclasses
import json
import pathlib
import signal
import subprocess
import sys

import job
import pytest

from synscale_jax.training.loop import train
from synscale_jax.training.runs import Interrupted, RunError
from synscale_jax.training.settings import SynScaWSettings

JOB = pathlib.Path(job.__file__)


def start(folder, harm):
    command = [sys.executable, str(JOB), str(folder), harm]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def metrics(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def checkpoint_steps(folder):
    return sorted(int(p.name) for p in (folder / "checkpoints").iterdir() if p.name.isdigit())


def assert_goes_on(program, folder, straight):
    """The same run again ends as the one that nothing happened to, to the bit."""
    straight_folder, expected = straight
    result = train(program, 0, folder, show_progress=False)
    assert result["status"] == "finished"
    assert result["state_hash"] == expected["state_hash"]
    assert result["test_correct"] == expected["test_correct"]
    assert metrics(folder) == metrics(straight_folder)
    assert not list(folder.rglob("*tmp*")) and not list(folder.rglob("*.partial"))


@pytest.mark.parametrize("harm", ["in_chunk", "in_save"])
def test_killed_run_resumes_to_the_bit(harm, program, straight, tmp_path):
    process = start(tmp_path / "run", harm)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL, stderr
    # An epoch's save is whole when the next one begins; the one under way may be lost.
    assert 12 in checkpoint_steps(tmp_path / "run")
    half = tmp_path / "run" / "checkpoints" / "24.orbax-checkpoint-tmp"
    assert half.exists() or harm != "in_save"
    assert not (tmp_path / "run" / "result.json").exists()
    assert_goes_on(program, tmp_path / "run", straight)


def test_sigterm_saves_in_mid_epoch_and_exits_143(program, straight, tmp_path):
    process = start(tmp_path / "run", "by_sigterm")
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 143, stderr
    assert "saved at step 22 of 36" in stderr and "the same command goes on" in stderr
    assert "Traceback" not in stderr
    assert 22 in checkpoint_steps(tmp_path / "run")  # steps 1-5, 6-10, 11-12, 13-17, 18-22
    assert_goes_on(program, tmp_path / "run", straight)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"]
)
@pytest.mark.parametrize("chunk", [1, 3, 9], ids=["mid-epoch", "epoch's end", "run's end"])
def test_signal_anywhere_resumes_to_the_bit(
    chunk, number, code, straight, program, tmp_path, monkeypatch, capfd
):
    before = signal.getsignal(number)
    monkeypatch.setattr(program, "chunk", program.chunk)  # put back afterwards
    job.before_chunk(program, chunk, lambda: signal.raise_signal(number))
    with pytest.raises(Interrupted) as stopped:
        train(program, 0, tmp_path / "run", show_progress=False)
    assert stopped.value.code == code
    assert "the same command goes on" in capfd.readouterr().err
    assert signal.getsignal(number) is before
    # A run that the signal met in its last chunk is finished, but the program must stop, too.
    assert (tmp_path / "run" / "result.json").exists() == (chunk == 9)
    assert_goes_on(program, tmp_path / "run", straight)


@pytest.mark.parametrize("chunk", [1, 9], ids=["saved", "finished"])
def test_after_a_restart_the_command_without_it_goes_on(
    chunk, program, tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr(program, "chunk", program.chunk)  # put back afterwards
    job.before_chunk(program, chunk, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(Interrupted):
        train(program, 0, tmp_path / "run", restart=True, show_progress=False)
    told = capfd.readouterr().err
    assert "the command without --restart goes on from there" in told
    assert "the same command" not in told


def test_second_signal_acts_at_once_and_no_other_run_enters_the_folder(program, tmp_path):
    process = start(tmp_path / "run", "by_waiting")
    assert process.stdout.readline() == "begun\n", process.communicate()
    with pytest.raises(RunError, match=f"another process is training in {tmp_path}/run: wait"):
        train(program, 0, tmp_path / "run", show_progress=False)
    with pytest.raises(RunError, match="another process"):
        train(program, 0, tmp_path / "run", restart=True, show_progress=False)
    process.send_signal(signal.SIGTERM)
    while "stopping" not in (line := process.stderr.readline()):
        assert line, "ended without a word"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == -signal.SIGTERM


def test_finished_run_is_not_run_again(program, straight, monkeypatch):
    folder, expected = straight
    monkeypatch.setattr(program, "chunk", lambda *_: pytest.fail("trained again"))
    assert train(program, 0, folder, show_progress=False) == expected


def test_result_says_where_it_comes_from(straight):
    folder, result = straight
    assert result == json.loads((folder / "result.json").read_text())
    assert result["seed"] == 0 and result["status"] == "finished"
    assert result["data"]["name"] == "digits" and len(result["data"]["hash"]) == 64
    chosen = {"name": "synscaw", "scaling_rate": 0.01, "every_k": 3}
    left_alone = dataclasses.asdict(SynScaWSettings())
    assert result["method"] == {**left_alone, **chosen}
    assert result["config"]["epochs"] == 3 and result["model"]["features"] == [16]
    assert {"jax", "flax", "optax"} < set(result["versions"])
    assert result["convolution"] and result["device"] and result["steps_run"] == 36
    assert [row["epoch"] for row in result["history"]] == [1, 2, 3]
    assert set(result["history"][0]["mean_gap"]) == {"dense0"}
    assert result["history"][-1] == result["final"]
    best = result["best_on_validation"]["accuracy"]
    assert best["validation_accuracy"] == max(r["validation_accuracy"] for r in result["history"])


def test_without_validation_the_choice_is_called_best_on_test(tmp_path):
    program = job.make_program(epochs=1, validation_examples=0)
    result = train(program, 0, tmp_path / "run", show_progress=False)
    assert "best_on_test" in result and "best_on_validation" not in result
