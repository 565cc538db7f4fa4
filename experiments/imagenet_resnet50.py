"""ResNet50 on ImageNet: baseline, SynScaW and SynScaL under identical seeds.

Reproduces the ImageNet × ResNet50 column of table I and figure 7 of Hofmann and Mäder, IEEE TNNLS
33(7), 2022: error 24.76 % (baseline), 24.01 % (SynScaW), 24.63 % (SynScaL), one run each. The
paper's protocol is He et al.'s: SGD, momentum 0.9, weight decay 1e-4, a learning rate of 0.1
divided by 10 where the error reaches a plateau, 600 000 iterations, augmented and normalised
images. Batch and plateau are ours, and a plateau is one of the training error, so that the test
set decides nothing.

    python experiments/imagenet_resnet50.py                  # ImageNet where TFDS keeps it
    python experiments/imagenet_resnet50.py --images FOLDER  # train/CLASS/*.jpg, val/CLASS/*.jpg
    python experiments/imagenet_resnet50.py --preset smoke --images FOLDER

No figure of ours stands beside them: 600 000 steps of 256 images want an accelerator. The smoke
preset takes six steps a method, minutes on 2 cores, and tells nothing but that all works; a folder
for it is e.g. Imagenette, ten classes of ImageNet. Give the same command again to go on after an
interruption.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Annotated, Any, Literal

import tyro

from synscale_jax.data import DataNotAvailable
from synscale_jax.data.imagenet import StreamedSet, open_folder, open_imagenet
from synscale_jax.models import resnet50
from synscale_jax.training.command_line import run_experiment
from synscale_jax.training.comparison import (
    refuse_unwritable,
    scaling_settings,
    train_methods,
    write_report,
)
from synscale_jax.training.published import NOT_SAID, Published
from synscale_jax.training.runs import RunError
from synscale_jax.training.settings import MethodsConfig
from synscale_jax.training.streaming import LEARNING_RATE, StreamConfig, StreamProgram

PUBLISHED = Published(
    "paper, table I, ImageNet × ResNet50, one run",
    {"baseline": 24.76, "synscaw": 24.01, "synscal": 24.63},
    {
        "network": "ResNet50",
        "data": "imagenet2012",
        "training images": 1_281_167,
        "test images": 50_000,
        "checkpoint chosen on": NOT_SAID,
        "steps": 600_000,
        "batch": NOT_SAID,
        "optimizer": "SGD, momentum 0.9, weight decay 0.0001",
        "learning rate": 0.1,
        "decay": "÷ 10 on plateaus of the error",
        "plateau": NOT_SAID,
        "augmentation": NOT_SAID,  # "including input augmentation", after He et al.
        "image": NOT_SAID,
        "SynScaW γ": 0.01,
        "SynScaW reading": NOT_SAID,
        "SynScaL γ": 1.0,
        "SynScaL reading": "per_example",
    },
)


@dataclasses.dataclass(frozen=True)
class Config(MethodsConfig):
    """Train ResNet50 on ImageNet with each method and compare them."""

    preset: Literal["smoke", "paper"] = "paper"
    """Defaults of all the rest: smoke (minutes, no result), paper (accelerator)."""
    images: pathlib.Path | None = None
    """A folder with train/CLASS/*.jpg and val/CLASS/*.jpg; None: ImageNet where TFDS keeps it."""
    train: Annotated[StreamConfig, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=StreamConfig
    )
    """How each network is trained."""


PRESETS = {
    "smoke": Config(
        preset="smoke",
        train=StreamConfig(
            steps=6,
            epoch_steps=3,
            batch=8,
            learning_rate=0.01,
            crop=64,
            test_examples=40,
            chunk_steps=3,
        ),
    ),
    "paper": Config(preset="paper"),
}


def main(config: Config) -> None:
    """Train, print the table, write the figure."""
    try:
        compare(config)
    except DataNotAvailable as error:
        raise RunError(str(error)) from error


def compare(config: Config) -> None:
    """Train every method and report them beside the paper."""
    experiment = f"imagenet_resnet50_{config.preset}"
    folder = config.output or pathlib.Path("runs") / experiment
    refuse_unwritable(folder)
    data = open_folder(config.images) if config.images else open_imagenet()
    model = resnet50(data.num_classes)
    results = train_methods(
        config,
        lambda method: StreamProgram(model, method, config.train, data),
        folder,
        LEARNING_RATE,
    )
    write_report(config, results, folder, experiment, data, published(data), settings(config, data))


def published(data: StreamedSet) -> Published:
    """The paper's protocol, and its figures where the images are ImageNet's."""
    if data.num_classes == 1000:
        return PUBLISHED
    return dataclasses.replace(PUBLISHED, source="nothing for these images", errors={})


def settings(config: Config, data: StreamedSet) -> dict[str, Any]:
    """Our settings under the names of the published protocol."""
    train = config.train
    return {
        "network": "ResNet50, version 1.5",
        "data": data.name,
        "training images": len(data.train),
        "test images": train.test_examples or len(data.test),
        "checkpoint chosen on": "test",
        "steps": train.steps,
        "batch": train.batch,
        "optimizer": f"SGD, momentum {train.momentum}, weight decay {train.weight_decay}",
        "learning rate": train.learning_rate,
        "decay": "÷ 10 on plateaus of the error",
        "plateau": f"{train.plateau_epochs} times {train.epoch_steps} steps without "
        f"{100 * train.plateau_threshold:g} % less training error",
        "augmentation": "random resized crops and flips",
        "image": f"{train.crop} × {train.crop}, one centre crop in tests",
        **scaling_settings(config),
    }


if __name__ == "__main__":
    run_experiment(main, Config, PRESETS)
