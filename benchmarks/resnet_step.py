"""A training step and an evaluation of ResNet32 (CIFAR, batch 100, Adam) against PyTorch.

    python benchmarks/resnet_step.py                     # both convolution paths that there are
    python benchmarks/resnet_step.py --paths canonical   # pure JAX alone

Every PyTorch variant is tried first; ours is then paired with the fastest.
"""

from __future__ import annotations

import itertools
import statistics

import ours
import paired

PATHS = {"canonical": {"SYNSCALE_ONEDNN": "0"}, "native": {}}
TARGETS = {"canonical": 3.0, "native": None}
LAYOUTS = ("contiguous", "channels_last")


def torch_block(**arguments: object):
    """PyTorch's training peer, imported in its worker only."""
    import torch_peer

    return torch_peer.train_block(**arguments)  # type: ignore[arg-type]


def torch_evaluation(**arguments: object):
    """PyTorch's evaluating peer."""
    import torch_peer

    return torch_peer.evaluation_block(**arguments)  # type: ignore[arg-type]


def fastest(peers: list[paired.Peer], steps: int, turns: int) -> tuple[paired.Peer, dict]:
    """The peer whose median turn is the shortest, and all medians in ms; by turns, too."""
    workers = [paired.Worker(peer, steps) for peer in peers]
    times = [[worker.turn() for worker in workers] for _ in range(turns)]
    for worker in workers:
        worker.close()
    medians = [statistics.median(column) for column in zip(*times, strict=True)]
    for peer, median in zip(peers, medians, strict=True):
        print(f"{peer.name}: {median:.1f} ms", flush=True)
    best = min(range(len(peers)), key=medians.__getitem__)
    return peers[best], {p.name: m for p, m in zip(peers, medians, strict=True)}


def pair(mine: paired.Peer, best: paired.Peer, label: str, target: float | None, options) -> dict:
    """Ours against PyTorch's best."""
    with paired.Worker(mine, options.steps) as a, paired.Worker(best, options.steps) as b:
        return paired.compare(a, b, options.pairs, target=target, label=label)


def main() -> None:
    """Measure and write."""
    parser = paired.arguments(__doc__, steps=6)
    parser.add_argument("--paths", nargs="+", choices=PATHS, default=list(PATHS))
    options = paired.begin(parser)
    turns = 2 if options.quick else 5
    trained = [
        paired.Peer(
            f"PyTorch {adam}, {layout}",
            torch_block,
            {"network": "resnet32", "adam": adam, "layout": layout},
        )
        for adam, layout in itertools.product(("default", "foreach", "fused"), LAYOUTS)
    ]
    evaluated = [
        paired.Peer(
            f"PyTorch {layout}", torch_evaluation, {"network": "resnet32", "layout": layout}
        )
        for layout in LAYOUTS
    ]
    best, tried = fastest(trained, options.steps, turns)
    best_evaluation, tried_evaluation = fastest(evaluated, 1, turns)
    rows = []
    for path in options.paths:
        train = {"network": "resnet32", "steps": options.steps}
        mine = paired.Peer(f"ours, {path}", ours.train_block, train, PATHS[path])
        label = f"ResNet32 step, ours ({path}) / PyTorch's best"
        rows.append(pair(mine, best, label, TARGETS[path], options))
        mine = paired.Peer(
            f"ours, {path}", ours.evaluation_block, {"network": "resnet32"}, PATHS[path]
        )
        label = f"ResNet32 evaluation of 1000 images, ours ({path}) / PyTorch's best"
        rows.append(pair(mine, best_evaluation, label, None, options))
    command = "python benchmarks/resnet_step.py"
    paired.write("resnet_step", options, rows, command=command, tried=[tried, tried_evaluation])


if __name__ == "__main__":
    main()
