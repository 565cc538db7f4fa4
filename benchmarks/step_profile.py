"""Where the time of a compiled ResNet training step goes, by JAX's own profiler.

python benchmarks/step_profile.py
"""

from __future__ import annotations

import collections
import pathlib
import re
import tempfile
from typing import Any

import ours
import paired

NETWORKS = {"resnet32": "ResNet32", "resnet34": "ResNet34"}

# What an operation's names say it is, first match; the rest is "all else".
KINDS = {
    "convolutions by oneDNN": r"ffi_call",
    "products with matrices (tiny images, head)": r"dot_general|_matrix|conv\d/(concat|slice|pad)",
    "max-pooling": r"reduce_window|select_and|scatter",
    "norms: sums over the batch": r"norm\w*/.*reduce_sum",
    "norms, ReLU and residual sums, element by element": r"jvp\(ResNet\)",
    "shuffling the epoch's examples, once a chunk": r"shuffle|sort|random|iota|threefry",
    "Adam": r"while/body/(add|sub|mul|div|sqrt|pow|integer_pow|neg)",
}


def profile(network: str, steps: int) -> dict[str, Any]:
    """Milliseconds a step of every kind."""
    import jax
    from jax.profiler import ProfileData, ProfileOptions, trace

    from synscale_jax.training.config import TrainConfig
    from synscale_jax.training.program import Program

    net, shape = ours.model(network)
    config = TrainConfig(batch=100, chunk_steps=steps)
    program = Program(net, ours.method("baseline", {}), config, ours.image_set(shape, 10))
    key = jax.random.key(0)
    state = program.init(key)
    jax.block_until_ready(program.chunk(state, key, steps))
    compiled: Any = program._chunk
    names = operations(compiled.lower(state, key, steps, program.splits.train))
    options = ProfileOptions()
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as folder:
        with trace(folder, profiler_options=options):
            jax.block_until_ready(program.chunk(state, key, steps))
        (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
        data = ProfileData.from_file(str(path))
    total: dict[str, float] = collections.defaultdict(float)
    for plane in data.planes:
        for line in plane.lines:
            for event in line.events:
                if any(name == "hlo_op" for name, _ in event.stats) and not event.name.startswith(
                    "while"
                ):
                    total[kind(event.name, names)] += event.duration_ns / 1e6 / steps
    return dict(total)


def operations(lowered: Any) -> dict[str, str]:
    """What each instruction of the compiled program came from."""
    text = lowered.compile().as_text()
    return dict(re.findall(r'%([\w.\-]+) = .*op_name="([^"]*)"', text))


def kind(instruction: str, names: dict[str, str]) -> str:
    """The first kind that either of its names fits."""
    known = f"{names.get(instruction, '')} {instruction}"
    return next((name for name, says in KINDS.items() if re.search(says, known)), "all else")


def main() -> None:
    """Measure and write."""
    options = paired.begin(paired.arguments(__doc__, steps=10, pairs=9))
    rows = []
    for network, name in NETWORKS.items():
        found = profile(network, options.steps)
        for label in sorted(found, key=found.__getitem__, reverse=True):
            share = found[label] / sum(found.values())
            rows.append(
                {"label": label, "network": name, "profile_ms": found[label], "share": share}
            )
            print(f"{name}: {label}: {found[label]:.1f} ms, {share:.0%}")
    paired.write("step_profile", options, rows, command="python benchmarks/step_profile.py")


if __name__ == "__main__":
    main()
