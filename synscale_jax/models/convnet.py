"""Small networks for MNIST and CIFAR-10: linear chains, light CNNs, Hebbian stacks, readouts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import numpy as np
from flax import linen as nn
from jax import Array

from synscale_jax.kernels.convolution import conv_general_dilated
from synscale_jax.models.feedback_alignment import FeedbackDense
from synscale_jax.scaling._activations import activation_function
from synscale_jax.scaling._layers import Layer

UnitBias = Literal["none", "linear", "relu"]
HeadKind = Literal["backprop", "alignment"]

fan_in_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""U(±1/√inputs), PyTorch's default for kernels; biases are drawn alike."""


def max_pool(x: Array, size: int = 2) -> Array:
    """The largest value of each window of size × size; what does not fill one is dropped.

    By reshaping: on the CPU its gradient takes a sixth of the time of ``nn.max_pool``'s. Where a
    window has several largest values the gradient is shared among them.

    Args:
      x: (batch, height, width, channels).
      size: rows and columns of a window, and what it moves on.

    Returns:
      (batch, height // size, width // size, channels).

    Examples:
      >>> import jax.numpy as jnp
      >>> from synscale_jax.models.convnet import max_pool
      >>> max_pool(jnp.arange(10.0).reshape(1, 2, 5, 1)).ravel().tolist()
      [6.0, 8.0]
    """
    n, height, width, channels = x.shape
    rows, columns = height // size, width // size
    x = x[:, : rows * size, : columns * size]
    return x.reshape(n, rows, size, columns, size, channels).max((2, 4))


def _bias_uniform(inputs: int) -> nn.initializers.Initializer:
    bound = 1 / np.sqrt(inputs)
    return lambda key, shape, dtype=np.float32: jax.random.uniform(key, shape, dtype, -bound, bound)


def _dense(x: Array, features: int, name: str, use_bias: bool = True) -> Array:
    layer = nn.Dense(
        features,
        use_bias,
        kernel_init=fan_in_uniform,
        bias_init=_bias_uniform(x.shape[-1]),
        name=name,
    )
    return layer(x)


def _known(name: str, value: Any, choices: Any) -> None:
    if value not in get_args(choices):
        raise ValueError(f"{name}={value!r} is unknown: use one of {', '.join(get_args(choices))}.")


class Block(NamedTuple):
    """One convolution of a :class:`LightCNN`."""

    features: int
    size: int
    stride: int
    padding: int


