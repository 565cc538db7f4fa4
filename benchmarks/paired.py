"""The harness: two peers by turns, A B A B, each in a process of its own.

Each peer lives in a worker process that stays, so that thread pools, allocators and environments
do not mix; between its turns it waits in a blocking read. What it burns there is measured and
reported (``idle``): OpenMP's threads spin for some milliseconds after their last work, less than a
percent of a turn of a second. A turn runs one block of steps and is timed inside the worker.

A comparison is the median of the ratios of neighbouring turns, which a slow drift of the machine
hits alike, with a distribution-free interval (order statistics).
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import importlib.metadata
import json
import math
import multiprocessing
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

RESULTS = pathlib.Path(__file__).parent / "results"
BUSY_CORES = 0.2  # more than this of other work, and no figure is worth keeping
PACKAGES = ("jax", "jaxlib", "flax", "optax", "torch", "onednn-cpu-gomp", "numpy")


@dataclasses.dataclass(frozen=True)
class Peer:
    """One side of a comparison.

    Attributes:
      name: for tables.
      make: a function of a module, called in the worker; returns ``run(steps)``, which blocks
        until that many steps are done, and a dict that describes the peer (threads and so on).
      arguments: keywords of ``make``.
      environment: variables set in the worker before anything is imported.
    """

    name: str
    make: Callable[..., tuple[Callable[[int], object], dict[str, Any]]]
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)


class Worker:
    """A peer in its process."""

    def __init__(self, peer: Peer, steps: int) -> None:
        self.peer, self.steps = peer, steps
        self.cpu = self.idle_cpu = self.idle_wall = 0.0
        self._last: tuple[float, float] | None = None
        context = multiprocessing.get_context("spawn")
        self._pipe, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there, peer), daemon=True)
        with _environment(peer.environment):
            self._process.start()
        there.close()
        self.about: dict[str, Any] = self._receive()
        self.turn()  # compiles, and warms the caches

    def turn(self) -> float:
        """Run one block; milliseconds a step."""
        self._pipe.send(self.steps)
        (cpu, wall), (cpu_end, wall_end) = self._receive()
        if self._last is not None:
            self.idle_cpu += cpu - self._last[0]
            self.idle_wall += wall - self._last[1]
            self.cpu += cpu_end - cpu
        self._last = cpu_end, wall_end
        return (wall_end - wall) / self.steps * 1e3

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError):
            self._pipe.send(None)
        self._process.join(20)
        if self._process.is_alive():
            self._process.terminate()

    def _receive(self) -> Any:
        try:
            answer = self._pipe.recv()
        except EOFError:
            raise RuntimeError(f"the worker of {self.peer.name!r} has died") from None
        if isinstance(answer, str):
            raise RuntimeError(f"{self.peer.name}: {answer}")
        return answer

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _serve(pipe: Any, peer: Peer) -> None:
    """The worker: make the peer, then one block a request."""
    try:
        run, about = peer.make(**peer.arguments)
        pipe.send(about)
        while (steps := pipe.recv()) is not None:
            begin = time.process_time(), time.perf_counter()
            run(steps)
            pipe.send((begin, (time.process_time(), time.perf_counter())))
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")
        raise


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def median(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)


def median_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """The median, and the order statistics that hold the true one with at least this probability.

    Raises:
      ValueError: if there are too few values for that (fewer than 6 at 95 %).
    """
    ordered, count = sorted(values), len(values)
    outside, rank = 0.0, 0
    while True:  # the rank-th smallest and largest bound it, but for twice a binomial tail
        tail = outside + math.comb(count, rank) / 2**count
        if 2 * tail > 1 - level or rank >= count // 2:
            break
        outside, rank = tail, rank + 1
    if rank == 0:
        raise ValueError(f"{count} pairs hold no {level:.0%} interval: use 6 or more.")
    return statistics.median(ordered), ordered[rank - 1], ordered[count - rank]


def compare(
    a: Worker, b: Worker, pairs: int, *, target: float | None = None, label: str = ""
) -> dict[str, Any]:
    """Pairs of turns of two workers: how long a takes, in units of b."""
    before, busy = os.getloadavg()[0], _busy_seconds()
    begin, own = time.perf_counter(), a.cpu + b.cpu + a.idle_cpu + b.idle_cpu
    turns = [(a.turn(), b.turn()) for _ in range(pairs)]
    wall = time.perf_counter() - begin
    own = a.cpu + b.cpu + a.idle_cpu + b.idle_cpu - own
    others = max(0.0, (_busy_seconds() - busy - own) / wall)
    row = ratio_row([x / y for x, y in turns], target, label or f"{a.peer.name} / {b.peer.name}")
    row["steps"] = a.steps
    row["peers"] = [
        _side(worker, times) for worker, times in zip((a, b), zip(*turns, strict=True), strict=True)
    ]
    row["load"] = [before, os.getloadavg()[0]]
    row["others_cores"] = others
    print_row(row)
    return row


def ratio_row(ratios: Sequence[float], target: float | None, label: str) -> dict[str, Any]:
    """The figures of a comparison; a quick one has its range in place of the interval."""
    try:
        middle, low, high = median_interval(ratios)
    except ValueError:
        middle, low, high = median(ratios), min(ratios), max(ratios)
    return {
        "label": label,
        "ratio": middle,
        "interval": [low, high],
        "target": target,
        "pairs": len(ratios),
    }


def _side(worker: Worker, times: Sequence[float]) -> dict[str, Any]:
    return {
        "name": worker.peer.name,
        "ms": statistics.median(times),
        "idle": worker.idle_cpu / max(worker.idle_wall, 1e-9),
        **worker.about,
    }


def print_row(row: dict[str, Any]) -> None:
    """One line a comparison, as it comes in."""
    low, high = row["interval"]
    sides = ", ".join(
        f"{side['name']} {side['ms']:.2f} ms ({side.get('threads')} threads, "
        f"idle {side['idle']:.1%})"
        for side in row["peers"]
    )
    target = "" if row["target"] is None else f", target {row['target']}"
    print(f"{row['label']}: {row['ratio']:.3f} [{low:.3f}, {high:.3f}]{target}; {sides}", end="")
    print(f"; load {row['load'][0]:.1f} to {row['load'][1]:.1f}, others {row['others_cores']:.2f}")
    sys.stdout.flush()


def _busy_seconds() -> float:
    """CPU seconds of the whole machine that were not idle, since boot."""
    fields = pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    ticks = [int(field) for field in fields]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def arguments(description: str | None, *, steps: int, pairs: int = 15) -> argparse.ArgumentParser:
    """The switches that every benchmark has."""
    parser = argparse.ArgumentParser(description=(description or "").split("\n")[0])
    parser.add_argument("--pairs", type=int, default=pairs, help="pairs of turns, 9 or more")
    parser.add_argument("--steps", type=int, default=steps, help="training steps in a turn")
    parser.add_argument("--quick", action="store_true", help="3 short pairs: does it run?")
    parser.add_argument("--force", action="store_true", help="measure on a busy machine, too")
    return parser


def begin(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Read the switches; refuse a busy machine and too few pairs."""
    options = parser.parse_args()
    if options.quick:
        options.pairs, options.steps = 3, max(1, options.steps // 10)
    elif options.pairs < 9:
        parser.error(f"--pairs {options.pairs} is too few: use 9 or more, or --quick.")
    busy, seconds = _busy_seconds(), 3.0
    time.sleep(seconds)
    options.busy = (_busy_seconds() - busy) / seconds
    if options.busy > BUSY_CORES:
        message = f"other work keeps {options.busy:.1f} of {os.cpu_count()} cores busy"
        if not (options.quick or options.force):
            sys.exit(f"{message}: wait until it ends, or give --force and distrust the figures.")
        print(f"WARNING: {message}; these figures are worth nothing.", file=sys.stderr)
    return options


def write(name: str, options: argparse.Namespace, rows: Sequence[dict], **more: Any) -> None:
    """Write results/<name>.json; a quick run goes beside it and is not rendered."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / (f"{name}.quick.json" if options.quick else f"{name}.json")
    result = {"name": name, **machine(), "busy_cores_before": options.busy, "rows": rows, **more}
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written: {path.relative_to(RESULTS.parent.parent)}")


def machine() -> dict[str, Any]:
    """Where and with what this was measured."""
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    git = ["git", "-C", str(RESULTS.parent), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "commit": commit,
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": versions,
    }


def cpu_model() -> str:
    """The processor's name, and the widest vectors it has."""
    text = pathlib.Path("/proc/cpuinfo").read_text()
    name = next((line for line in text.splitlines() if line.startswith("model name")), ": unknown")
    vectors = "AVX-512" if " avx512f " in text else "AVX2" if " avx2 " in text else "no AVX2"
    return f"{name.split(':', 1)[1].strip()} ({vectors})"


def os_threads() -> int:
    """How many threads this process has."""
    return len(os.listdir("/proc/self/task"))
