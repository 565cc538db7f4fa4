"""Section IV-C of the paper: the rate curve of an MLP's code, with and without SynScaW, on MNIST.

784-1024-1024-10 with a bottleneck beside its head, whose loss trains the network, too (the paper's
way). The paper reports one pair of runs: I(Z;X) 55.99 and I(Z;Y) 3.22 without scaling, 28.38 and
3.19 with it. One point says little, since β alone moves along a curve; here the curve is drawn over
β, and "compression" is confirmed only if the whole curve drops at equal I(Z;Y) on the test set.
The paper prints neither β nor N: N = 256 as in Alemi et al.

    python experiments/information_mlp.py              # 4 strengths, 3 seeds, 2 methods: 24 runs
    python experiments/information_mlp.py --draw       # only the figure of what is there

Start it twice to use two cores; give the same command again to go on after an interruption.
"""

import dataclasses
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from synscale_jax.analysis.information import rate_at
from synscale_jax.report import tables
from synscale_jax.report.collect import Results, collect, finished
from synscale_jax.report.plots import COLORS, save
from synscale_jax.report.statistics import Estimate, estimate, spread
from synscale_jax.training import methods
from synscale_jax.training.bounds import bounds_measures, with_bounds
from synscale_jax.training.cells import cells_named
from synscale_jax.training.command_line import check_numbers, check_seeds, run_experiment
from synscale_jax.training.config import TrainConfig
from synscale_jax.training.methods import Method
from synscale_jax.training.provenance import write_text
from synscale_jax.training.runs import RunError
from synscale_jax.training.sweep import run_cells
from synscale_jax.training.table_settings import PROTOCOLS

PRESETS = {**PROTOCOLS, "laptop": {"mlp": TrainConfig(epochs=12)}}
PLACE = "head"
LABELS = {"baseline": "without SynScaW", "synscaw": "with SynScaW"}
PUBLISHED = {"baseline": (55.99, 3.22, 1.17), "synscaw": (28.38, 3.19, 1.14)}
LEVELS = 5  # values of I(Z;Y) at which the curves are compared
Runs = Mapping[str, Sequence[dict[str, Any]]]


@dataclasses.dataclass(frozen=True)
class InformationConfig:
    """Train the paper's MLP with a bottleneck at several strengths and compare rate curves."""

    preset: Literal["smoke", "laptop", "paper"] = "laptop"
    """smoke: 2 epochs of 1000 images; laptop: 12 epochs of all; paper: 200 epochs."""
    cell: str = "mnist-mlp"
    """Image set and network."""
    strengths: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1)
    """β, the weight of the KL."""
    scaling_rate: float = 0.01
    """γ of SynScaW."""
    features: int = 256
    """N, units of the code."""
    mode: Literal["joint", "probe"] = "joint"
    """joint: the bottleneck's loss trains the network, too; probe: it only reads."""
    examples: int = 10_000
    """Of each split, for the estimates."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Every strength is trained with each of these seeds."""
    output: pathlib.Path = pathlib.Path("runs/information_mlp")
    """Folder of runs, table and figure."""
    draw: bool = False
    """Only draw what is there."""
    restart: bool = False
    """Begin anew; earlier runs are kept aside."""

    def __post_init__(self) -> None:
        check_seeds(self.seeds)
        check_numbers(self, scaling_rate=0, strengths=0, features=1, examples=2)
        (cell,) = cells_named([self.cell])
        if cell.network not in PRESETS[self.preset]:
            raise ValueError(
                f"the {self.preset} protocol has no cell {self.cell}: its networks are "
                f"{', '.join(PRESETS[self.preset])}."
            )
        if len(set(self.strengths)) < 2 or min(self.strengths) < 0:
            raise ValueError(
                f"strengths={self.strengths} make no curve: give two or more numbers of 0 or more."
            )

    def names(self) -> list[str]:
        """Every run without its seed."""
        return [run_name(method, beta) for method in LABELS for beta in self.strengths]


