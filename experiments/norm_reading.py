"""Where is the activity of a normalised layer read? What the three readings do to a ResNet.

The paper does not say whether SynScaW reads a convolution before or behind its batch norm. This
trains a ResNet8 on CIFAR-100 for 100 steps with each reading and prints mean |ẑ| over all
convolutions after 25 and after 100 steps: a reading whose gap is near zero does nothing, one whose
gap grows pulls without reaching its target.

    python experiments/norm_reading.py        # about a minute on 2 cores

Outcome (seed 0, γ 0.01): results/norm_reading/.
"""

import dataclasses
import pathlib

import jax
import numpy as np
import optax
import tyro

from synscale_jax.data import DataNotAvailable, load_images
from synscale_jax.models import cifar_resnet
from synscale_jax.training import methods
from synscale_jax.training.config import TrainConfig
from synscale_jax.training.program import Program
from synscale_jax.training.provenance import provenance

READINGS = ("pre_norm", "batch_norm", "running_norm")
CONFIG = TrainConfig(train_examples=5000, test_examples=1000, chunk_steps=25)
RESULT = pathlib.Path(__file__).parent.parent / "results" / "norm_reading" / "README.md"


def train(method: methods.Method) -> dict:
    """Train 100 steps and say what came of it."""
    model = cifar_resnet(8, 100)
    program = Program(model, method, CONFIG, load_images("cifar100"))
    key = jax.random.key(0)
    state, gaps, losses = program.init(key), [], []
    for _ in range(4):
        state, metrics = program.chunk(state, key, CONFIG.chunk_steps)
        losses.append(float(metrics.loss.mean()))
        named = optax.tree.get(state.opt_state, "mean_gap", {})
        gaps.append([float(gap) for name, gap in named.items() if name != "head"])
    largest = max(float(abs(leaf).max()) for leaf in jax.tree.leaves(state.params))
    return {"gaps": [np.mean(gap) if gap else None for gap in gaps], "loss": losses[-1],
            "largest weight": largest}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config:
    """Train the baseline and each reading, then write and print the table."""

    output: pathlib.Path = RESULT
    """File of the table."""


def main(config: Config) -> None:
    """Train, write and print."""
    runs = {"baseline": train(methods.baseline())}
    runs |= {name: train(methods.synscaw(0.01, norm_reading=name)) for name in READINGS}
    rows = [
        "| reading | mean abs(ẑ), step 25 | step 100 | training loss, steps 76–100 | max abs(w) |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, run in runs.items():
        gaps = ["" if run["gaps"][i] is None else f"{run['gaps'][i]:.3f}" for i in (0, -1)]
        rows.append(f"| {name} | {gaps[0]} | {gaps[1]} | {run['loss']:.3f} | "
                    f"{run['largest weight']:.2f} |")  # fmt: skip
    origin = provenance()
    text = (
        "# Where the activity of normalised layers is read\n\nResNet8, CIFAR-100, 100 steps, seed "
        "0, γ 0.01, each neuron's norm restored; mean abs(ẑ) over the convolutions.\n\n"
        + "\n".join(rows)
        + f"\n\njax {origin['versions']['jax']}, {origin['cpu']}, commit {origin['commit']}: "
        "`python experiments/norm_reading.py`\n"
    )
    config.output.parent.mkdir(parents=True, exist_ok=True)
    config.output.write_text(text)
    print(text)


if __name__ == "__main__":
    try:
        main(tyro.cli(Config))
    except DataNotAvailable as error:
        raise SystemExit(f"error: {error}") from None
