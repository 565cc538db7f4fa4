"""The divergence of ten million weights from their log-normal: count, fit and compare.

python benchmarks/divergence.py
"""

from __future__ import annotations

from typing import Any

import paired

WEIGHTS = 10_000_000


def weights_block() -> tuple[Any, dict[str, Any]]:
    """Fits of kernels with ten million weights together, as a network's are stored."""
    import jax

    from synscale_jax.analysis.lognormal import fit, merge, tally

    keys = jax.random.split(jax.random.key(0), 10)
    kernels = [0.05 * jax.random.normal(key, (1000, WEIGHTS // 10_000)) for key in keys]
    jax.block_until_ready(kernels)

    def run(count: int) -> None:
        for _ in range(count):
            fit(merge(*(tally(kernel) for kernel in kernels)))

    return run, {"threads": paired.os.cpu_count(), "os_threads": paired.os_threads()}


def main() -> None:
    """Measure and write."""
    options = paired.begin(paired.arguments(__doc__, steps=1, pairs=9))
    with paired.Worker(paired.Peer("fit", weights_block, {}), 1) as worker:
        seconds = [worker.turn() / 1e3 for _ in range(options.pairs)]
    row = {
        "label": "divergence of 10⁷ weights from the log-normal",
        "value": paired.median(seconds),
        "unit": "s",
        "target": 2,
        "times": len(seconds),
        "detail": "median; ten kernels, counted, fitted and compared",
    }
    print(row)
    paired.write("divergence", options, [row], command="python benchmarks/divergence.py")


if __name__ == "__main__":
    main()
