"""Simulating a network and two pruned copies of it, n = 2000, against NumPy.

    python benchmarks/noise_prune.py            # about 4 minutes
    python benchmarks/noise_prune.py --render   # only put the table into docs/noise_prune.md

The peer is a transcription of the published code's loop: Euler steps of three networks under the
same noise, one matrix product a step. Single runs are its way; in batches of 20 the product is one
of matrices. Each peer takes the better of one and two BLAS threads. What is timed is a run's step,
so that 400 of them are 400 steps of a single run or 20 steps of 20; turns are long enough for the
copy of the matrices with which ours begins to vanish, as it does in a run. Two figures with limits
follow: probabilities of a symmetric network of 2000, and the covariance of a directed one of 1000.
"""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import paired
import render

N, NETWORKS, BATCH = 2000, 3, 20
TIME_STEP, NOISE, STEPS = 5e-3, 0.01, 8001
PAGE = pathlib.Path(__file__).parents[1] / "docs" / "noise_prune.md"
Block = tuple[Callable[[int], object], dict[str, Any]]


def networks(dtype: str) -> list[np.ndarray]:
    """Stable dense networks: neither side looks at zeros."""
    draw = np.random.default_rng(0)
    scale = 0.5 / N**0.5
    return [(draw.normal(0, scale, (N, N)) - np.eye(N)).astype(dtype) for _ in range(NETWORKS)]


