"""The spiking network beside Brian 2: the same network and images, one core each.

    python benchmarks/spiking.py --brian BRIAN/bin/python               # all, some eight minutes
    python benchmarks/spiking.py --brian BRIAN/bin/python --peers cython  # adds to the results

BRIAN is an environment with Brian 2.9 (see spiking_brian.py). Training shows 200 images, adaptive
threshold as published, no decay; evaluation shows images with the weights frozen that our training
ended with. Brian shows fewer, how many is said, and its figure is per step. Compilation is timed
apart. Spikes differ by chance: each side draws its own Poisson inputs.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from synscale_jax import spiking
from synscale_jax.data import load_images
from synscale_jax.report.tables import markdown
from synscale_jax.spiking import protocol
from synscale_jax.training.provenance import provenance, write_json, write_text

HERE = pathlib.Path(__file__).parent
PAGE = HERE.parent / "results" / "spiking" / "benchmark.md"
PEERS = ("ours", "cpp_standalone", "cython", "numpy")
EVALUATED = {"numpy": 16, "cython": 31, "cpp_standalone": 300}  # images; the first is not timed
IMAGES, TEST_IMAGES, REPEATS = 200, 1500, 3


def timed(work: Callable[[], Any], repeats: int = REPEATS) -> tuple[float, float, Any]:
    """Seconds of compilation, median seconds of a repeat, and what came out."""
    seconds, out = [], None
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        out = jax.block_until_ready(work())
        seconds.append(time.perf_counter() - begin)
    middle = statistics.median(seconds[1:])
    return seconds[0] - middle, middle, out


def ours(arrays: dict[str, np.ndarray], tests: np.ndarray) -> tuple[dict[str, Any], np.ndarray]:
    """Both paths of training and evaluation, and the weights after training."""
    network = spiking.Network()
    state = spiking.initial_state(network, jax.random.key(0), weights=arrays["weights"])
    key, rows = jax.random.key(1), {}

    def row(steps: int, work: Callable[[], Any], counts: Callable[[Any], Any]) -> dict[str, Any]:
        compiled, seconds, out = timed(work)
        spikes = int(np.asarray(counts(out))[:, : network.neurons].sum())
        return {"us": 1e6 * seconds / steps, "compile_seconds": compiled, "spikes": spikes,
                "images": len(counts(out)), "seconds": seconds}  # fmt: skip

    paths = {"pure JAX": False} | ({"C++": True} if spiking.engine() == "native" else {})
    for name, native in paths.items():
        rows[f"training, ours, {name}"] = row(
            IMAGES * network.steps,
            lambda native=native: spiking.train(
                network, state, arrays["rates"], arrays["slots"], key, native=native
            ),
            lambda out: out[1],
        )
    trained, _ = spiking.train(network, state, arrays["rates"], arrays["slots"], key)
    steps = len(tests) * network.steps
    for name, native in paths.items():
        rows[f"evaluation, ours, {name}, one by one"] = row(
            steps,
            lambda native=native: spiking.count_spikes(network, trained, tests, key, native=native),
            lambda out: out[1],
        )
    rows["evaluation, ours, pure JAX, batches of 250"] = row(
        steps,
        lambda: spiking.count_spikes_batched(network, trained, tests, key, batch=250),
        lambda out: out,
    )
    return rows, np.asarray(trained.weights)


def brian(
    python: str, target: str, arrays: dict[str, np.ndarray], evaluate: bool
) -> dict[str, Any]:
    """One run in Brian's environment."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "network.npz")
        np.savez(path, **arrays)  # pyright: ignore[reportArgumentType]
        what = "evaluate" if evaluate else "train"
        command = [python, str(HERE / "spiking_brian.py"), "measure", target, str(path), what]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    if done.returncode:
        raise SystemExit(f"Brian 2, {target}: {done.stderr.strip().splitlines()[-1]}")
    result = json.loads(done.stdout.strip().splitlines()[-1])
    result["us"] = 1e6 * result["seconds"] / (result["images"] * spiking.Network().steps)
    return result


