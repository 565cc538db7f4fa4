"""Figures 3, 4 and 5, the rate curves and the fixed points: what is drawn is what was computed."""

import dataclasses
import importlib.util
import json
import pathlib

import numpy as np
import pytest

from synscale_jax.analysis.information import delta_information, exact_delta_information, tied_gap
from synscale_jax.training.config import TrainConfig
from synscale_jax.training.runs import RunError
from synscale_jax.training.stored_weights import run_kernels, safetensors_kernels

EXPERIMENTS = pathlib.Path(__file__).parents[2] / "experiments"
TINY = TrainConfig(epochs=2, train_examples=200, test_examples=100, chunk_steps=2)


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXPERIMENTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_figure4_draws_what_the_functions_say(tmp_path):
    module = load("figure4")
    config = module.Figure4Config(points=9, output=tmp_path)
    figure = module.draw(config, tmp_path / "figure4.png")
    free, tied, exact = figure.axes[:3]
    w, gaps = np.linspace(-3, 3, 9), np.linspace(-0.5, 0.5, 9)
    for axes, function in ((free, delta_information), (exact, exact_delta_information)):
        drawn = np.asarray(axes.collections[0].get_array()).reshape(9, 9)
        want = function(*np.meshgrid(w, gaps), scaling_rate=1.0)
        np.testing.assert_allclose(drawn, want, atol=1e-12)
    for line, rate in zip(tied.get_lines(), config.curve_rates, strict=False):
        want = delta_information(w, tied_gap(w), scaling_rate=rate)
        np.testing.assert_allclose(line.get_ydata(), want)
    module.main(config)
    assert {path.suffix for path in tmp_path.iterdir()} == {".png", ".md", ".json"}


def test_fixed_points_figure_and_table(tmp_path):
    module = load("fixed_points")
    config = module.FixedPointsConfig(points=31, weights=(0.5, 2.0), output=tmp_path)
    module.main(config)
    rows = json.loads((tmp_path / "fixed_points.json").read_text())["rows"]
    found = [(row["diverged_at"], row["algebra"]) for row in rows if row["algebra"]]
    assert len(found) == 4
    for integrated, algebra in found:
        assert integrated == pytest.approx(algebra, rel=1e-4)
    cases = module.cases(config)
    paths = {case.title: module.paths(case, config) for case in cases}
    figure = module.draw(paths, config, tmp_path / "again.png")
    for axes, case in zip(figure.axes, cases, strict=True):
        drawn = axes.get_lines()[0].get_ydata()
        np.testing.assert_array_equal(drawn, paths[case.title][0.5].weights)


@pytest.fixture(scope="module")
def plane(tmp_path_factory):
    """Figure 5 on the digits, with two seeds."""
    module = load("figure5")
    module.PROTOCOLS = {"smoke": {"mlp": TINY}}
    config = module.Figure5Config(
        preset="smoke",
        cells=("digits-mlp",),
        seeds=(0, 1),
        examples=100,
        features=4,
        output=tmp_path_factory.mktemp("figure5"),
    )
    module.main(config)
    return module, config


def test_figure5_draws_means_over_seeds(plane, tmp_path):
    module, config = plane
    folder = config.output / "smoke"
    assert (
        "| digits × MLP | with SynScaW | before head | 2 |" in (folder / "figure5.md").read_text()
    )
    results = module.collect(folder, config.cells, list(module.LABELS))
    figure = module.draw(results, config, tmp_path / "figure5.png")
    runs = results["digits-mlp"]["baseline"]
    places = module.PLACES["mlp"]
    for dots, place in zip(figure.axes[0].collections, places, strict=True):
        want = np.mean(
            [
                [
                    [row["bounds"]["test"][place][key] for key in ("rate", "label")]
                    for row in run["history"]
                ]
                for run in runs
            ],
            0,
        )
        np.testing.assert_allclose(dots.get_offsets(), want)
        np.testing.assert_array_equal(dots.get_array(), [1, 2])


def test_figure5_pairs_differences_by_seed(plane):
    module, config = plane
    folder = config.output / "smoke"
    results = module.collect(folder, config.cells, list(module.LABELS))["digits-mlp"]
    rates = {
        kind: [run["measured"]["bounds"]["test"]["head"]["rate"] for run in runs]
        for kind, runs in results.items()
    }
    gap = module.estimate(np.subtract(rates["synscaw"], rates["baseline"]).tolist())
    want = f"before head: rate {gap.mean:+.2f} ({gap.low:+.2f} to {gap.high:+.2f})"
    assert want in (folder / "figure5.md").read_text()


def test_figure5_says_what_is_missing_and_what_runs_were_made_with(plane, tmp_path):
    module, config = plane
    for kind in ("baseline", "synscaw"):
        for path in (config.output / f"smoke/digits-mlp/{kind}").glob("seed*/result.json"):
            result = json.loads(path.read_text())
            if kind == "synscaw":
                result["status"] = "diverged"
            target = tmp_path / path.relative_to(config.output)
            target.parent.mkdir(parents=True)
            target.write_text(json.dumps(result))
    module.main(
        dataclasses.replace(
            config,
            cells=("digits-mlp", "mnist-mlp"),
            features=99,  # of the command that draws, not of the runs
            examples=77,
            output=tmp_path,
            draw=True,
        )
    )
    text = (tmp_path / "smoke/figure5.md").read_text()
    assert "| digits × MLP | with SynScaW | before head | diverged |" in text
    assert "| MNIST × MLP | with SynScaW | before head | not run |" in text
    assert "N = 4." in text and "log2 100" in text


