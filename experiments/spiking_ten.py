"""The spiking network on all ten digits, and the trained networks that come with the package.

The published work stays with three digits. This is the same network with a slot of ten neurons for
each of ten digits, 5000 images of each, without decay, with the one-shot decay and with the
continuous one, whose time constant is in proportion to the number of classes (500 s for 150 s).
All-LTD is slowed down, as at the published rate ten classes silence the network.

    python experiments/spiking_ten.py --preset smoke   # a minute
    python experiments/spiking_ten.py                  # the committed run

Some minutes on one core with a C++ compiler. Expect what results/spiking/ten.md says. Give the same
command again to go on after an interruption. ``--export FOLDER`` writes the continuous network.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import time
from typing import Literal

import jax

from synscale_jax.data import load_images
from synscale_jax.report import spiking as report
from synscale_jax.spiking import Network, engine, flush, protocol
from synscale_jax.spiking.pretrained import write_pretrained
from synscale_jax.training.command_line import run_experiment
from synscale_jax.training.provenance import provenance, write_json, write_text
from synscale_jax.training.runs import run_folder
from synscale_jax.training.spiking_runs import load_state, train_in_chunks

DIGITS = tuple(range(10))
MODES = ("none", "one_shot", "continuous")


@dataclasses.dataclass(frozen=True)
class Config:
    """Train a spiking network on ten digits with each mode of decay."""

    preset: Literal["smoke", "laptop", "paper"] = "laptop"
    """Defaults of all the rest: smoke (a minute), laptop and paper (the same here)."""
    seed: int = 0
    """Of weights, delays, order, noise and spikes."""
    dt: float = 0.1
    """Length of a step, ms."""
    images: int = 5000
    """Training images of each digit; the rarest has 5421."""
    test_images: int = 800
    """Test images of each digit; the rarest has 892."""
    noise_images: int = 1500
    """Images of each set of noise."""
    others_rate: float = 0.05
    """Factor of all-LTD. At 1, published for three digits, nine images of ten depress a neuron and
    the network falls silent within 2000 images; chosen on training images (dt 0.5 ms, 10 000
    images: 7 % right at 1, 20 % at 2/9, 30 % at 1/9, 47 % at 1/20)."""
    continuous_time: float = 500_000.0
    """τ of the continuous decay, ms."""
    output: pathlib.Path | None = None
    """Folder of the run and its table; by default runs/spiking_ten-<preset>."""
    export: pathlib.Path | None = None
    """Folder for the trained network as mnist_ten.npz."""
    restart: bool = False
    """Move an earlier run aside and begin anew."""

    def __post_init__(self) -> None:
        self.network("continuous")  # refuses what is no network
        if min(self.images, self.test_images, self.noise_images) < 1:
            raise ValueError("images, test_images and noise_images: use 1 or more of each.")

    def network(self, mode: str) -> Network:
        """The network of a mode."""
        tau = self.continuous_time if mode == "continuous" else None
        return Network(
            classes=10,
            dt=self.dt,
            others_rate=self.others_rate,
            decay=mode,  # pyright: ignore[reportArgumentType]
            decay_time=tau,
        )


PRESETS = {
    "smoke": Config(preset="smoke", dt=0.5, images=100, test_images=20, noise_images=50),
    "laptop": Config(),
    "paper": Config(preset="paper"),
}


def main(config: Config) -> None:
    """Train and show, then write and print the table."""
    folder = config.output or pathlib.Path("runs") / f"spiking_ten-{config.preset}"
    elsewhere = ("preset", "output", "export", "restart")
    identity = {k: v for k, v in dataclasses.asdict(config).items() if k not in elsewhere}
    with run_folder(folder, identity, restart=config.restart):
        if not (folder / "result.json").exists():
            train_and_show(config, folder, identity)
        if config.export:
            export(config, folder, config.export)
    result = json.loads((folder / "result.json").read_text())
    text = report.ten_table(result, smoke=config.preset == "smoke")
    write_text(folder / "ten.md", text)
    print(text)


def train_and_show(config: Config, folder: pathlib.Path, identity: dict) -> None:
    """All modes; writes ``result.json``."""
    start, origin, data = time.perf_counter(), provenance(), load_images("mnist")
    shown = protocol.class_examples(*data.train, DIGITS, config.images, config.seed)
    mean_rate = float(shown.rates.mean())
    tests = {
        "known": protocol.class_examples(*data.test, DIGITS, config.test_images, config.seed),
        **protocol.noise_sets(mean_rate, config.noise_images, config.seed),
    }
    for_training, for_flush, for_tests = jax.random.split(jax.random.key(config.seed), 3)
    modes, trained = {}, {}
    for mode in MODES:
        learned = "continuous" if mode == "continuous" else "none"
        if learned not in trained:
            network = config.network(learned)
            trained[learned] = train_in_chunks(
                network, for_training, *shown, folder / f"{learned}.npz"
            )
        before, seconds = trained[learned]
        network = config.network(mode)
        after = flush(network, before, for_flush)
        _, sets = protocol.show(network, after, tests, for_tests)
        modes[mode] = {"sets": sets, "training_seconds": seconds}
        print(f"{mode}: {sets['known']['accuracy']:.1%} right", flush=True)
    write_json(
        folder / "result.json",
        {"seed": config.seed, "config": identity, "modes": modes, "data_hash": data.data_hash,
         "mean_rate": mean_rate, "engine": engine(), "provenance": origin,
         "wall_seconds": time.perf_counter() - start},
    )  # fmt: skip


def export(config: Config, folder: pathlib.Path, into: pathlib.Path) -> None:
    """Write the trained network of the continuous decay, flushed as it was shown."""
    result = json.loads((folder / "result.json").read_text())
    about = {"accuracy": result["modes"]["continuous"]["sets"]["known"]["accuracy"],
             "seed": config.seed, "commit": result["provenance"]["commit"],
             "data_hash": result["data_hash"]}  # fmt: skip
    network, (before, _) = config.network("continuous"), load_state(folder / "continuous.npz")
    _, for_flush, _ = jax.random.split(jax.random.key(config.seed), 3)
    write_pretrained(
        into / "mnist_ten.npz", network, flush(network, before, for_flush), DIGITS, about
    )


if __name__ == "__main__":
    run_experiment(main, Config, PRESETS)
