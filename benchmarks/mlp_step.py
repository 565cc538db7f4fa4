"""A training step of an MLP (3072-1024-1024-10, batch 100, Adam) against PyTorch.

    python benchmarks/mlp_step.py

Ours is the trainer's compiled chunk, metrics included; PyTorch's is eager, with its default, its
foreach and its fused Adam. Both shuffle, gather and scale uint8 images in the step.
"""

from __future__ import annotations

import ours
import paired

TARGETS = {"default": 0.75, "foreach": None, "fused": 1.0}


def torch_block(**arguments: object):
    """PyTorch's peer, imported in its worker only."""
    import torch_peer

    return torch_peer.train_block(**arguments)  # type: ignore[arg-type]


def main() -> None:
    """Measure and write."""
    options = paired.begin(paired.arguments(__doc__, steps=100))
    mine = paired.Peer("ours", ours.train_block, {"network": "mlp3072", "steps": options.steps})
    rows = []
    with paired.Worker(mine, options.steps) as a:
        for adam, target in TARGETS.items():
            peer = paired.Peer(f"PyTorch {adam}", torch_block, {"network": "mlp3072", "adam": adam})
            with paired.Worker(peer, options.steps) as b:
                label = f"MLP step, ours / PyTorch {adam} Adam"
                rows.append(paired.compare(a, b, options.pairs, target=target, label=label))
    paired.write("mlp_step", options, rows, command="python benchmarks/mlp_step.py")


if __name__ == "__main__":
    main()