def test_probed_runs_of_a_folder_show_their_own_weights(plane):
    _, config = plane
    trained, initial = run_kernels(config.output / "smoke/digits-mlp/baseline/seed0")
    assert list(trained) == list(initial) == ["dense0", "dense1", "head"]
    assert all(np.any(trained[name] != initial[name]) for name in trained)


def curve(module, gap, seeds=(0, 1, 2)):
    """Made-up results: rates over I(Z;Y), SynScaW's moved by ``gap``."""
    runs = {}
    for kind in module.LABELS:
        for beta, label, rate in ((1e-3, 3.0, 40.0), (1e-1, 2.0, 10.0)):
            runs[module.run_name(kind, beta)] = [
                {
                    "seed": seed,
                    "status": "finished",
                    "measured": {
                        "bounds": {
                            "test": {
                                "head": {
                                    "label": label + 0.01 * seed,
                                    "rate": rate + seed + (gap[beta] if kind == "synscaw" else 0),
                                }
                            }
                        }
                    },
                }
                for seed in seeds
            ]
    return runs


@pytest.mark.parametrize(
    ("gap", "said"),
    [
        ({1e-3: -5.0, 1e-1: -5.0}, "Compression confirmed"),
        ({1e-3: 5.0, 1e-1: -5.0}, "not confirmed"),
        ({1e-3: 0.0, 1e-1: 0.0}, "not confirmed"),
    ],
)
def test_compression_needs_the_whole_curve(gap, said):
    module = load("information_mlp")
    config = module.InformationConfig(strengths=(1e-3, 1e-1))
    assert said in module.verdict(curve(module, gap), config)
    one = dataclasses.replace(config, seeds=(0,))
    assert "Cannot tell" in module.verdict(curve(module, gap, seeds=(0,)), one)


def test_one_point_is_no_whole_curve():
    module = load("information_mlp")
    config = module.InformationConfig(strengths=(1e-3, 1e-1))
    runs = curve(module, {1e-3: -5.0, 1e-1: -5.0})
    costly = module.point(runs[module.run_name("baseline", 1e-1)][0])
    costly["rate"] = 99.0  # more than the point that says more about the label
    assert "Cannot tell" in module.verdict(runs, config)


def test_rate_table_shows_divergence_and_settings_of_the_runs():
    module = load("information_mlp")
    config = module.InformationConfig(strengths=(1e-3, 1e-1), features=7)
    runs = curve(module, {1e-3: 0.0, 1e-1: 0.0}, seeds=(0, 1))
    bounds = {"features": 32, "samples": 12, "mode": "joint"}
    reading = {"scaling_rate": 0.02, "every_k": 3, "restore_norm": True, "scale_output": False}
    for name, run in ((name, run) for name, found in runs.items() for run in found):
        at = module.point(run)
        flags = [f"rate {at['rate']:.2f} exceeds log2 300 = 8.23: no information"]
        at.update(upper=1.0, lower=1.0, label_entropy=3.3, examples=300, flags=flags)
        run["measured"]["bounds"]["train"] = run["measured"]["bounds"]["test"]
        scaled = reading if name.startswith("synscaw") else {}
        run |= {"method": {**scaled, "bounds": bounds}, "final": {"test_accuracy": 0.9}}
        run["config"] = {"epochs": 4}
    runs[module.run_name("synscaw", 1e-1)][1]["status"] = "diverged"
    runs[module.run_name("synscaw", 1e-3)] = []
    text = module.table(runs, config)
    assert "| with SynScaW | 0.1 | 1, 1 diverged |" in text
    assert "| with SynScaW | 0.001 | not run |" in text
    assert "Bits after 4 epochs" in text and "joint, N = 32, 12 samples" in text
    assert "every_k = 3, norms restored, output layer left out; 300 test examples" in text
    assert "- rate, 5 of 5 runs, 10.00 to 41.00: exceeds log2 300 = 8.23: no information" in text
    with pytest.raises(ValueError, match="laptop protocol has no cell mnist-port_mlp"):
        module.InformationConfig(cell="mnist-port_mlp")


def test_figure3_reads_safetensors_and_draws_the_histogram(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    weights = np.random.default_rng(0).normal(size=(100, 200)).astype(np.float32)
    path = tmp_path / "net.safetensors"
    safetensors.save_file(
        {"a.weight": weights, "a.bias": weights[0], "steps": np.ones((2, 2), np.int64)}, path
    )
    kernels = safetensors_kernels(path)
    assert list(kernels) == ["a.weight"]
    np.testing.assert_array_equal(kernels["a.weight"], weights)
    module = load("figure3")
    module.main(module.Figure3Config(files=(path,), output=tmp_path))
    found = json.loads((tmp_path / "figure3.json").read_text())["networks"]
    shown = found["net.safetensors"]["trained"]
    assert max(shown["likelihood"], key=shown["likelihood"].get) == "half_normal"
    widths = np.diff(shown["log_w"]).mean()
    assert np.sum(shown["observed"]) * widths == pytest.approx(1, abs=0.02)
    figure = module.draw(found, tmp_path / "again.png")
    for line, name in zip(figure.axes[0].get_lines(), module.FITS, strict=True):
        np.testing.assert_allclose(line.get_ydata(), shown["fitted"][name])
    assert "VGG19 | not run: weights not reachable" in (tmp_path / "figure3.md").read_text()


def test_what_is_no_network_is_refused(tmp_path):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"\x10\0\0\0\0\0\0\0no json at all..")
    with pytest.raises(RunError, match="no safetensors file"):
        safetensors_kernels(broken)
    with pytest.raises(RunError, match="no run of a cell"):
        run_kernels(tmp_path)
    with pytest.raises(ValueError, match="does not exist"):
        load("figure3").Figure3Config(files=(tmp_path / "nothing",))