def numpy_block(dtype: str, runs: int, threads: int) -> Block:
    """The published loop."""
    matrices = networks(dtype)
    draw = np.random.default_rng(1)
    shape = (N,) if runs == 1 else (N, runs)
    states = [np.ones(shape, dtype) for _ in matrices]
    drive = np.full(shape, 2e-4, dtype)
    strength = np.asarray(NOISE * TIME_STEP**0.5, dtype)

    def block(run_steps: int) -> None:
        for _ in range(run_steps // runs):
            kick = strength * draw.standard_normal(shape, dtype)  # pyright: ignore
            for x, A in zip(states, matrices, strict=True):
                x += TIME_STEP * (A @ x + drive) + kick

    return block, {"threads": threads}


def our_block(dtype: str, runs: int) -> Block:
    """The library's simulation; each network draws the same noise anew."""
    import jax
    import jax.numpy as jnp

    from synscale_jax.pruning import simulate

    matrices = [jnp.asarray(A) for A in networks(dtype)]
    assert matrices[0].dtype == dtype
    start = jnp.ones((N,) if runs == 1 else (runs, N), dtype)

    def block(run_steps: int) -> None:
        steps = run_steps // runs
        ends = [
            simulate(
                jax.random.key(1), A, start, 2e-4 * start, steps=steps, time_step=TIME_STEP,
                noise=NOISE, record_every=steps,
            )
            for A in matrices
        ]  # fmt: skip
        jax.block_until_ready(ends)

    return block, {"threads": paired.os.cpu_count()}


def probability_block() -> Block:
    """Covariance and probabilities of a symmetric network."""
    import jax

    from synscale_jax.pruning import clustered_network, keep_probability, stationary_covariance

    A = clustered_network(jax.random.key(0), (1000, 200, 800))

    def block(times: int) -> None:
        for _ in range(times):
            C = stationary_covariance(A, structure="symmetric")
            keep_probability(A, C, 0.2).block_until_ready()

    return block, {}


def covariance_block() -> Block:
    """Covariance of a directed network of 1000."""
    import jax

    from synscale_jax.pruning import clustered_network, stationary_covariance

    A = clustered_network(jax.random.key(0), (500, 100, 400), long_range=1250, directed=True)

    def block(times: int) -> None:
        for _ in range(times):
            stationary_covariance(A).block_until_ready()

    return block, {}


def ours(dtype: str, runs: int) -> paired.Peer:
    """Our side."""
    double = {"JAX_ENABLE_X64": "1"} if dtype == "float64" else {}
    name = f"ours, {runs} × {dtype}"
    return paired.Peer(name, our_block, {"dtype": dtype, "runs": runs}, double)


def turn(runs: int, steps: int, *, numpy: bool) -> int:
    """A turn's steps of a run: about a second's worth."""
    return steps * (runs // 2 if runs > 1 else 1) if numpy else steps * max(runs, 5)


def best_numpy(dtype: str, runs: int, steps: int, tried: dict[str, float]) -> paired.Peer:
    """NumPy's side with as many threads as suit it."""
    peers = {}
    for threads in (1, 2):
        limit = {"OPENBLAS_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
        arguments = {"dtype": dtype, "runs": runs, "threads": threads}
        peer = paired.Peer(f"NumPy, {runs} × {dtype}", numpy_block, arguments, limit)
        with paired.Worker(peer, turn(runs, steps, numpy=True)) as worker:
            milliseconds = min(worker.turn() for _ in range(2))
        tried[f"{runs} × {dtype}, {threads} threads"] = milliseconds
        peers[milliseconds] = peer
    return peers[min(peers)]


COMPARISONS = (  # ours, NumPy, target
    (("float32", BATCH), ("float64", 1), 0.1),
    (("float32", BATCH), ("float32", BATCH), 1 / 1.5),
    (("float64", BATCH), ("float64", BATCH), 1 / 1.5),
    (("float32", 1), ("float32", 1), 1.0),
    (("float64", 1), ("float64", 1), 1.0),
)
FIGURES = (
    ("probabilities, symmetric, n = 2000", probability_block, 2.0),
    ("covariance, directed, n = 1000", covariance_block, 5.0),
)


def measure(options: Any) -> None:
    """All comparisons, then the figures with limits."""
    tried: dict[str, float] = {}
    numpy_peers = {
        theirs: best_numpy(*theirs, options.steps, tried)
        for theirs in dict.fromkeys(theirs for _, theirs, _ in COMPARISONS)
    }
    rows = []
    for mine, theirs, target in COMPARISONS:
        a, b = ours(*mine), numpy_peers[theirs]
        longer = turn(mine[1], options.steps, numpy=False)
        shorter = turn(theirs[1], options.steps, numpy=True)
        with paired.Worker(a, longer) as x, paired.Worker(b, shorter) as y:
            label = f"a run's step, {a.name} / {b.name}"
            rows.append(paired.compare(x, y, options.pairs, target=target, label=label))
    for name, make, limit in FIGURES:
        for dtype in ("float32", "float64"):
            double = {"JAX_ENABLE_X64": "1"} if dtype == "float64" else {}
            with paired.Worker(paired.Peer(name, make, {}, double), 1) as worker:
                seconds = [worker.turn() / 1e3 for _ in range(5)]
            rows.append({
                "label": f"{name}, {dtype}", "value": paired.median(seconds), "unit": "s",
                "target": limit, "detail": "compiled", "times": len(seconds),
            })  # fmt: skip
            print(rows[-1])
    command = "python benchmarks/noise_prune.py"
    paired.write("noise_prune", options, rows, command=command, numpy_milliseconds=tried)


def put_on_page() -> None:
    """Rewrite the table between the markers of the page."""
    path = paired.RESULTS / "noise_prune.json"
    result = json.loads(path.read_text())
    tried = "; ".join(
        f"{name} {ms * STEPS / 1e3:.1f} s" for name, ms in result["numpy_milliseconds"].items()
    )
    seconds = "; ".join(
        f"{side['name']} {side['ms'] * STEPS / 1e3:.1f} s"
        for side in {
            side["name"]: side for row in result["rows"] for side in row.get("peers", [])
        }.values()
    )
    table = (
        f"{render.render(result)}\n\nSeconds for a run of {NETWORKS} × {STEPS} steps, from the "
        f"milliseconds a step: {seconds}. NumPy by threads, two turns each: {tried}."
    )
    begin, end = "<!-- table: noise_prune -->", "<!-- end: noise_prune -->"
    pattern = re.escape(begin) + ".*?" + re.escape(end)
    block = f"{begin}\n{table}\n{end}"
    PAGE.write_text(re.sub(pattern, lambda _: block, PAGE.read_text(), flags=re.DOTALL))


def main() -> None:
    """Measure and write, or only render."""
    parser = paired.arguments(__doc__, steps=400)
    parser.add_argument("--render", action="store_true", help="measure nothing")
    if parser.parse_args().render:
        put_on_page()
        return
    measure(paired.begin(parser))


if __name__ == "__main__":
    main()
