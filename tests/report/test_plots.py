import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from synscale_jax.report import plots
from synscale_jax.report.plots import COLORS, learning_curves, save

LABELS = {"baseline": "baseline", "synscaw": "SynScaW", "synscal": "SynScaL"}


def run(epochs, shift, status="finished"):
    history = [
        {
            "train_loss": 2 / (i + 1) + shift,
            "train_accuracy": 1 - 1 / (i + 2) - shift / 4,
            "test_loss": 2 / (i + 1) + 2 * shift,
            "test_accuracy": 0.9 - 1 / (i + 2) - shift / 4,
        }
        for i in range(epochs)
    ]
    return {"status": status, "history": history}


def share(path, color):
    """Share of pixels near a colour."""
    pixels = np.asarray(Image.open(path).convert("RGB"), float) / 255
    return (np.abs(pixels - to_rgb(color)).max(-1) < 0.02).mean()


@pytest.fixture
def texts(monkeypatch):
    """Every text of the figures that are drawn."""
    from matplotlib.figure import Figure

    found, save = [], Figure.savefig

    def saving(figure, *args, **kwargs):
        from matplotlib.text import Text

        save(figure, *args, **kwargs)
        found.extend(text.get_text() for text in figure.findobj(Text))

    monkeypatch.setattr(Figure, "savefig", saving)
    return found


def test_every_method_is_drawn_in_its_colour_with_its_label(tmp_path, texts):
    results = {name: [run(5, i / 4), run(5, i / 4 + 0.1)] for i, name in enumerate(LABELS)}
    learning_curves(results, LABELS, "a title", tmp_path / "figure.png")
    assert Image.open(tmp_path / "figure.png").size == (1350, 930)
    assert all(share(tmp_path / "figure.png", COLORS[name]) > 1e-3 for name in LABELS)
    assert {"a title", *LABELS.values(), "epoch"} < set(texts)
    assert {"training cross-entropy", "test accuracy (%)"} < set(texts)
    assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]


def test_bands_have_the_colour_of_their_line(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: drawn.append(figure))
    monkeypatch.setattr("os.replace", lambda *paths: None)
    # One seed has no band, so that bands left to themselves would take the wrong turn.
    results = {"text": [run(5, 0)], "bounded": [run(5, 0.2), run(5, 0.3)]}
    learning_curves(results, {name: name for name in results}, "a title", tmp_path / "figure.png")
    axes = drawn[0].axes[0]
    (band,) = axes.collections
    assert to_rgb(band.get_facecolor()[0][:3]) == to_rgb(axes.get_lines()[1].get_color())
    assert len(set(COLORS.values())) == len(COLORS)


def test_diverged_runs_are_counted_in_the_legend(tmp_path, texts):
    results = {
        "baseline": [run(5, 0)],
        "synscaw": [run(5, 0.2), run(2, 0.3, "diverged")],
        "synscal": [run(0, 0, "diverged")],
    }
    learning_curves(results, LABELS, "a title", tmp_path / "figure.png")
    assert {"baseline", "SynScaW (1 of 2 diverged)", "SynScaL (1 of 1 diverged)"} < set(texts)
    assert share(tmp_path / "figure.png", COLORS["synscaw"]) > 1e-3


def test_two_processes_that_draw_at_once_do_not_meet(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    path, savefig, drawn = tmp_path / "figure.png", Figure.savefig, []

    def saving(figure, scratch, **settings):
        drawn.append(scratch)
        savefig(figure, scratch, **settings)
        if len(drawn) == 1:
            save(Figure(), path)  # the other process, to its end

    monkeypatch.setattr(Figure, "savefig", saving)
    save(Figure(), path)
    assert len(set(drawn)) == 2
    assert list(tmp_path.iterdir()) == [path] and Image.open(path).size


def test_a_figure_that_cannot_be_drawn_leaves_nothing(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    def full(figure, scratch, **settings):
        scratch.touch()
        raise OSError("No space left on device")

    monkeypatch.setattr(Figure, "savefig", full)
    with pytest.raises(OSError, match="No space"):
        save(Figure(), tmp_path / "figure.png")
    assert not list(tmp_path.iterdir())


def test_a_single_epoch_is_visible(tmp_path):
    learning_curves({"synscaw": [run(1, 0)]}, LABELS, "one", tmp_path / "figure.png")
    assert share(tmp_path / "figure.png", COLORS["synscaw"]) > 2e-4


def test_one_scattered_line_does_not_flatten_the_others(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(plots, "save", lambda figure, path: drawn.append(figure))
    rows = [plots.Dot("a", 1.0, 0.5, 1.5), plots.Dot("b", 2.0, -180.0, 5.0, published=-1.0)]
    plots.dots({"SynScaW": rows}, "points", "title", tmp_path / "x.png")
    (axes,) = drawn[0].axes
    left, right = axes.get_xlim()
    assert -8 < left < -6 and 5 < right < 7
    arrows = [line for line in axes.lines if line.get_marker() in "<>"]
    assert [(line.get_marker(), *line.get_xdata()) for line in arrows] == [("<", -6.0)]
