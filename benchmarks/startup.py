"""Import time, the first compiled chunk of ResNet32, and the main job's peak memory.

    python benchmarks/startup.py

Every figure is taken in fresh processes. The memory is that of the laptop job on real CIFAR-100
cut to two epochs, which hold as much as twenty.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import paired

ROOT = pathlib.Path(__file__).parent.parent
CHUNK = """
import sys, time, pathlib
sys.path.insert(0, {here!r})
import jax, ours
begin = time.perf_counter()
run, _ = ours.train_block("resnet32", {steps})
made = time.perf_counter()
run({steps})
first = time.perf_counter()
run({steps})
print(made - begin, first - made, time.perf_counter() - first)
"""


def fresh(code: str, environment: dict[str, str] | None = None) -> tuple[float, list[float]]:
    """Seconds of a fresh process, and the numbers that it printed last."""
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        text=True,
    )
    seconds = time.perf_counter() - begin
    return seconds, [float(word) for word in done.stdout.split()]


def imports(options: argparse.Namespace) -> dict:
    """`import synscale_jax` against the three packages that it stands on."""
    sides = ("import synscale_jax", "import jax, flax, optax")
    for side in sides:
        fresh(side)  # fills the disk's cache
    load = os.getloadavg()[0]
    turns = [tuple(fresh(side)[0] * 1e3 for side in sides) for _ in range(options.pairs)]
    row = paired.ratio_row([a / b for a, b in turns], 1.5, " / ".join(sides))
    row["peers"] = [
        {"name": side, "ms": paired.median(column)}
        for side, column in zip(sides, zip(*turns, strict=True), strict=True)
    ]
    row["load"] = [load, os.getloadavg()[0]]
    return row


def first_chunk(path: str, environment: dict[str, str], steps: int, times: int) -> dict:
    """Seconds until the first chunk of ResNet32 is done, compilation included."""
    code = CHUNK.format(here=str(pathlib.Path(__file__).parent), steps=steps)
    found = [fresh(code, environment)[1] for _ in range(times)]
    made, first, second = (paired.median(column) for column in zip(*found, strict=True))
    return {
        "label": f"first compiled chunk of ResNet32 ({steps} steps), {path}",
        "value": first,
        "unit": "s",
        "target": 40,
        "times": times,
        "detail": f"initial state before it {made:.1f} s, the second chunk {second:.1f} s",
    }


def peak_memory(preset: str, quick: bool) -> dict:
    """The largest resident set of the main job."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "experiments/cifar100_resnet.py", "--preset", preset]
        command += ["--output", folder, "--epochs", "1" if quick else "2"]
        command += [] if quick else ["--no-fallback"]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command[1:])} ended with {os.waitstatus_to_exitcode(status)}.")
    return {
        "label": f"peak memory of the CIFAR-100 job, {preset}",
        "value": usage.ru_maxrss / 2**20,
        "unit": "GiB",
        "target": 3,
        "times": 1,
        "detail": "largest resident set, all methods in one process",
    }


def main() -> None:
    """Measure and write."""
    options = paired.begin(paired.arguments(__doc__, steps=10))
    rows = [imports(options)]
    times = 1 if options.quick else 3
    for path, environment in (("canonical", {"SYNSCALE_ONEDNN": "0"}), ("native", {})):
        rows.append(first_chunk(path, environment, options.steps, times))
    rows.append(peak_memory("smoke" if options.quick else "laptop", options.quick))
    for row in rows:
        print({key: row[key] for key in row if key in ("label", "ratio", "interval", "value")})
    paired.write("startup", options, rows, command="python benchmarks/startup.py")


if __name__ == "__main__":
    main()
