"""PyTorch's side of the comparisons, eager, written as PyTorch's own documentation does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import paired
import torch  # pyright: ignore[reportMissingImports]
from ours import EXAMPLES, pixels
from torch import nn  # pyright: ignore[reportMissingImports]

ADAMS: dict[str, dict[str, Any]] = {
    "default": {},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
}


def mlp() -> nn.Module:
    """3072-1024-1024-10."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(3072, 1024),
        nn.ReLU(),
        nn.Linear(1024, 1024),
        nn.ReLU(),
        nn.Linear(1024, 10),
    )


class Block(nn.Module):
    """Two 3×3 convolutions and a shortcut."""

    def __init__(self, channels: int, features: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, features, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(features)
        self.conv2 = nn.Conv2d(features, features, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(features)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = nn.Identity()
        if stride != 1 or channels != features:
            projection = nn.Conv2d(channels, features, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """ReLU(residual branch + shortcut)."""
        y = self.relu(self.norm1(self.conv1(x)))
        return self.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


def resnet(stem: list[nn.Module], stages: tuple[int, ...], width: int) -> nn.Module:
    """Stages of basic blocks; each after the first halves the image and doubles the channels."""
    layers, channels = [*stem, nn.BatchNorm2d(width), nn.ReLU(inplace=True)], width
    if len(stages) == 4:
        layers.append(nn.MaxPool2d(3, 2, 1))
    for stage, blocks in enumerate(stages):
        features = width * 2**stage
        for block in range(blocks):
            layers.append(Block(channels, features, 2 if stage and not block else 1))
            channels = features
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def resnet32() -> nn.Module:
    """Three stages of five blocks, of 16, 32 and 64 channels, as ours."""
    return resnet([nn.Conv2d(3, 16, 3, 1, 1, bias=False)], (5, 5, 5), 16)


def resnet34() -> nn.Module:
    """ResNet-34 with ImageNet's stem, as ours and as torchvision's."""
    return resnet([nn.Conv2d(3, 64, 7, 2, 3, bias=False)], (3, 4, 6, 3), 64)


NETWORKS = {"mlp3072": mlp, "resnet32": resnet32, "resnet34": resnet34}


def _network(network: str, layout: str) -> tuple[nn.Module, torch.memory_format]:
    torch.manual_seed(0)
    formats = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
    module = NETWORKS[network]()
    return module.to(memory_format=formats[layout]), formats[layout]  # type: ignore[call-overload]


def train_block(
    network: str, adam: str = "default", layout: str = "contiguous"
) -> tuple[Callable[[int], object], dict[str, Any]]:
    """Blocks of training steps on shuffled uint8 images, as ours; metrics are left out."""
    module, memory = _network(network, layout)
    optimizer = torch.optim.Adam(module.parameters(), lr=5e-4, **ADAMS[adam])
    images, labels = (torch.from_numpy(array) for array in pixels((3, 32, 32), EXAMPLES, 10))
    labels = labels.long()
    loss_fn = nn.CrossEntropyLoss()

    def run(count: int) -> None:
        order = torch.randperm(EXAMPLES)
        for step in range(count):
            batch = order[100 * step : 100 * step + 100]
            x = (images[batch].float() / 255).contiguous(memory_format=memory)
            optimizer.zero_grad(set_to_none=True)
            loss_fn(module(x), labels[batch]).backward()
            optimizer.step()

    return run, _about()


def evaluation_block(
    network: str, layout: str = "contiguous"
) -> tuple[Callable[[int], object], dict[str, Any]]:
    """Evaluations of 1000 images, in batches of 500."""
    module, memory = _network(network, layout)
    module.eval()
    images, labels = (torch.from_numpy(array) for array in pixels((3, 32, 32), 1000, 10))
    labels = labels.long()

    @torch.inference_mode()
    def run(count: int) -> None:
        for _ in range(count):
            for start in range(0, 1000, 500):
                x = images[start : start + 500].float() / 255
                logits = module(x.contiguous(memory_format=memory))
                truth = labels[start : start + 500]
                nn.functional.cross_entropy(logits, truth, reduction="none")
                logits.argmax(-1).eq(truth)

    return run, _about()


def _about() -> dict[str, Any]:
    return {"threads": torch.get_num_threads(), "os_threads": paired.os_threads()}
