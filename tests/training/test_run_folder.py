import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys
import types

import job
import pytest
from flax import linen as nn

from synscale_jax.models import MLP
from synscale_jax.training import loop, methods
from synscale_jax.training.checkpoints import Checkpointer
from synscale_jax.training.loop import train
from synscale_jax.training.runs import RunError, run_folder


def one_sentence(error):
    text = str(error.value)
    assert "\n" not in text and text.endswith(".")
    return text


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"learning_rate": 0.1}, "config.learning_rate was 0.0005 and is now 0.1"),
        ({"epochs": 4}, "config.epochs was 3 and is now 4"),
        ({"method": methods.synscaw(0.02, every_k=3)}, "method.scaling_rate was 0.01 and is now"),
        ({"method": methods.baseline()}, "method.name was synscaw and is now baseline"),
    ],
)
def test_other_settings_are_refused_by_name(other, told, straight):
    with pytest.raises(RunError) as refused:
        train(job.make_program(**other), 0, straight[0], show_progress=False)
    assert told in one_sentence(refused) and "--restart" in str(refused.value)


def test_another_seed_is_refused(program, straight):
    with pytest.raises(RunError, match="seed was 0 and is now 1"):
        train(program, 1, straight[0], show_progress=False)


def test_model_in_another_dtype_is_another_run(program, straight):
    half = job.make_program(model=dataclasses.replace(program.model, dtype="bfloat16"))
    with pytest.raises(RunError, match=r"model.dtype was float32 and is now bfloat16"):
        train(half, 0, straight[0], show_progress=False)


def test_restart_trains_again_and_keeps_the_old_runs(program, straight, tmp_path, monkeypatch):
    first = train(program, 0, tmp_path / "run", show_progress=False)
    for kept in (1, 2):  # within one second, too
        calls = []
        with monkeypatch.context() as patch:
            patch.setattr(program, "chunk", program.chunk)
            calls = job.before_chunk(program, 0, lambda: None)
            again = train(program, 0, tmp_path / "run", restart=True, show_progress=False)
        assert sum(calls) == program.total_steps
        assert again["state_hash"] == first["state_hash"]
        old = list(tmp_path.glob("run.old-*"))
        assert len(old) == kept and all((path / "result.json").exists() for path in old)
        assert all((path / "checkpoints").is_dir() for path in old)


def test_restart_begins_a_run_with_other_settings(program, straight, tmp_path):
    job_folder = tmp_path / "run"
    train(program, 0, job_folder, show_progress=False)
    result = train(program, 1, job_folder, restart=True, show_progress=False)
    assert result["seed"] == 1 and result["state_hash"] != straight[1]["state_hash"]


def test_processes_that_share_a_restart_do_a_run_once(tmp_path):
    """What the other one began since this one started is left; what was there before is not."""
    other = (
        "import pathlib, sys\n"
        "from synscale_jax.training.runs import run_folder\n"
        "with run_folder(pathlib.Path(sys.argv[1]), {'seed': 0}, restart=True) as folder:\n"
        "    (folder / 'result.json').write_text('{}')"
    )
    subprocess.run([sys.executable, "-c", other, tmp_path / "run"], check=True)
    with run_folder(tmp_path / "run", {"seed": 0}, restart=True) as folder:
        assert (folder / "result.json").exists() and not list(tmp_path.glob("run.old-*"))
    os.utime(folder / "config.json", (0, 0))
    with run_folder(folder, {"seed": 0}, restart=True) as folder:
        assert not (folder / "result.json").exists() and list(tmp_path.glob("run.old-*"))