def tables(rows: dict[str, Any]) -> str:
    """The rows in Markdown, with ratios to our paths."""
    text = ""
    for phase in ("training", "evaluation"):
        chosen = {name: row for name, row in rows.items() if name.startswith(phase)}
        mine = {name: row["us"] for name, row in chosen.items() if "ours" in name}
        table: dict[str, list[str]] = {
            phase: [], "µs a step": [], "simulated s a second": [], "images": [],
            "spikes an image": [], "compilation s": [],
        }  # fmt: skip
        for name in mine:
            table[f"times {name.split(', ', 2)[2]}"] = []
        for name, row in chosen.items():
            table[phase].append(name.split(", ", 1)[1])
            table["µs a step"].append(f"{row['us']:.3g}")
            table["simulated s a second"].append(f"{100 / row['us']:.3g}")
            table["images"].append(str(row["images"]))
            table["spikes an image"].append(
                f"{row['spikes'] / row.get('shown', row['images']):.1f}"
            )
            table["compilation s"].append(f"{row['compile_seconds']:.1f}")
            for other, us in mine.items():
                table[f"times {other.split(', ', 2)[2]}"].append(f"{row['us'] / us:.3g}")
        text += markdown(table) + "\n"
    return text


def origin(result: dict[str, Any]) -> str:
    """Where the figures come from."""
    here, brian = result["provenance"], result["brian"]
    return (
        "One core each, idle machine, MNIST digits 7, 4, 6. Ours: median of "
        f"{REPEATS} repeats; Brian 2: one run, its first image left out with numpy and cython. jax "
        f"{here['versions']['jax']}, Brian {brian['brian2']} with numpy {brian['numpy']}, "
        f"{here['cpu']}, commit {here['commit']}: `python benchmarks/spiking.py`\n"
    )


def main() -> None:
    """Measure, add to the results, print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--brian", default="python", help="the Python with Brian 2")
    parser.add_argument("--peers", nargs="+", default=PEERS, choices=PEERS)
    parser.add_argument("--core", type=int, default=0, help="everything is pinned to this core")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, [arguments.core])
    data, network = load_images("mnist"), spiking.Network()
    shown = protocol.class_examples(*data.train, (7, 4, 6), IMAGES, 0)
    tests = protocol.class_examples(*data.test, (7, 4, 6), TEST_IMAGES // 3, 0)
    state = spiking.initial_state(network, jax.random.key(0))
    arrays = {
        "weights": np.asarray(state.weights, float),
        "rates": shown.rates[:IMAGES],
        "slots": shown.slots[:IMAGES],
        "partner_delay": np.asarray(state.partner_delay) * network.dt,
        "inhibition_delay": np.asarray(state.inhibition_delay) * network.dt,
    }
    path = HERE / "results" / "spiking.json"
    result: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"rows": {}}
    if "ours" in arguments.peers:
        rows, weights = ours(arrays, tests.rates)
        result["rows"] |= rows
    else:
        trained, _ = spiking.train(
            network, state, arrays["rates"], arrays["slots"], jax.random.key(1)
        )
        weights = np.asarray(trained.weights)
    for target in [peer for peer in arguments.peers if peer != "ours"]:
        row = brian(arguments.brian, target, arrays, False)
        result["brian"] = row.pop("versions")
        result["rows"][f"training, Brian 2, {target}"] = row
        frozen = {**arrays, "weights": np.asarray(weights, float),
                  "rates": tests.rates[: EVALUATED[target]],
                  "slots": tests.slots[: EVALUATED[target]]}  # fmt: skip
        row = brian(arguments.brian, target, frozen, True)
        row.pop("versions")
        result["rows"][f"evaluation, Brian 2, {target}"] = row
    order = sorted(result["rows"], key=lambda name: (name[0] != "t", "Brian" in name))
    result["rows"] = {name: result["rows"][name] for name in order}
    result["provenance"] = {**provenance(), "command": "spiking.py"}  # not where Brian lies
    result["data_hash"] = data.data_hash
    write_json(path, result)
    text = tables(result["rows"]) + origin(result)
    write_text(PAGE, "# Beside Brian 2\n\n" + text)
    print(text)


if __name__ == "__main__":
    main()
