"""Models of the experiments, in flax.linen."""

from synscale_jax.models.convnet import FCN, HebbNet, LightCNN
from synscale_jax.models.feedback_alignment import (
    DirectFeedback,
    FeedbackConv,
    FeedbackDense,
    FeedbackMLP,
)
from synscale_jax.models.frequency_decomposition import FrequencyDecompositionNetwork
from synscale_jax.models.mlp import MLP
from synscale_jax.models.pretrained import from_pytorch
from synscale_jax.models.recurrent import RecurrentClassifier
from synscale_jax.models.resnet import ResNet, cifar_resnet, resnet34, resnet50

__all__ = [
    "FCN",
    "MLP",
    "DirectFeedback",
    "FeedbackConv",
    "FeedbackDense",
    "FeedbackMLP",
    "FrequencyDecompositionNetwork",
    "HebbNet",
    "LightCNN",
    "RecurrentClassifier",
    "ResNet",
    "cifar_resnet",
    "from_pytorch",
    "resnet34",
    "resnet50",
]
