"""Figure 5 of the paper: the information plane of layers during training.

Bottlenecks read what enters two layers of the MLP on MNIST (100 epochs) and three places of
ResNet32 on CIFAR-100 (10 epochs): the second stage, the third and the head. They are probes behind
a stop-gradient, so the network trains as without them; --mode joint is the paper's way. The paper
names no data set and trained 2000 epochs, 50 times; data set and length are ours. It reports less
I(Z;X) at equal I(Z;Y) with scaling, and values of I(Z;Y) up to 38.38, where log2 100 is 6.64.

    python experiments/figure5.py                      # 2 networks, 3 seeds, 2 methods: 12 runs
    python experiments/figure5.py --cells mnist-mlp    # the MLP alone
    python experiments/figure5.py --draw               # only the figure of what is there

Start it twice to use two cores; give the same command again to go on after an interruption.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from synscale_jax.report import tables
from synscale_jax.report.collect import Results, collect, finished
from synscale_jax.report.plots import save
from synscale_jax.report.statistics import estimate, spread
from synscale_jax.training import methods
from synscale_jax.training.bounds import bounds_measures, with_bounds
from synscale_jax.training.cells import Cell, cells_named
from synscale_jax.training.command_line import check_numbers, check_seeds, run_experiment
from synscale_jax.training.config import TrainConfig
from synscale_jax.training.methods import Method
from synscale_jax.training.provenance import write_text
from synscale_jax.training.runs import RunError
from synscale_jax.training.sweep import run_cells
from synscale_jax.training.table_settings import PROTOCOLS

PLACES = {
    "mlp": ("dense1", "head"),
    "resnet32": ("stage2_block0", "stage3_block0", "head"),
}
MARKERS = ("o", "s", "^")
LABELS = {"baseline": "without SynScaW", "synscaw": "with SynScaW"}
LAPTOP = {"mlp": TrainConfig(epochs=100), "resnet32": TrainConfig(epochs=10, chunk_steps=20)}
Runs = Mapping[str, Sequence[dict[str, Any]]]


@dataclasses.dataclass(frozen=True)
class Figure5Config:
    """Train with probes and draw the information plane."""

    preset: Literal["smoke", "laptop"] = "laptop"
    """smoke: 2 epochs of 1000 images on the MLP; laptop: 100 epochs and 10 epochs."""
    cells: tuple[str, ...] = ("mnist-mlp", "cifar100-resnet32")
    """Image sets and networks; a network is mlp or resnet32."""
    strength: float = 1e-3
    """β of the bottlenecks; the paper prints none."""
    features: int = 256
    """N, units of each code; the paper prints none."""
    mode: Literal["joint", "probe"] = "probe"
    """probe: the bottlenecks only read; joint: their losses train the network, too."""
    scaling_rate: float = 0.01
    """γ of SynScaW."""
    every_epoch: bool = False
    """Scale once after each epoch, as the caption says, rather than after each step."""
    examples: int = 10_000
    """Of each split, for the estimates."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Every network is trained with each of these seeds."""
    output: pathlib.Path = pathlib.Path("runs/figure5")
    """Folder of runs, table and figure."""
    draw: bool = False
    """Only draw what is there."""
    restart: bool = False
    """Begin anew; earlier runs are kept aside."""

    def __post_init__(self) -> None:
        check_seeds(self.seeds)
        check_numbers(self, scaling_rate=0, strength=0, features=1, examples=2)
        for cell in cells_named(self.cells):
            if cell.network not in PLACES:
                raise ValueError(
                    f"cell {cell.name} has no places to probe: use networks {', '.join(PLACES)}."
                )
        if not self.cells:
            raise ValueError("cells=() trains nothing: name at least one, e.g. mnist-mlp.")

    def settings(self, cell: Cell) -> TrainConfig:
        """How the network of a cell is trained."""
        return (PROTOCOLS["smoke"] if self.preset == "smoke" else LAPTOP)[cell.network]