def main(config: InformationConfig) -> None:
    """Train what is missing, then draw."""
    folder = config.output / config.preset
    names = config.names()
    if not config.draw:
        run_cells(
            folder,
            cells_named([config.cell]),
            [method(kind, beta, config) for beta in config.strengths for kind in LABELS],
            config.seeds,
            lambda cell: PRESETS[config.preset][cell.network],
            measures=bounds_measures(config.examples),
            restart=config.restart,
        )
    results: Results = collect(folder, [config.cell], names)
    runs = results[config.cell]
    done = [run for name in names for run in finished(runs[name]).values()]
    if not done:
        raise RunError(f"there is no finished run below {folder}: leave out --draw to train.")
    draw(runs, config, folder / "information_mlp.png")
    text = (
        f"# Rate curves of {cells_named([config.cell])[0].label}\n\n{table(runs, config)}\n"
        f"{verdict(runs, config)}\n\n{tables.origin(*done)}\n"
    )
    write_text(folder / "information_mlp.md", text)
    print(text)


def run_name(kind: str, beta: float) -> str:
    """Name of a run in files."""
    return f"{kind}-{beta:g}"


def method(kind: str, beta: float, config: InformationConfig) -> Method:
    """A method with the bottleneck at one strength."""
    plain = methods.baseline() if kind == "baseline" else methods.synscaw(config.scaling_rate)
    made = with_bounds(plain, (PLACE,), strength=beta, mode=config.mode, features=config.features)
    name = run_name(kind, beta)
    return dataclasses.replace(made, name=name, label=name)


def point(run: Mapping[str, Any], split: str = "test") -> dict[str, Any]:
    """What a finished run's bounds say at the end."""
    return run["measured"]["bounds"][split][PLACE]


def table(runs: Runs, config: InformationConfig) -> str:
    """Each strength in Markdown, mean ± standard deviation over seeds; the paper's pair below."""
    rows = [(kind, beta) for beta in config.strengths for kind in LABELS]
    done = [list(finished(runs[run_name(*row)]).values()) for row in rows]
    columns = {
        "": [LABELS[kind] for kind, _ in rows],
        "β": [f"{beta:g}" for _, beta in rows],
        "seeds": [_seeds(runs[run_name(*row)]) for row in rows],
        "error %": [
            spread([tables.error(run["final"]["test_accuracy"]) for run in found]) for found in done
        ],
        "rate, training": [spread([point(r, "train")["rate"] for r in found]) for found in done],
    }
    for heading, key in (
        ("rate, test", "rate"),
        ("leave-one-out", "upper"),
        ("contrastive", "lower"),
        ("I(Z;Y) ≥, test", "label"),
    ):
        columns[heading] = [spread([point(run)[key] for run in found]) for found in done]
    for kind, (rate, label, error) in PUBLISHED.items():
        shown = (f"paper, {LABELS[kind]}", "not printed", "not printed", error, "", rate, "", "")
        shown = (*shown, label)
        for column, value in zip(columns.values(), shown, strict=True):
            column.append(str(value))
    every = [run for found in done for run in found]
    bounds, last = every[0]["method"]["bounds"], point(every[0])
    return (
        tables.markdown(columns)
        + f"\nBits after {every[0]['config']['epochs']} epochs, mean ± standard deviation over "
        "seeds; "
        f"{bounds['mode']}, N = {bounds['features']}, {bounds['samples']} samples"
        + tables.readings_of_synscaw(every)
        + f"; {last['examples']} test examples. H(Y) of "
        f"their labels: {last['label_entropy']:.3f}. The paper does not say on which examples its "
        "figures are.\n\n" + "\n".join(_flagged(every)) + "\n"
    )


def _seeds(runs: Sequence[dict[str, Any]]) -> str:
    lost = sum(run["status"] == "diverged" for run in runs)
    return (f"{len(finished(runs))}" if runs else "not run") + (
        f", {lost} diverged" if lost else ""
    )


