"""Readings, figure 6 and the search, at their smallest, on the digits that are always there."""

import dataclasses

import pytest
from test_paper_tables import load

from synscale_jax.data import load_images
from synscale_jax.training.command_line import resolve


def test_readings_are_trained_and_drawn(tmp_path, capsys):
    readings = load("readings")
    config = readings.ReadingsConfig(
        preset="smoke",
        cell="digits-mlp",
        readings=("baseline", "text-0.1", "synscal-mean_logit"),
        seeds=(0,),
        output=tmp_path,
    )
    readings.main(config)
    text = (tmp_path / "smoke" / "readings_digits-mlp.md").read_text()
    assert "| baseline | 1 |" in text and "| text-0.1 | 1 |" in text and "largest weight" in text
    readings.main(dataclasses.replace(config, draw=True))
    assert (tmp_path / "smoke" / "readings_digits-mlp.md").read_text() == text
    more = (*config.readings, "sampled", "bounded")
    readings.main(dataclasses.replace(config, readings=more, draw=True))
    again = (tmp_path / "smoke" / "readings_digits-mlp.md").read_text()
    assert "Not run" not in text and "Not run: sampled, bounded." in again


def test_readings_that_diverged_at_once_or_lost_their_gaps_are_shown():
    readings = load("readings")
    row = {"largest_weight": 4.0, "mean_gap": {"dense0": None}, "seconds": 1.0, "step": 10}
    lost = {"status": "diverged", "seed": 0, "history": []}
    late = {**lost, "seed": 1, "history": [row, row | {"step": 20}], "final": row}
    text = readings.table({"text": [lost, late]})
    assert "0 (2 of 2 diverged)" in text and "2 of 2, in epoch 1, 3" in text
    with pytest.raises(ValueError, match="laptop protocol has no cell mnist-port_mlp"):
        readings.ReadingsConfig(cell="mnist-port_mlp")


def test_every_reading_has_a_name_of_its_own_and_unlike_settings():
    readings = load("readings")
    made = [readings.named(name) for name in readings.READINGS]
    assert [method.name for method in made] == list(readings.READINGS)
    assert len({str(sorted(method.settings.items(), key=str)) for method in made}) == len(made)
    assert len(made) - 1 <= 24
    with pytest.raises(ValueError, match="there is no reading 'txt'"):
        readings.ReadingsConfig(readings=("txt",))


def test_figure6_draws_both_figures_and_says_where_the_least_error_is(tmp_path, monkeypatch):
    figure6 = load("figure6")
    monkeypatch.setattr(figure6, "CELL", "digits-mlp")
    config = figure6.Figure6Config(
        preset="smoke",
        synscaw_rates=(0.01, 0.1),
        synscal_rates=(1.0,),
        penalties=(0.1,),
        shown=(0.1, 1.0),
        seeds=(0,),
        output=tmp_path,
    )
    figure6.main(config)
    folder = tmp_path / "smoke"
    assert (folder / "figure6.png").stat().st_size > 20_000
    assert (folder / "strength.png").stat().st_size > 5_000
    text = (folder / "figure6.md").read_text()
    assert "at γ = 1 (paper: 0.74)" in text and "(paper: 0.085)" in text
    assert "of 2 rates out of 2, seeds there: 1." in text
    assert "SynScaW: every_k = 1, norms restored, output layer left out. " in text
    more = dataclasses.replace(config, synscaw_rates=(0.01, 0.1, 1.0), shown=(1.0, 1.0), draw=True)
    figure6.main(more)
    assert "of 2 rates out of 3" in (folder / "figure6.md").read_text()
    with pytest.raises(ValueError, match="is none of the rates"):
        dataclasses.replace(config, shown=(0.5, 1.0))


def test_search_gives_every_method_the_same_trials(tmp_path, monkeypatch):
    search = load("hyperparameters")
    monkeypatch.setattr(search, "load_images", lambda name: load_images("digits"))
    monkeypatch.setattr(search, "TRAINED", 300)
    config = search.SearchConfig(
        preset="smoke", methods=("baseline", "synscal"), trials=2, epochs=1, output=tmp_path
    )
    rates = {
        method: [search.trial(config, method, n) for n in range(2)] for method in config.methods
    }
    assert [rate for rate, _ in rates["baseline"]] == [rate for rate, _ in rates["synscal"]]
    assert all(0.03 <= strength <= 10 for _, strength in rates["synscal"])
    program = search.program(config, load_images("digits"), "synscal", 0, "synscal-0")
    assert len(program.splits.train.labels) == 300
    assert program.splits.validation is not None


def test_search_begins_anew_where_a_refusal_recommends_it(tmp_path, monkeypatch):
    search, heard = load("hyperparameters"), []
    monkeypatch.setattr(search, "load_images", lambda name: None)
    monkeypatch.setattr(search, "run_jobs", lambda *_, restart: heard.append(restart))
    presets = {"smoke": search.SearchConfig(preset="smoke")}
    for arguments in ([], ["--restart"]):
        config = resolve(search.SearchConfig, presets, ["--preset", "smoke", *arguments])
        search.run(config, tmp_path)
    assert heard == [False, True]


def test_search_with_another_seed_has_a_table_of_its_own(tmp_path, monkeypatch):
    search = load("hyperparameters")
    monkeypatch.setattr(search, "load_images", lambda name: load_images("digits"))
    monkeypatch.setattr(search, "TRAINED", 300)
    config = search.SearchConfig(
        preset="smoke", methods=("baseline",), trials=1, epochs=1, seed=3, output=tmp_path
    )
    search.main(config)
    more = dataclasses.replace(config, methods=("baseline", "synscal"), epochs=9, draw=True)
    search.main(more)
    text = (tmp_path / "smoke/search3/hyperparameters.md").read_text()
    assert "| baseline | 1 of 1 |" in text and "Not run: synscal." in text
    assert ", 1 epochs," in text and "commit" in text and "jax " in text


@pytest.mark.parametrize("seeds", [(), (0, 0), (0, -1)])
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("readings", "ReadingsConfig"),
        ("figure6", "Figure6Config"),
        ("use_it_or_lose_it", "Config"),
        ("table5_sequences", "SequencesConfig"),
    ],
)
def test_seeds_that_no_table_would_show_are_refused(name, kind, seeds):
    with pytest.raises(ValueError, match=r"name each one once|has a negative seed"):
        getattr(load(name), kind)(seeds=seeds)