def main(config: Figure5Config) -> None:
    """Train what is missing, then draw."""
    folder = config.output / config.preset
    cells = cells_named(config.cells)
    if not config.draw:
        for cell in cells:
            run_cells(
                folder,
                [cell],
                chosen_methods(cell, config),
                config.seeds,
                config.settings,
                measures=bounds_measures(config.examples),
                restart=config.restart,
            )
    results = collect(folder, config.cells, list(LABELS))
    done = [
        run
        for cell in results.values()
        for runs in cell.values()
        for run in finished(runs).values()
    ]
    if not done:
        raise RunError(f"there is no finished run below {folder}: leave out --draw to train.")
    draw(results, config, folder / "figure5.png")
    text = (
        f"# Figure 5: the information plane\n\n{table(results, config)}\n{tables.origin(*done)}\n"
    )
    write_text(folder / "figure5.md", text)
    print(text)


def chosen_methods(cell: Cell, config: Figure5Config) -> list[Method]:
    """Both methods, with bottlenecks at the places of the cell's network."""
    every_k = methods.EVERY_EPOCH if config.every_epoch else 1
    return [
        with_bounds(
            plain,
            PLACES[cell.network],
            strength=config.strength,
            mode=config.mode,
            features=config.features,
        )
        for plain in (
            methods.baseline(),
            methods.synscaw(config.scaling_rate, every_k=every_k),
        )
    ]


def course(runs: Sequence[dict[str, Any]], place: str, split: str = "test") -> tuple[Any, Any]:
    """A place's way through the plane, mean over finished runs: rates and label bits by epoch."""
    ways = [
        [
            (row["bounds"][split][place]["rate"], row["bounds"][split][place]["label"])
            for row in run["history"]
        ]
        for run in finished(runs).values()
    ]
    mean = np.mean(np.array(ways), 0) if ways else np.zeros((0, 2))
    return mean[:, 0], mean[:, 1]


def draw(results: Results, config: Figure5Config, path: pathlib.Path) -> Any:
    """One row a network, one column a method; a marker a place, the epoch as colour."""
    from matplotlib.figure import Figure

    size = (10, 4.2 * len(config.cells))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(config.cells), len(LABELS), squeeze=False)
    for row, cell in enumerate(cells_named(config.cells)):
        for axes, (kind, label) in zip(panels[row], LABELS.items(), strict=True):
            runs = results[cell.name][kind]
            axes.set(xlabel="rate ≥ I(Z;X) (bits), test", ylabel="I(Z;Y) ≥ (bits), test")
            axes.set_title(f"{cell.label}, {label} ({len(finished(runs))} seeds)", fontsize=10)
            axes.spines[["top", "right"]].set_visible(False)
            if not finished(runs):
                axes.set_title(f"{cell.label}, {label}: {_missing(runs)}", fontsize=10)
                continue
            dots = None
            for marker, place in zip(MARKERS, PLACES[cell.network], strict=False):
                rates, bits = course(runs, place)
                epochs = np.arange(1, len(rates) + 1)
                axes.plot(rates, bits, color="#bbbbbb", lw=0.8, zorder=1)
                dots = axes.scatter(
                    rates, bits, c=epochs, marker=marker, s=22, label=f"before {place}", zorder=2
                )
            axes.legend(frameon=False, fontsize=8)
            if dots is not None:
                figure.colorbar(dots, ax=axes, label="epoch")
        _share(panels[row])
    save(figure, path)
    return figure


def _missing(runs: Sequence[dict[str, Any]]) -> str:
    return "diverged" if runs else "not run"


def _share(panels: Sequence[Any]) -> None:
    """The same limits for a row, so that its panels can be compared."""
    for get, put in (("get_xlim", "set_xlim"), ("get_ylim", "set_ylim")):
        ends = np.array([getattr(axes, get)() for axes in panels if axes.collections])
        if not len(ends):
            return
        for axes in panels:
            getattr(axes, put)(ends[:, 0].min(), ends[:, 1].max())


