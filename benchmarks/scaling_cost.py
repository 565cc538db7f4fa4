"""What SynScaW, SynScaL and the confidence penalty add to a training step of an MLP.

    python benchmarks/scaling_cost.py
    python benchmarks/scaling_cost.py --networks mlp784 --only "closed form,"

Each row is a program with the method against the same program without. The first row pairs the
baseline with itself: what it is off by, the others may be, too. Some rows have a file of their own.
"""

from __future__ import annotations

import re
from typing import Any

import ours
import paired

NETWORKS = ("mlp784", "mlp3072")
SOMETIMES = 1.05  # the target of every reading that scales every tenth step or less

PLAIN = {"restore_norm": False, "scale_output": True}

# name: (arguments, target when scaling after every step); the first is the default.
READINGS: dict[str, tuple[dict[str, Any], float | None]] = {
    "closed form, norm restored (default)": ({}, 1.25),
    "closed form": (PLAIN, 1.25),
    "closed form, per layer": ({**PLAIN, "granularity": "layer"}, 1.25),
    "sampled": ({**PLAIN, "target": "layer_noise_sampled"}, None),
    "uniform": ({**PLAIN, "target": "uniform"}, 1.05),
    "constant 0.1": ({**PLAIN, "target": 0.1}, 1.05),
    "constant 0.1, norm restored": ({"target": 0.1}, 1.05),
    "constant 0.1, measured on noise": ({**PLAIN, "target": 0.1, "measured_on": "noise"}, None),
}


def rows_of(network: str) -> list[tuple[str, str, dict[str, Any], float | None]]:
    """Label, method, its arguments and target of every row."""
    rows: list[tuple[str, str, dict[str, Any], float | None]] = [
        (f"{network}: baseline again", "baseline", {}, None)
    ]
    for name, (arguments, target) in READINGS.items():
        for every_k in (1, 10):
            when = "every step" if every_k == 1 else f"every {every_k} steps"
            rows.append(
                (
                    f"{network}: SynScaW, {name}, {when}",
                    "synscaw",
                    {**arguments, "every_k": every_k},
                    target if every_k == 1 else SOMETIMES,
                )
            )
    rows.append((f"{network}: SynScaL, per example", "synscal", {}, 1.02))
    rows.append((f"{network}: confidence penalty", "confidence_penalty", {}, 1.02))
    return rows


def main() -> None:
    """Measure and write."""
    parser = paired.arguments(__doc__, steps=100, pairs=15)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--only", default="", help="rows whose label holds this text")
    options = paired.begin(parser)
    results = []
    for network in options.networks:
        common = {"network": network, "steps": options.steps}
        baseline = paired.Peer("baseline", ours.train_block, common)
        with paired.Worker(baseline, options.steps) as b:
            for label, method, arguments, target in rows_of(network):
                if options.only not in label:
                    continue
                keywords = {**common, "method_name": method, **arguments}
                peer = paired.Peer(method, ours.train_block, keywords)
                with paired.Worker(peer, options.steps) as a:
                    row = paired.compare(a, b, options.pairs, target=target, label=label)
                    results.append(row)
    name, command = "scaling_cost", "python benchmarks/scaling_cost.py"
    if options.only or options.networks != list(NETWORKS):
        parts = [*options.networks, *re.findall(r"\w+", options.only)]
        name = "_".join([name, *parts])
        command += f" --networks {' '.join(options.networks)}"
        command += f' --only "{options.only}"' if options.only else ""
    paired.write(name, options, results, command=command)


if __name__ == "__main__":
    main()
