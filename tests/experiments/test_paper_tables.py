"""The experiments on the paper's tables, at their smallest, on the digits that are always there."""

import base64
import dataclasses
import importlib.util
import json
import pathlib

import numpy as np
import pytest

from synscale_jax.report.cell_tables import ERROR, divergence
from synscale_jax.training import tables_main
from synscale_jax.training.cells import cells_named
from synscale_jax.training.runs import RunError, run_folder
from synscale_jax.training.table_settings import table_presets

EXPERIMENTS = pathlib.Path(__file__).parents[2] / "experiments"


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXPERIMENTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return dataclasses.replace(
        table_presets()["smoke"],
        cells=("digits-mlp",),
        methods=("baseline", "synscaw_confidence_penalty", "bottleneck"),
        output=tmp_path_factory.mktemp("tables"),
    )


@pytest.fixture(scope="module")
def drawn(config):
    """The folder after all runs and all three tables."""
    load("table1").main(config)
    for name in ("table2", "table3"):
        load(name).main(dataclasses.replace(config, draw=True))
    return config.folder


def test_every_file_of_every_table_is_there(drawn):
    for name in ("table1", "table2", "table3"):
        for kind in ("md", "csv", "tex", "png"):
            assert (drawn / f"{name}.{kind}").stat().st_size > 100


def test_tables_show_methods_seeds_and_what_is_ours(drawn):
    text = (drawn / "table1.md").read_text()
    for label in ("baseline", "SynScaW + confidence penalty", "information bottleneck"):
        assert f"| {label} | 2 |" in text
    assert "not comparable with ours" in text
    assert "ours: information bottleneck: strength = 0.001, features = 256" in text
    assert "Primary family" not in text  # which is the laptop protocol's
    assert "(n 2)" in text and "digits × MLP" in text
    second = (drawn / "table2.md").read_text()
    assert "best fit" in second and "before training" in second


def test_result_has_all_that_a_reader_needs(drawn):
    result = json.loads((drawn / "digits-mlp/bottleneck/seed0/result.json").read_text())
    assert result["steps_run"] == result["steps_planned"] == 20
    assert {"config_hash", "commit", "versions", "state_hash"} <= set(result)
    assert result["data"]["hash"] and len(result["first_losses"]) == 20
    final = result["measured"]["final"]
    assert 0 < final["weights"]["pooled"]["divergence"] < 0.7
    assert set(final["activations"]) == {"dense1", "head/encoder", "head/decoder", "pooled"}


def test_drawing_again_changes_nothing(config, drawn):
    before = {path: path.read_bytes() for path in drawn.glob("table1.*")}
    load("table1").main(config)  # every run is there: nothing is trained
    assert {path: path.read_bytes() for path in drawn.glob("table1.*")} == before


def test_missing_methods_are_marked(config, drawn):
    load("table1").main(dataclasses.replace(config, methods=("baseline", "synscal"), draw=True))
    assert "| SynScaL | not run |" in (drawn / "table1.md").read_text()
    load("table1").main(config)


def test_cells_without_a_run_have_one_line(config, drawn, monkeypatch):
    shown = {}
    monkeypatch.setattr(tables_main, "dots", lambda panels, *rest: shown.update(panels))
    cells = ("digits-mlp", "mnist-mlp", "cifar10-resnet32")
    load("table1").main(dataclasses.replace(config, cells=cells, draw=True))
    text = (drawn / "table1.md").read_text()
    assert "not run; paper 1.21" in text and "## MNIST × MLP" not in text
    assert "Needs time: MNIST × MLP, CIFAR-10 × ResNet32." in text
    assert list(shown) == ["digits × MLP"]
    monkeypatch.undo()
    load("table1").main(config)


@pytest.mark.parametrize(("preset", "needs"), [("laptop", "time"), ("paper", "an accelerator")])
def test_only_a_resnet_of_the_papers_length_needs_an_accelerator(preset, needs):
    config = table_presets()[preset]
    (cell,) = cells_named(["cifar10-resnet32"])
    assert tables_main._needs(config, cell) == needs


def test_cells_of_earlier_commands_stay_in_the_table(config, drawn):
    load("table1").main(dataclasses.replace(config, cells=("mnist-mlp",), draw=True))
    text = (drawn / "table1.md").read_text()
    assert "| method | MNIST × MLP | digits × MLP |" in text and "## digits × MLP" in text
    load("table1").main(config)