def _convolution(x: Array, block: Block, name: str, pool: int = 2) -> Array:
    """A convolution whose result is pooled next."""
    if x.ndim != 4:
        raise ValueError(
            f"{name} takes images (batch, height, width, channels), got shape {x.shape}: reshape "
            "them."
        )
    sides = [(side + 2 * block.padding - block.size) // block.stride + 1 for side in x.shape[1:3]]
    if min(sides) < pool:
        raise ValueError(
            f"images are too small for {name}: of {x.shape[1]} × {x.shape[2]} its convolution of "
            f"{block.size} × {block.size} leaves nothing to pool; use larger images or fewer "
            "blocks."
        )
    layer = nn.Conv(
        block.features,
        (block.size, block.size),
        (block.stride, block.stride),
        padding=((block.padding, block.padding),) * 2,
        kernel_init=fan_in_uniform,
        bias_init=_bias_uniform(x.shape[-1] * block.size**2),
        conv_general_dilated=conv_general_dilated,
        name=name,
    )
    return layer(x)


class FCN(nn.Module):
    """Dense layers in a chain, as published without any activation between them.

    Args:
      features: widths of the hidden layers.
      num_classes: number of logits.
      activation: φ, a name in :data:`synscale_jax.scaling.ACTIVATIONS`.

    Raises:
      ValueError: for an unknown activation.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from synscale_jax.models.convnet import FCN
      >>> variables = FCN((8, 8), 10).init(jax.random.key(0), jnp.ones((1, 28, 28, 1)))
      >>> sum(leaf.size for leaf in jax.tree.leaves(variables))
      6442
    """

    features: Sequence[int]
    num_classes: int
    activation: str = "identity"

    def __post_init__(self) -> None:
        activation_function(self.activation)  # refuses unknown names
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        """``(batch, ...) -> (batch, num_classes)``; ``train`` has no effect."""
        del train
        phi = activation_function(self.activation)
        x = x.reshape(x.shape[0], -1)
        for index, width in enumerate(self.features):
            x = phi(_dense(x, width, f"dense{index}"))
        return _dense(x, self.num_classes, "head")

    def layer_table(self) -> tuple[Layer, ...]:
        """The scaled layers in call order; the last one is the output."""
        paths = [*(f"dense{index}" for index in range(len(self.features))), "head"]
        return _table(paths, self.activation)


class LightCNN(nn.Module):
    """Convolution, ReLU and 2×2 max pooling for each block, then a linear head.

    Args:
      blocks: (features, size, stride, padding) of each convolution.
      num_classes: number of logits.

    Raises:
      ValueError: when called on images of which a block leaves nothing.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from synscale_jax.models.convnet import CNN, CNN2, LightCNN
      >>> for blocks in (CNN, CNN2):
      ...     variables = LightCNN(blocks, 10).init(jax.random.key(0), jnp.ones((1, 28, 28, 1)))
      ...     print(sum(leaf.size for leaf in jax.tree.leaves(variables)))
      28938
      4010
    """

    blocks: Sequence[Block]
    num_classes: int

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        """``(batch, height, width, channels) -> (batch, num_classes)``; no effect of ``train``."""
        del train
        for index, block in enumerate(self.blocks):
            x = max_pool(nn.relu(_convolution(x, Block(*block), f"conv{index}")))
        return _dense(x.reshape(x.shape[0], -1), self.num_classes, "head")

    def layer_table(self) -> tuple[Layer, ...]:
        """The scaled layers in call order; the last one is the output."""
        return _table([*(f"conv{index}" for index in range(len(self.blocks))), "head"])


CNN = (Block(16, 5, 1, 2), Block(32, 5, 1, 2))
"""The larger of the published light CNNs, 28 938 parameters on MNIST and 34 538 on CIFAR-10."""

CNN2 = (Block(8, 3, 2, 1),)
"""The smaller one, 4010 and 5354 parameters."""


class DropoutCNN(nn.Module):
    """Two convolutions and two dense layers with dropout, the dense ones as asked.

    Convolution, pooling, ReLU; convolution, dropout of channels, pooling, ReLU; dense 50, ReLU,
    dropout; dense.

    Args:
      blocks: the two convolutions.
      num_classes: number of logits.
      feedback: ``"alignment"`` for dense layers with feedback alignment.
      head_bias: what biases of feedback-alignment layers start from; published: one.

    Raises:
      ValueError: if ``feedback`` is unknown; when called on images that are too small.
    """

    blocks: Sequence[Block]
    num_classes: int
    feedback: HeadKind = "backprop"
    head_bias: float = 0.0

    def __post_init__(self) -> None:
        _known("feedback", self.feedback, HeadKind)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        """``(batch, height, width, channels) -> (batch, num_classes)``."""
        first, second = (Block(*block) for block in self.blocks)
        x = nn.relu(max_pool(_convolution(x, first, "conv0")))
        x = _convolution(x, second, "conv1")
        x = nn.Dropout(0.5, broadcast_dims=(1, 2), deterministic=not train)(x)
        x = nn.relu(max_pool(x))
        x = nn.relu(self._head(x.reshape(x.shape[0], -1), 50, "dense0"))
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return self._head(x, self.num_classes, "head")

    def _head(self, x: Array, features: int, name: str) -> Array:
        if self.feedback == "backprop":
            return _dense(x, features, name)
        bias = nn.initializers.constant(self.head_bias)
        return FeedbackDense(features, bias_init=bias, name=name)(x)

    def layer_table(self) -> tuple[Layer, ...]:
        """The scaled layers in call order; the last one is the output."""
        return _table(["conv0", "conv1", "dense0", "head"])


SIMPLE = (Block(10, 5, 1, 0), Block(20, 5, 1, 0))
"""The published hybrid's convolutions on MNIST, 21 840 parameters with the dense layers."""

SIMPLE_CIFAR = (Block(16, 5, 1, 2), Block(32, 5, 1, 2))
"""The same on CIFAR-10."""


class HebbNet(nn.Module):
    """Dense layers for local rules, ReLU and without bias, then a readout for the gradient.

    No gradient enters the layers ``hebb0``, ``hebb1`` and on: give their rules to
    :func:`synscale_jax.plasticity.local_learning`.

    Args:
      features: widths of the local layers.
      readout: widths of the readout's hidden layers.
      num_classes: number of logits.
      activation: φ of the readout's hidden layers; published: none.
      deviation: of the local layers' initial weights, drawn normal.

    Raises:
      ValueError: for an unknown activation.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from synscale_jax.models.convnet import HebbNet
      >>> model = HebbNet((6,), (5,), 3)
      >>> variables = model.init(jax.random.key(0), jnp.ones((2, 4)))
      >>> sorted(variables["params"])
      ['head', 'hebb0', 'readout0']
    """

    features: Sequence[int]
    readout: Sequence[int]
    num_classes: int
    activation: str = "identity"
    deviation: float = 0.01

    def __post_init__(self) -> None:
        activation_function(self.activation)  # refuses unknown names
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        """``(batch, ...) -> (batch, num_classes)``; ``train`` has no effect."""
        del train
        phi = activation_function(self.activation)
        x = x.reshape(x.shape[0], -1)
        start = nn.initializers.normal(self.deviation)
        for index, width in enumerate(self.features):
            x = nn.relu(nn.Dense(width, False, kernel_init=start, name=f"hebb{index}")(x))
            x = jax.lax.stop_gradient(x)
        for index, width in enumerate(self.readout):
            x = phi(_dense(x, width, f"readout{index}"))
        return _dense(x, self.num_classes, "head")

    def layer_table(self) -> tuple[Layer, ...]:
        """The layers in call order; the last one is the output."""
        local = tuple(Layer((f"hebb{i}",), bias=None) for i in range(len(self.features)))
        paths = [*(f"readout{index}" for index in range(len(self.readout))), "head"]
        return local + _table(paths, self.activation)


class Readout(nn.Module):
    """A classifier on top of the drive or response of fixed units.

    Args:
      num_classes: number of outputs.
      features: widths of hidden layers (ReLU); the last one is followed by dropout of a half.
      unit_bias: whether the units get a trained bias and ReLU first.
      feedback: ``"alignment"`` for dense layers with feedback alignment.
      use_bias: whether the dense layers have a bias.
      bias: what biases of feedback-alignment layers start from; published: one.

    Raises:
      ValueError: if ``unit_bias`` or ``feedback`` is unknown.
    """

    num_classes: int
    features: Sequence[int] = ()
    unit_bias: UnitBias = "none"
    feedback: HeadKind = "backprop"
    use_bias: bool = True
    bias: float = 0.0

    def __post_init__(self) -> None:
        _known("unit_bias", self.unit_bias, UnitBias)
        _known("feedback", self.feedback, HeadKind)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        """``(batch, units) -> (batch, num_classes)``."""
        if self.unit_bias != "none":
            x = x + self.param("unit_bias", nn.initializers.zeros_init(), x.shape[-1:])[None, :]
            x = nn.relu(x) if self.unit_bias == "relu" else x
        for index, width in enumerate(self.features):
            x = nn.relu(self._layer(x, width, f"dense{index}"))
        if self.features:
            x = nn.Dropout(0.5, deterministic=not train)(x)
        return self._layer(x, self.num_classes, "head")

    def _layer(self, x: Array, features: int, name: str) -> Array:
        if self.feedback == "backprop":
            return _dense(x, features, name, self.use_bias)
        bias = nn.initializers.constant(self.bias)
        return FeedbackDense(features, self.use_bias, bias_init=bias, name=name)(x)

    def layer_table(self) -> tuple[Layer, ...]:
        """The scaled layers in call order; the last one is the output."""
        paths = [*(f"dense{index}" for index in range(len(self.features))), "head"]
        return tuple(
            layer._replace(bias="bias" if self.use_bias else None) for layer in _table(paths)
        )


def _table(paths: Sequence[str], activation: str = "relu") -> tuple[Layer, ...]:
    *hidden, head = paths
    return (
        *(Layer((path,), activation=activation) for path in hidden),
        Layer((head,), activation=activation, output=True),
    )