def test_damaged_identity_is_refused(program, tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(RunError, match=r"config.json is damaged") as refused:
        train(program, 0, tmp_path, show_progress=False)
    one_sentence(refused)


@pytest.mark.parametrize("content", ["", '{"status": "fin', "null"])
def test_damaged_result_is_kept_aside_and_made_again_from_the_checkpoint(
    content, program, straight, tmp_path, monkeypatch, capfd
):
    folder = shutil.copytree(straight[0], tmp_path / "run")
    (folder / "result.json").write_text(content)
    monkeypatch.setattr(program, "chunk", lambda *_: pytest.fail("trained again"))
    result = train(program, 0, folder, show_progress=False)
    assert result["state_hash"] == straight[1]["state_hash"]
    assert result["history"] == straight[1]["history"]
    assert (folder / "result.json.damaged").read_text() == content
    assert "result.json is damaged and kept as" in capfd.readouterr().err


def test_copied_result_of_other_settings_is_refused(program, straight, tmp_path):
    """Also where only the result was copied, without the run's config.json."""
    (tmp_path / "result.json").write_text((straight[0] / "result.json").read_text())
    with pytest.raises(RunError, match="seed was 0 and is now 1") as refused:
        train(program, 1, tmp_path, show_progress=False)
    one_sentence(refused)
    assert train(program, 0, tmp_path, show_progress=False) == straight[1]


@pytest.mark.parametrize("where", ["file", "file/below"])
def test_file_in_the_way_is_refused(where, program, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="choose another folder with --output") as refused:
        train(program, 0, tmp_path / where, show_progress=False)
    one_sentence(refused)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder_is_refused(program, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(RunError, match="Permission denied") as refused:
        train(program, 0, tmp_path / "run", show_progress=False)
    one_sentence(refused)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 6 MB, and a function that fills it up to so many bytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")

    def fill(leave):
        free = os.statvfs(folder)
        (folder / "filler").write_bytes(b"x" * (free.f_bavail * free.f_frsize - leave))

    yield folder, fill
    subprocess.run(["umount", "-l", str(folder)], check=True)


def whole_files_only(run: pathlib.Path):
    assert not list(run.glob("*.partial"))
    assert not (run / "result.json").exists()


@pytest.mark.parametrize("leave", [0, 100_000])
def test_full_disk_is_one_sentence_and_costs_no_work(
    leave, small_disk, program, straight, monkeypatch, capfd
):
    folder, fill = small_disk
    with monkeypatch.context() as patch:
        patch.setattr(program, "chunk", program.chunk)
        job.before_chunk(program, 5, lambda: fill(leave))
        with pytest.raises(RunError, match="the disk is full") as refused:
            train(program, 0, folder / "run", show_progress=False)
    assert "make room and give the same command again" in one_sentence(refused)
    assert "Traceback" not in capfd.readouterr().err
    whole_files_only(folder / "run")
    (folder / "filler").unlink()
    result = train(program, 0, folder / "run", show_progress=False)
    assert result["state_hash"] == straight[1]["state_hash"]


def test_disk_that_fills_during_a_save_is_told(small_disk, program, straight, monkeypatch):
    """The check before the save sees room; orbax's failure in the background must surface."""
    folder, fill = small_disk
    save = Checkpointer.save

    def filling(self, step, *args):
        if step == 36:  # the last one, after which only wait() can tell
            patch.setattr("shutil.disk_usage", lambda _: types.SimpleNamespace(free=1 << 40))
            self.wait()  # or the removal of old checkpoints would make room again
            fill(8192)
        save(self, step, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpointer, "save", filling)
        with pytest.raises(RunError, match="the disk is full") as refused:
            train(program, 0, folder / "run", show_progress=False)
    one_sentence(refused)
    whole_files_only(folder / "run")
    (folder / "filler").unlink()
    result = train(program, 0, folder / "run", show_progress=False)
    assert result["state_hash"] == straight[1]["state_hash"]


def test_disk_full_at_the_result_is_told(small_disk, program, straight, monkeypatch):
    folder, fill = small_disk
    provenance = loop.provenance
    with monkeypatch.context() as patch:
        patch.setattr(loop, "provenance", lambda: fill(0) or provenance())
        with pytest.raises(RunError, match="the disk is full"):
            train(program, 0, folder / "run", show_progress=False)
    whole_files_only(folder / "run")
    (folder / "filler").unlink()
    result = train(program, 0, folder / "run", show_progress=False)
    assert result["state_hash"] == straight[1]["state_hash"]


def test_disk_full_at_the_start_is_told(small_disk, program):
    folder, fill = small_disk
    (folder / "run").mkdir()
    fill(0)
    with pytest.raises(RunError, match="No space left") as refused:
        train(program, 0, folder / "run", show_progress=False)
    one_sentence(refused)


def test_models_that_differ_in_a_function_are_not_taken_for_one_run(straight):
    """An initializer has no words for the identity, by which a finished run is known."""
    other = job.make_program(model=MLP((16,), 10, kernel_init=nn.initializers.zeros))
    with pytest.raises(ValueError, match=r"MLP has kernel_init=.* cannot be written") as refused:
        train(other, 0, straight[0], show_progress=False)
    one_sentence(refused)