def test_runs_of_another_process_are_left_to_it(config, drawn, capsys):
    more = dataclasses.replace(config, methods=("baseline",), seeds=(0, 1, 2))
    folder = drawn / "digits-mlp" / "baseline" / "seed2"
    with run_folder(folder, {}):
        load("table1").main(more)
    assert "1 runs are being done by another process" in capsys.readouterr().err
    assert not (folder / "result.json").exists()


def test_caption_says_what_the_runs_were_made_with(config, drawn):
    # Of the command that draws, not of the runs.
    other = dataclasses.replace(config.bottleneck, strength=0.5)
    load("table1").main(dataclasses.replace(config, bottleneck=other, draw=True))
    assert "strength = 0.001" in (drawn / "table1.md").read_text()


def test_published_divergences_are_drawn_by_their_side_alone(config, drawn, tmp_path, monkeypatch):
    copied(drawn, tmp_path / "smoke", lambda result: None)
    shown = {}
    monkeypatch.setattr(tables_main, "dots", lambda panels, *rest: shown.update(panels))
    published = {"baseline": 0.2, "bottleneck": 0.1, "synscaw_confidence_penalty": 0.3}
    for quantity in (divergence("weights"), ERROR):
        tables_main.draw_table(
            dataclasses.replace(config, output=tmp_path, draw=True),
            "table",
            "a table",
            quantity,
            {"digits-mlp": published},
        )
        first, second = shown["digits × MLP"]
        if quantity is ERROR:  # on one scale with ours
            assert (first.published, first.direction) == (pytest.approx(0.1), 0)
        else:
            assert first.published is second.published is None
            assert (first.direction, second.direction) == (1, -1)


def copied(drawn, folder, change):
    """The runs in another folder, each result changed."""
    for path in drawn.glob("digits-mlp/*/seed*/result.json"):
        result = json.loads(path.read_text())
        change(result)
        target = folder / path.relative_to(drawn)
        target.parent.mkdir(parents=True)
        target.write_text(json.dumps(result))


def test_runs_of_another_protocol_are_refused(config, drawn, tmp_path):
    copied(drawn, tmp_path / "smoke", lambda result: result["config"].update(epochs=200))
    with pytest.raises(RunError, match="trained with epochs = 200, the smoke protocol has 2"):
        load("table1").main(dataclasses.replace(config, output=tmp_path, draw=True))


def test_all_versions_and_commands_are_named(config, drawn, tmp_path):
    def change(result):
        result["commit"] = f"commit{result['seed']}"

    copied(drawn, tmp_path / "smoke", change)
    load("table1").main(dataclasses.replace(config, output=tmp_path, draw=True))
    assert "commit commit0 or commit1." in (tmp_path / "smoke/table1.md").read_text()


def test_primary_family_is_shown_whole_though_a_part_was_run(drawn, tmp_path):
    planned = dataclasses.replace(
        table_presets()["laptop"], cells=("mnist-mlp",), output=tmp_path, draw=True
    )
    settings = dataclasses.asdict(planned.settings(cells_named(["mnist-mlp"])[0]))
    answers = base64.b64encode(np.random.default_rng(0).bytes(10_000 // 8)).decode()

    def change(result):
        result |= {"config": settings, "test_correct": answers, "data": {"name": "mnist"}}

    copied(drawn, tmp_path / "digits", change)
    (tmp_path / "laptop").mkdir()
    (tmp_path / "digits/digits-mlp").rename(tmp_path / "laptop/mnist-mlp")
    load("table1").main(planned)
    text = (tmp_path / "laptop/table1.md").read_text()
    assert "**Not complete" in text and "| mnist-mlp | SynScaW | 0 of 10 |" in text
    assert text.count("| cifar10-mlp |") == text.count("| cifar100-mlp |") == 2


def test_folder_without_results_is_told(config, tmp_path):
    with pytest.raises(RunError, match="there is no result below"):
        load("table1").main(dataclasses.replace(config, output=tmp_path, draw=True))


def test_curves_are_drawn_from_a_cell(drawn, capsys):
    figure7 = load("figure7")
    figure7.main(figure7.Figure7Config(drawn / "digits-mlp"))
    assert (drawn / "digits-mlp/figure7.png").stat().st_size > 5000
    assert "bottleneck (2)" in capsys.readouterr().out
    with pytest.raises(RunError, match="no result below"):
        figure7.main(figure7.Figure7Config(drawn / "nothing"))
