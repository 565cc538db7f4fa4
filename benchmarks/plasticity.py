"""Local rules against PyTorch: an epoch's step of competing units, and thresholded Hebb.

    python benchmarks/plasticity.py            # about 8 minutes

Competing units: 2000 units, batches of 3584 of 784 inputs, of which 16 are an epoch of MNIST. The
peers are transcriptions of the published code: ranks by argsort, as it has them, and by topk.
Thresholded Hebb: 784 to 2000 units, batch 50; the peer takes ``kthvalue`` as the published code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import paired

UNITS, INPUTS, BATCH, SMALL_BATCH = 2000, 784, 3584, 50
Block = tuple[Callable[[int], object], dict[str, Any]]


def inputs(batch: int) -> np.ndarray:
    """Pixels in [0, 1], as sparse as MNIST's."""
    draw = np.random.default_rng(0)
    return (draw.random((batch, INPUTS)) * (draw.random((batch, INPUTS)) < 0.2)).astype(np.float32)


def our_units(rank: int) -> Block:
    """The library's rule, compiled, one step after the other."""
    import jax
    import jax.numpy as jnp

    from synscale_jax.plasticity import krotov_hopfield

    rule, x = krotov_hopfield(0.02, rank=rank), jnp.asarray(inputs(BATCH))
    weights = jax.random.uniform(jax.random.key(0), (INPUTS, UNITS))
    return _ours(rule, x, weights, lambda drive: None)


def our_hebb() -> Block:
    """Thresholded Hebb."""
    import jax
    import jax.numpy as jnp

    from synscale_jax.plasticity import thresholded_hebb

    rule, x = thresholded_hebb(1e-6, percentile=70), jnp.asarray(inputs(SMALL_BATCH))
    weights = 0.01 * jax.random.normal(jax.random.key(0), (INPUTS, UNITS))
    return _ours(rule, x, weights, jax.nn.relu)


def _ours(rule: Any, x: Any, weights: Any, respond: Callable[[Any], Any]) -> Block:
    import jax

    @jax.jit
    def step(weights: Any, state: Any) -> Any:
        return rule.update(weights, x, respond(x @ weights), state)

    carry = [weights, rule.init(weights)]

    def block(steps: int) -> None:
        for _ in range(steps):
            carry[:] = step(*carry)
        jax.block_until_ready(carry)

    return block, {"threads": paired.os.cpu_count()}


def torch_units(rank: int, ranks_by: str) -> Block:
    """The published update, p = 2."""
    import torch  # pyright: ignore[reportMissingImports]

    weights = torch.rand(UNITS, INPUTS)
    x = torch.from_numpy(inputs(BATCH)).T.contiguous()
    columns = torch.arange(BATCH)

    def step() -> None:
        nonlocal weights
        currents = (weights.sign() * weights.abs()) @ x
        if ranks_by == "argsort":
            order = torch.argsort(currents, dim=0)
            winner, other = order[-1], order[-rank]
        else:
            order = torch.topk(currents, rank, dim=0).indices
            winner, other = order[0], order[rank - 1]
        y = torch.zeros_like(currents)
        y[winner, columns] = 1.0
        y[other, columns] = -0.4
        pull = (y * currents).sum(1)
        change = y @ x.T - pull[:, None] * weights
        weights = weights + 0.02 * change / change.abs().max().clamp_min(1e-30)

    return _torch(step, torch)


def torch_hebb() -> Block:
    """The published update, its mean on the same scale."""
    import torch  # pyright: ignore[reportMissingImports]

    weights = 0.01 * torch.randn(INPUTS, UNITS)
    x = torch.from_numpy(inputs(SMALL_BATCH))
    total, count = torch.zeros(INPUTS, UNITS), 0
    rank = 1 + round(0.7 * (INPUTS * UNITS - 1))

    def step() -> None:
        nonlocal weights, total, count
        product = x.T @ torch.relu(x @ weights) / SMALL_BATCH
        change = 1e-6 * (product - total / max(count, 1))
        threshold = change.flatten().kthvalue(rank).values
        weights = weights + change * (change >= threshold)
        total, count = total + product, count + 1

    return _torch(step, torch)


def _torch(step: Callable[[], None], torch: Any) -> Block:
    def block(steps: int) -> None:
        with torch.no_grad():
            for _ in range(steps):
                step()

    return block, {"threads": torch.get_num_threads()}


def main() -> None:
    """Measure and write."""
    options = paired.begin(paired.arguments(__doc__, steps=10, pairs=9))
    rows = []
    for rank, targets in ((2, {"argsort": 1 / 4, "topk": 1 / 1.3}), (7, {"topk": 1 / 1.3})):
        ours = paired.Peer("ours", our_units, {"rank": rank})
        with paired.Worker(ours, options.steps) as a:
            for ranks_by, target in targets.items():
                name, how = f"PyTorch {ranks_by}", {"rank": rank, "ranks_by": ranks_by}
                with paired.Worker(paired.Peer(name, torch_units, how), options.steps) as b:
                    label = f"competing units, k = {rank}, ours / {name}"
                    rows.append(paired.compare(a, b, options.pairs, target=target, label=label))
    with (
        paired.Worker(paired.Peer("ours", our_hebb), 5 * options.steps) as a,
        paired.Worker(paired.Peer("PyTorch", torch_hebb), 5 * options.steps) as b,
    ):
        label = "thresholded Hebb, ours / PyTorch kthvalue"
        rows.append(paired.compare(a, b, options.pairs, target=None, label=label))
    paired.write("plasticity", options, rows, command="python benchmarks/plasticity.py")


if __name__ == "__main__":
    main()
