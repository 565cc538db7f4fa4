"""Our side of the comparisons: blocks of steps of a compiled chunk, on synthetic images."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import paired

EXAMPLES = 50_000  # as CIFAR has, so that batches are gathered from as much memory


def pixels(shape: tuple[int, int, int], examples: int, classes: int) -> tuple[Any, Any]:
    """Random images and labels, the same for all peers."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (examples, *shape), dtype=np.uint8)
    return images, rng.integers(0, classes, examples).astype(np.int32)


def image_set(shape: tuple[int, int, int], classes: int, test: int = 1000) -> Any:
    """The same as an image set."""
    from synscale_jax.data.images import ImageSet, Split

    train = Split(*pixels(shape, EXAMPLES, classes))
    names = tuple(str(label) for label in range(classes))
    return ImageSet("synthetic", train, Split(*pixels(shape, test, classes)), names, "synthetic")


def model(name: str, classes: int = 10) -> tuple[Any, tuple[int, int, int]]:
    """A model by name, and the shape of its images."""
    from synscale_jax.models import MLP, cifar_resnet, resnet34

    if name.startswith("resnet"):
        net = cifar_resnet(32, classes) if name == "resnet32" else resnet34(classes)
        return net, (32, 32, 3)
    shape = {"mlp784": (28, 28, 1), "mlp3072": (32, 32, 3)}[name]
    return MLP((1024, 1024), classes), shape


def method(name: str, arguments: dict[str, Any], bounds: dict[str, Any] | None = None) -> Any:
    """A method of the trainer by name, with bottlenecks attached if their settings are given."""
    from synscale_jax.training import methods
    from synscale_jax.training.bounds import with_bounds

    plain = getattr(methods, name)(**arguments)
    return with_bounds(plain, **bounds) if bounds else plain


def use_plain_lax() -> None:
    """Give the models flax's own convolution: that of lax, with lax's gradients."""
    from synscale_jax.models import resnet

    resnet.conv_general_dilated = None  # pyright: ignore[reportAttributeAccessIssue]


def train_block(
    network: str,
    steps: int,
    method_name: str = "baseline",
    plain_lax: bool = False,
    classes: int = 10,
    bounds: dict[str, Any] | None = None,
    **arguments: Any,
) -> tuple[Callable[[int], object], dict[str, Any]]:
    """Blocks of training steps, one compiled call each, always from the same state.

    Always from the same, since what diverges would time the arithmetic of NaN.
    """
    import jax

    from synscale_jax.training.config import TrainConfig
    from synscale_jax.training.program import Program

    if plain_lax:
        use_plain_lax()
    net, shape = model(network, classes)
    config = TrainConfig(batch=100, chunk_steps=steps)
    used = method(method_name, arguments, bounds)
    program = Program(net, used, config, image_set(shape, classes))
    key = jax.random.key(0)
    state = program.init(key)

    def run(count: int) -> None:
        jax.block_until_ready(program.chunk(state, key, count))

    return run, about(plain_lax)


def evaluation_block(
    network: str, plain_lax: bool = False
) -> tuple[Callable[[int], object], dict[str, Any]]:
    """Evaluations of 1000 images, in batches of 500."""
    import jax

    from synscale_jax.training.config import TrainConfig
    from synscale_jax.training.program import Program

    if plain_lax:
        use_plain_lax()
    net, shape = model(network)
    config = TrainConfig(batch=100, eval_batch=500)
    program = Program(net, method("baseline", {}), config, image_set(shape, 10))
    state = program.init(jax.random.key(0))

    def run(count: int) -> None:
        for _ in range(count):
            program.evaluate(state, program.splits.test)

    return run, about(plain_lax)


def about(plain_lax: bool = False) -> dict[str, Any]:
    """How this side runs."""
    from synscale_jax.kernels import convolution_path

    return {
        "threads": os.cpu_count(),  # XLA takes all there are
        "os_threads": paired.os_threads(),
        "convolution": "lax" if plain_lax else convolution_path(),
    }
