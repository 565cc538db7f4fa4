"""A training step and an evaluation of a ResNet (batch 100, Adam) against PyTorch.

    python benchmarks/resnet_step.py                     # ResNet32 with oneDNN
    python benchmarks/resnet_step.py --path canonical    # in pure JAX
    python benchmarks/resnet_step.py --path lax          # in pure JAX with lax's own gradients
    python benchmarks/resnet_step.py --network resnet34  # with ImageNet's stem

Every PyTorch variant is tried first; ours is then paired with the fastest.
"""

from __future__ import annotations

import itertools
import statistics

import ours
import paired

# Environment, whether the models take lax's own gradients, most steps in a turn and most pairs:
# those gradients are fifty times slower inside a loop.
PATHS: dict[str, tuple[dict[str, str], bool, int, int]] = {
    "lax": ({"SYNSCALE_ONEDNN": "0"}, True, 1, 2),
    "canonical": ({"SYNSCALE_ONEDNN": "0"}, False, 4, 50),
    "native": ({}, False, 50, 50),
}
TARGETS = {
    ("resnet32", "canonical"): 3.0,
    ("resnet32", "native"): 1.0,
    ("resnet34", "native"): 1.2,
}
EVALUATION_TARGETS = {("resnet32", "native"): 1.0}
NAMES = {"resnet32": "ResNet32", "resnet34": "ResNet34"}
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


def pair(
    mine: paired.Peer, best: paired.Peer, steps: int, pairs: int, label: str, target: float | None
) -> dict:
    """Ours against PyTorch's best."""
    with paired.Worker(mine, steps) as a, paired.Worker(best, steps) as b:
        return paired.compare(a, b, pairs, target=target, label=label)


def rows_of(path: str, network: str, best: dict[str, paired.Peer], options) -> list[dict]:
    """The step and the evaluation with one way to run convolutions."""
    environment, plain_lax, most_steps, most_pairs = PATHS[path]
    steps, pairs = min(options.steps, most_steps), min(options.pairs, most_pairs)
    common = {"network": network, "plain_lax": plain_lax}
    step = paired.Peer(f"ours, {path}", ours.train_block, {**common, "steps": steps}, environment)
    evaluation = paired.Peer(f"ours, {path}", ours.evaluation_block, common, environment)
    name = NAMES[network]
    label = f"{name} step, ours ({path}) / PyTorch's best"
    rows = [pair(step, best["step"], steps, pairs, label, TARGETS.get((network, path)))]
    label = f"{name} evaluation of 1000 images, ours ({path}) / PyTorch's best"
    target = EVALUATION_TARGETS.get((network, path))
    return [*rows, pair(evaluation, best["evaluation"], 1, pairs, label, target)]


def main() -> None:
    """Measure and write."""
    parser = paired.arguments(__doc__, steps=10)
    parser.add_argument("--path", choices=PATHS, default="native")
    parser.add_argument("--network", choices=NAMES, default="resnet32")
    options = paired.begin(parser)
    turns, network = 3, options.network
    trained = [
        paired.Peer(
            f"PyTorch {adam}, {layout}",
            torch_block,
            {"network": network, "adam": adam, "layout": layout},
        )
        for adam, layout in itertools.product(("default", "foreach", "fused"), LAYOUTS)
    ]
    evaluated = [
        paired.Peer(f"PyTorch {layout}", torch_evaluation, {"network": network, "layout": layout})
        for layout in LAYOUTS
    ]
    step, tried = fastest(trained, min(options.steps, 4), turns)
    evaluation, tried_evaluation = fastest(evaluated, 1, turns)
    best = {"step": step, "evaluation": evaluation}
    rows = rows_of(options.path, network, best, options)
    command = f"python benchmarks/resnet_step.py --network {network} --path {options.path}"
    name = f"{network}_{options.path}"
    paired.write(name, options, rows, command=command, tried=[tried, tried_evaluation])


if __name__ == "__main__":
    main()
