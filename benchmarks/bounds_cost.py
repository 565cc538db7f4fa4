"""What bottlenecks that bound information add to a training step.

    python benchmarks/bounds_cost.py
    python benchmarks/bounds_cost.py --only MLP

N = 256, 12 samples, batch 100. Each row is the program with its bottlenecks against the program
without: one beside the head of the MLP on ten classes, three on ResNet32 with a hundred.
"""

from __future__ import annotations

from typing import Any

import ours
import paired

# label: (network, classes, places, mode, target, most steps in a turn)
ROWS: dict[str, tuple[str, int, tuple[str, ...], str, float, int]] = {
    "MLP, joint": ("mlp784", 10, ("head",), "joint", 1.6, 200),
    "MLP, probe": ("mlp784", 10, ("head",), "probe", 1.6, 200),
    "ResNet32, three probes": (
        "resnet32",
        100,
        ("stage2_block0", "stage3_block0", "head"),
        "probe",
        1.25,
        8,
    ),
}


def main() -> None:
    """Measure and write."""
    parser = paired.arguments(__doc__, steps=100, pairs=15)
    parser.add_argument("--only", default="", help="rows whose label holds this text")
    options = paired.begin(parser)
    results = []
    for label, (network, classes, places, mode, target, most) in ROWS.items():
        if options.only not in label:
            continue
        steps = min(options.steps, most)
        common: dict[str, Any] = {"network": network, "classes": classes, "steps": steps}
        bounds = {"places": places, "strength": 1e-3, "mode": mode}
        with_bounds = paired.Peer("with bounds", ours.train_block, {**common, "bounds": bounds})
        without = paired.Peer("without", ours.train_block, common)
        with paired.Worker(with_bounds, steps) as a, paired.Worker(without, steps) as b:
            results.append(paired.compare(a, b, options.pairs, target=target, label=label))
    paired.write("bounds_cost", options, results, command="python benchmarks/bounds_cost.py")


if __name__ == "__main__":
    main()