def table(results: Results, config: Figure5Config) -> str:
    """Where every place ends, mean ± standard deviation over seeds, with what n examples carry."""
    columns: dict[str, list[str]] = {
        name: []
        for name in ("network", "", "place", "seeds", "error %", "rate, training", "rate, test")
    } | {name: [] for name in ("leave-one-out", "contrastive", "I(Z;Y) ≥, test", "H(Y)")}
    for cell in cells_named(config.cells):
        for place in PLACES[cell.network]:
            for kind, label in LABELS.items():
                runs = results[cell.name][kind]
                done = list(finished(runs).values())
                row = [cell.label, label, f"before {place}", _missing(runs), *[""] * 7]
                if done:
                    row = _row(cell, label, place, done)
                for column, value in zip(columns.values(), row, strict=True):
                    column.append(value)
    return tables.markdown(columns) + "\n" + _caption(results) + _differences(results, config)


def _differences(results: Results, config: Figure5Config) -> str:
    """With SynScaW minus without, paired by seed, a line a place."""
    lines = []
    for cell in cells_named(config.cells):
        without, scaled = (finished(results[cell.name][kind]) for kind in LABELS)
        seeds = sorted(set(without) & set(scaled))
        for place in PLACES[cell.network] if len(seeds) > 1 else ():
            gaps = {
                name: estimate(
                    [
                        _last(scaled[seed], place)[key] - _last(without[seed], place)[key]
                        for seed in seeds
                    ]
                )
                for name, key in (("rate", "rate"), ("I(Z;Y)", "label"))
            }
            said = (
                f"{name} {gap.mean:+.2f} ({gap.low:+.2f} to {gap.high:+.2f})"
                for name, gap in gaps.items()
            )
            lines.append(f"- {cell.label}, before {place}: {', '.join(said)}, {len(seeds)} seeds\n")
    if not lines:
        return ""
    heading = "With SynScaW minus without, on the same seeds (95 % interval, Student's t):"
    return f"\n{heading}\n\n" + "".join(lines)


def _last(run: Mapping[str, Any], place: str, split: str = "test") -> dict[str, Any]:
    return run["measured"]["bounds"][split][place]


def _caption(results: Results) -> str:
    """What the finished runs were made with."""
    done = [
        run
        for cell in results.values()
        for runs in cell.values()
        for run in finished(runs).values()
    ]
    bounds = done[0]["method"]["bounds"]
    examples = next(iter(done[0]["measured"]["bounds"]["test"].values()))["examples"]
    return (
        f"Bits after the last epoch, mean ± standard deviation over seeds; {bounds['mode']}, β = "
        f"{bounds['strength']:g}, N = {bounds['features']}"
        + tables.readings_of_synscaw(done)
        + f". A rate above log2 {examples} = {np.log2(examples):.2f} is no information of so many "
        "examples.\n"
    )


def _row(cell: Cell, label: str, place: str, done: Sequence[dict[str, Any]]) -> list[str]:
    at = {split: [_last(run, place, split) for run in done] for split in ("train", "test")}
    return [
        cell.label,
        label,
        f"before {place}",
        str(len(done)),
        spread([tables.error(run["final"]["test_accuracy"]) for run in done]),
        spread([point["rate"] for point in at["train"]]),
        *(spread([p[key] for p in at["test"]]) for key in ("rate", "upper", "lower", "label")),
        f"{at['test'][0]['label_entropy']:.2f}",
    ]


if __name__ == "__main__":
    presets = {
        "smoke": Figure5Config(
            preset="smoke", cells=("mnist-mlp",), seeds=(0,), examples=300, features=32
        ),
        "laptop": Figure5Config(),
    }
    run_experiment(main, Figure5Config, presets)