def _flagged(done: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the estimates were flagged for, a line a kind."""
    kinds: dict[tuple[str, str], list[float]] = {}
    for run in done:
        for flag in point(run)["flags"]:
            name, value, said = re.fullmatch(r"(\D+) ([\d.]+) (.*)", flag).groups()  # type: ignore
            kinds.setdefault((name, said), []).append(float(value))
    return [
        f"- {name}, {len(values)} of {len(done)} runs, {min(values):.2f} to {max(values):.2f}: "
        f"{said}"
        for (name, said), values in kinds.items()
    ]


def differences(runs: Runs, config: InformationConfig) -> dict[float, Estimate]:
    """I(Z;Y) -> rate with SynScaW minus rate without, paired by seed; empty without overlap."""
    curves: dict[str, dict[int, tuple[list[float], list[float]]]] = {kind: {} for kind in LABELS}
    for kind in LABELS:
        by_beta = [finished(runs[run_name(kind, beta)]) for beta in config.strengths]
        for seed in set.intersection(*map(set, by_beta)):
            points = [point(found[seed]) for found in by_beta]
            curves[kind][seed] = ([p["label"] for p in points], [p["rate"] for p in points])
    seeds = sorted(set.intersection(*(set(curve) for curve in curves.values())))
    if not seeds:
        return {}
    every = [_reach(*curves[kind][seed]) for kind in LABELS for seed in seeds]
    levels = np.linspace(max(map(min, every)), min(map(max, every)), LEVELS)
    if levels[0] >= levels[-1]:
        return {}
    gaps = np.array(
        [
            rate_at(*curves["synscaw"][seed], levels) - rate_at(*curves["baseline"][seed], levels)
            for seed in seeds
        ]
    )
    return {float(level): estimate(gaps[:, index].tolist()) for index, level in enumerate(levels)}


def _reach(label_bits: Sequence[float], rates: Sequence[float]) -> list[float]:
    """Those of a curve's values of I(Z;Y) where it can be read."""
    return [x for x in label_bits if np.isfinite(rate_at(label_bits, rates, [x])).all()]


def verdict(runs: Runs, config: InformationConfig) -> str:
    """Whether the whole rate curve drops, in one sentence, and the differences it rests on."""
    found = differences(runs, config)
    if not found:
        return "Cannot tell: no seed has both whole curves, or they share no value of I(Z;Y)."
    lines = [
        f"- at I(Z;Y) = {level:.3f}: {gap.mean:+.2f}"
        + ("" if gap.low is None else f" ({gap.low:+.2f} to {gap.high:+.2f})")
        for level, gap in found.items()
    ]
    highs = [gap.high for gap in found.values()]
    rising = sum(gap.low is not None and gap.low > 0 for gap in found.values())
    if any(high is None for high in highs):
        said = "Cannot tell from one seed"
    elif all(high is not None and high < 0 for high in highs):
        said = "Compression confirmed: the whole curve drops"
    else:
        said = "Compression not confirmed: the curve does not drop everywhere beyond chance"
        said += f", and at {rising} of {len(found)} values it rises beyond chance" if rising else ""
    count = next(iter(found.values())).count
    return (
        f"{said}. Rate with SynScaW minus without (95 % interval, {count} seeds), where all curves "
        "can be read:\n\n" + "\n".join(lines)
    )


def draw(runs: Runs, config: InformationConfig, path: pathlib.Path) -> Any:
    """Rate against label information, one line a seed, the paper's pair as crosses."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.6), layout="constrained")
    every = (run_name(kind, beta) for kind in LABELS for beta in config.strengths)
    seeds = sorted({seed for name in every for seed in finished(runs[name])})
    for axes, split in zip(figure.subplots(1, 2), ("train", "test"), strict=True):
        for kind, label in LABELS.items():
            for index, seed in enumerate(seeds):
                points = [
                    point(found[seed], split)
                    for beta in config.strengths
                    if seed in (found := finished(runs[run_name(kind, beta)]))
                ]
                axes.plot(
                    [p["label"] for p in points],
                    [p["rate"] for p in points],
                    "o-",
                    ms=4,
                    lw=1.2,
                    color=COLORS[kind],
                    label=label if index == 0 else None,
                )
            rate, bits, _ = PUBLISHED[kind]
            axes.plot(bits, rate, "x", color=COLORS[kind], ms=8, label=f"paper, {label}")
        axes.set_yscale("log")
        axes.set(xlabel="I(Z;Y) ≥ (bits)", ylabel="rate ≥ I(Z;X) (bits)")
        axes.set_title("training examples" if split == "train" else "test examples")
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *figure.axes[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=4,
        frameon=False,
        fontsize=8,
    )
    save(figure, path)
    return figure


if __name__ == "__main__":
    presets = {
        "smoke": InformationConfig(
            preset="smoke", strengths=(1e-3, 1e-1), seeds=(0, 1), examples=300, features=32
        ),
        "laptop": InformationConfig(),
        "paper": InformationConfig(preset="paper"),
    }
    run_experiment(main, InformationConfig, presets)
