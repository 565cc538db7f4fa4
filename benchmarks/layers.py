"""Each distinct convolution of ResNet32 and its two gradients: lax, canonical, oneDNN, PyTorch.

    python benchmarks/layers.py

Ours runs inside a compiled loop, as in training; PyTorch channels-last, eagerly. All sides take
turns over the whole list; a time is the median of its turns.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import paired

BATCH, SHORTEST = 100, 0.03  # seconds that a turn of one layer should last at least


class Case(NamedTuple):
    """One layer (square, 32-bit, batch 100) and what is computed."""

    size: int
    channels: int
    features: int
    kernel: int
    stride: int
    result: str  # "forward", "input gradient" or "weight gradient"

    @property
    def label(self) -> str:
        """For the table."""
        form = f"{self.kernel} × {self.kernel}, {self.size} px, {self.channels} → {self.features}"
        return form + (f", stride {self.stride}" if self.stride > 1 else "")


LAYERS = (
    (32, 3, 16, 3, 1),
    (32, 16, 16, 3, 1),
    (32, 16, 32, 3, 2),
    (32, 16, 32, 1, 2),
    (16, 32, 32, 3, 1),
    (16, 32, 64, 3, 2),
    (16, 32, 64, 1, 2),
    (8, 64, 64, 3, 1),
)
RESULTS = ("forward", "input gradient", "weight gradient")
# Nobody needs the gradient of pixels.
CASES = [
    Case(*each, result)
    for each in LAYERS
    for result in RESULTS
    if each[1] > 3 or result != RESULTS[1]
]


def repeated(run: Callable[[int], object]) -> tuple[Callable[[int], object], int]:
    """Repetitions that last long enough, and the function bound to them."""
    run(1)
    begin = time.perf_counter()
    run(1)
    count = max(1, int(SHORTEST / (time.perf_counter() - begin)))
    return lambda _: run(count), count


def serve(cases: list[Callable[[int], object]], about: dict[str, Any]):
    """A peer whose turn of ``n`` steps runs case ``n - 1``: see :func:`milliseconds`."""
    runs, counts = zip(*map(repeated, cases), strict=True)
    return lambda number: runs[number - 1](1), {**about, "repetitions": counts}


def milliseconds(worker: paired.Worker, number: int) -> float:
    """One run of a case, by one turn."""
    worker.steps = number
    return worker.turn() * number / worker.about["repetitions"][number - 1]


def our_peer(plain_lax: bool):
    """Ours: every case a compiled loop of so many runs."""
    import jax
    import ours
    from jax import lax
    from jax import numpy as jnp

    from synscale_jax.kernels import conv_general_dilated

    convolve = lax.conv_general_dilated if plain_lax else conv_general_dilated

    def compiled(case: Case) -> Callable[[int], object]:
        pad = (case.kernel - 1) // 2

        def conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
            strides, pads = (case.stride,) * 2, ((pad, pad),) * 2
            return convolve(x, kernel, strides, pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))

        x = jnp.ones((BATCH, case.size, case.size, case.channels))
        kernel = jnp.ones((case.kernel, case.kernel, case.channels, case.features))
        y = conv(x, kernel)
        once: Callable[..., jax.Array] = {
            "forward": conv,
            "input gradient": lambda y, k: jax.linear_transpose(lambda x: conv(x, k), x)(y)[0],
            "weight gradient": lambda x, y: jax.linear_transpose(lambda k: conv(x, k), kernel)(y)[
                0
            ],
        }[case.result]
        operands = {"forward": (x, kernel), "input gradient": (y, kernel)}.get(case.result, (x, y))

        @jax.jit
        def loop(count, a, b):
            def body(_, carry):
                # One number changes, so that no run can be skipped; the array stays where it is.
                a, out = carry
                a = a.at[0, 0, 0, 0].add(1e-9 * out[0, 0, 0, 0])
                return a, once(a, b)

            return lax.fori_loop(0, count, body, (a, jnp.zeros_like(once(a, b))))[1]

        return lambda count: jax.block_until_ready(loop(count, *operands))

    return serve([compiled(case) for case in CASES], ours.about(plain_lax))


def torch_peer():
    """PyTorch's, channels last."""
    import os

    import torch  # pyright: ignore[reportMissingImports]

    def eager(case: Case) -> Callable[[int], object]:
        pad, stride = (case.kernel - 1) // 2, [case.stride] * 2
        last: Any = {"memory_format": torch.channels_last}
        x = torch.ones(BATCH, case.channels, case.size, case.size).contiguous(**last)
        kernel = torch.ones(case.features, case.channels, case.kernel, case.kernel)
        kernel = kernel.contiguous(**last)
        y = torch.nn.functional.conv2d(x, kernel, None, case.stride, pad)
        wanted = [case.result == "input gradient", case.result == "weight gradient", False]

        @torch.no_grad()
        def run(count: int) -> None:
            for _ in range(count):
                if case.result == "forward":
                    torch.nn.functional.conv2d(x, kernel, None, case.stride, pad)
                else:
                    torch.ops.aten.convolution_backward(
                        y, x, kernel, [0], stride, [pad] * 2, [1, 1], False, [0, 0], 1, wanted
                    )

        return run

    about = {"threads": torch.get_num_threads(), "os_threads": len(os.listdir("/proc/self/task"))}
    return serve([eager(case) for case in CASES], about)


PEERS = {
    "lax": paired.Peer("lax", our_peer, {"plain_lax": True}, {"SYNSCALE_ONEDNN": "0"}),
    "canonical": paired.Peer("canonical", our_peer, {"plain_lax": False}, {"SYNSCALE_ONEDNN": "0"}),
    "oneDNN": paired.Peer("oneDNN", our_peer, {"plain_lax": False}),
    "PyTorch": paired.Peer("PyTorch", torch_peer),
}


def main() -> None:
    """Measure and write."""
    options = paired.begin(paired.arguments(__doc__, steps=1, pairs=9))
    workers = {name: paired.Worker(peer, 1) for name, peer in PEERS.items()}
    turns: dict[str, list[list[float]]] = {name: [[] for _ in CASES] for name in PEERS}
    for turn in range(options.pairs):
        for number in range(1, len(CASES) + 1):
            for name, worker in workers.items():
                if name != "lax" or turn < 2:  # some take half a second
                    turns[name][number - 1].append(milliseconds(worker, number))
    rows = []
    for index, case in enumerate(CASES):
        times = {name: statistics.median(each[index]) for name, each in turns.items()}
        rows.append({"label": case.label, "result": case.result, "milliseconds": times})
        print(case.label, case.result, {name: round(ms, 2) for name, ms in times.items()})
    for worker in workers.values():
        worker.close()
    paired.write("layers", options, rows, command="python benchmarks/layers.py")


if __name__ == "__main__":
    main()
