"""Residual networks, for small images and for ImageNet."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from synscale_jax.kernels.convolution import conv_general_dilated
from synscale_jax.models._batch_norm import BatchNorm
from synscale_jax.models._dropout import check_dropout, drop
from synscale_jax.regularizers.bottleneck import Bottleneck, bottleneck_layers
from synscale_jax.scaling._layers import Layer

Stem = Literal["imagenet", "cifar"]
Shortcut = Literal["projection", "zero_pad"]

_kaiming_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def _conv(features: int, size: int, stride: int, **kwargs) -> nn.Conv:
    # Explicit padding: SAME would pad a stride of 2 on one side only, PyTorch pads both.
    pad = (size - 1) // 2
    return nn.Conv(
        features,
        kernel_size=(size, size),
        strides=(stride, stride),
        padding=((pad, pad), (pad, pad)),
        use_bias=False,
        kernel_init=_kaiming_normal,
        conv_general_dilated=conv_general_dilated,
        **kwargs,
    )


def _norm(train: bool, **kwargs) -> BatchNorm:
    return BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, **kwargs)


class _Convolution(NamedTuple):
    features: int
    size: int
    stride: int


def _convolutions(features: int, stride: int, bottleneck: bool) -> tuple[_Convolution, ...]:
    """Lists a block's convolutions; a bottleneck strides in its 3×3 (version 1.5)."""
    if bottleneck:
        return (
            _Convolution(features, 1, 1),
            _Convolution(features, 3, stride),
            _Convolution(4 * features, 1, 1),
        )
    return _Convolution(features, 3, stride), _Convolution(features, 3, 1)


class _Block(nn.Module):
    """ReLU(residual branch + shortcut)."""

    features: int
    stride: int
    bottleneck: bool
    shortcut: Literal["identity"] | Shortcut
    dtype: DTypeLike
    param_dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        conv = partial(_conv, dtype=self.dtype, param_dtype=self.param_dtype)
        norm = partial(_norm, train, dtype=self.dtype, param_dtype=self.param_dtype)
        convolutions = _convolutions(self.features, self.stride, self.bottleneck)
        out = convolutions[-1].features

        y = x
        for i, convolution in enumerate(convolutions, start=1):
            y = conv(*convolution, name=f"conv{i}")(y)
            y = norm(name=f"norm{i}")(y)
            if i < len(convolutions):
                y = nn.relu(y)

        if self.shortcut == "projection":
            x = conv(out, 1, self.stride, name="conv_shortcut")(x)
            x = norm(name="norm_shortcut")(x)
        elif self.shortcut == "zero_pad":
            before = (out - x.shape[-1]) // 2
            after = out - x.shape[-1] - before
            x = x[:, :: self.stride, :: self.stride]
            x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (before, after)))
        return nn.relu(y + x)


class _BlockPlan(NamedTuple):
    name: str
    features: int
    stride: int
    shortcut: Literal["identity"] | Shortcut


class ResNet(nn.Module):
    r"""A residual network with batch norm.

    A stem, stages of blocks, the mean over positions and a linear head. A block is

    .. math::
        y = \mathrm{ReLU}(F(x) + S(x))

    with :math:`F` two 3×3 convolutions, or 1×1, 3×3, 1×1 where ``bottleneck``, each with a batch
    norm behind it and ReLU between them, and :math:`S` the identity, or ``shortcut`` where the
    shape changes. Each stage after the first halves the image and doubles the channels.
    Convolutions have no bias, are padded by (k − 1)/2 on every side as in PyTorch, and start
    Kaiming normal (fan out); the head starts LeCun normal with bias zero.

    The modules are called ``conv_stem``, ``norm_stem``, ``stage1_block0`` … with ``conv1``,
    ``norm1``, ``conv2``, ``norm2`` (``conv3``, ``norm3``), ``conv_shortcut``, ``norm_shortcut``,
    and ``head``. Images are channels last and may be of any size and number of channels.

    Args:
      stage_sizes: blocks in each stage.
      num_classes: number of logits.
      width: channels of the stem and of the first stage (a quarter of its output where
        ``bottleneck``).
      bottleneck: whether blocks are bottlenecks, which put out four times their width.
      stem: ``"imagenet"``, a 7×7 convolution and a 3×3 max-pool, both of stride 2, or
        ``"cifar"``, one 3×3 convolution.
      shortcut: where the shape changes, ``"projection"``, a strided 1×1 convolution with its
        batch norm, or ``"zero_pad"``, every second pixel with zero channels added on both sides.
      dtype: dtype of the computation; batch statistics are always taken in float32.
      param_dtype: dtype of the parameters.
      dropout: rates at which pixels and the blocks' outputs are dropped in training, or None. A
        batch norm behind it sees another variance in training than in evaluation.
      information_bottleneck: units and samples of a :class:`synscale_jax.regularizers.Bottleneck`
        in place of the head, or None.

    Raises:
      ValueError: if ``stem`` or ``shortcut`` is none of the names above, or a rate is outside
        [0, 1).

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from synscale_jax.models import ResNet
      >>> model = ResNet(stage_sizes=(1,), num_classes=10, width=4, stem="cifar")
      >>> images = jnp.zeros((2, 8, 8, 3))
      >>> variables = model.init(jax.random.key(0), images, train=False)
      >>> logits, updated = model.apply(variables, images, train=True, mutable=["batch_stats"])
      >>> logits.shape
      (2, 10)
      >>> [layer.name for layer in model.layer_table()][:2]
      ['conv_stem', 'stage1_block0/conv1']

    References:
      He et al., `Deep Residual Learning for Image Recognition
      <https://arxiv.org/abs/1512.03385>`_, 2015.
    """

    stage_sizes: Sequence[int]
    num_classes: int
    width: int = 64
    bottleneck: bool = False
    stem: Stem = "imagenet"
    shortcut: Shortcut = "projection"
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32
    # None where not used: what is None is no part of a run's identity.
    dropout: tuple[float, float] | None = None
    information_bottleneck: tuple[int, int] | None = None

    def __post_init__(self):
        check_dropout(self.dropout)
        for name, names in (("stem", get_args(Stem)), ("shortcut", get_args(Shortcut))):
            value = getattr(self, name)
            if value not in names:
                raise ValueError(f"{name} must be one of {', '.join(names)}, got {value!r}.")
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], *, train: bool
    ) -> Float[Array, "batch classes"]:
        """Computes the logits of a batch.

        Args:
          x: images, ``(batch, height, width, channels)``.
          train: whether batch norms use the batch's statistics and update the running ones,
            which then needs ``mutable=["batch_stats"]`` in ``apply``.

        Returns:
          Logits, ``(batch, num_classes)``, in ``dtype``.
        """
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        size, stride = (7, 2) if self.stem == "imagenet" else (3, 1)
        drop_input, drop_hidden = self.dropout or (0.0, 0.0)
        x = drop(x, drop_input, train)
        x = _conv(self.width, size, stride, name="conv_stem", **dtypes)(x)
        x = nn.relu(_norm(train, name="norm_stem", **dtypes)(x))
        if self.stem == "imagenet":
            padding: Any = ((1, 1), (1, 1))  # flax annotates strings only
            x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=padding)
        for plan in self._plan():
            x = _Block(
                plan.features,
                plan.stride,
                self.bottleneck,
                plan.shortcut,
                name=plan.name,
                **dtypes,
            )(x, train=train)
            x = drop(x, drop_hidden, train)
        x = jnp.mean(x, axis=(1, 2))
        if self.information_bottleneck is not None:
            units, samples = self.information_bottleneck
            head = Bottleneck(units, self.num_classes, samples, name="head", **dtypes)
            return head(x, train=train)
        head_init = nn.initializers.lecun_normal()
        return nn.Dense(self.num_classes, kernel_init=head_init, name="head", **dtypes)(x)

    def layer_table(self) -> tuple[Layer, ...]:
        """Lists the scaled layers in call order.

        A convolution is paired with the batch norm that consumes it, and its φ is ReLU. So it is
        for a block's last convolution and for shortcuts too, whose activity is read before the
        residual sum, and for the head, to which the paper's authors apply ReLU as well.

        Returns:
          One :class:`Layer` a kernel; the head is marked as output.
        """

        def normed(*path: str) -> Layer:
            norm = (*path[:-1], path[-1].replace("conv", "norm"))
            return Layer(path, bias=None, norm=norm)

        table = [normed("conv_stem")]
        for plan in self._plan():
            count = len(_convolutions(plan.features, plan.stride, self.bottleneck))
            table += [normed(plan.name, f"conv{i}") for i in range(1, count + 1)]
            if plan.shortcut == "projection":
                table.append(normed(plan.name, "conv_shortcut"))
        if self.information_bottleneck is not None:
            return (*table, *bottleneck_layers(("head",), "relu"))
        return (*table, Layer(("head",), output=True))

    def _plan(self) -> list[_BlockPlan]:
        blocks, channels = [], self.width
        for stage, size in enumerate(self.stage_sizes, start=1):
            features = self.width * 2 ** (stage - 1)
            for block in range(size):
                stride = 2 if stage > 1 and block == 0 else 1
                out = _convolutions(features, stride, self.bottleneck)[-1].features
                same = stride == 1 and out == channels
                shortcut = "identity" if same else self.shortcut
                blocks.append(_BlockPlan(f"stage{stage}_block{block}", features, stride, shortcut))
                channels = out
        return blocks


def cifar_resnet(
    depth: int,
    num_classes: int,
    shortcut: Shortcut = "projection",
    width: int = 16,
    *,
    dtype: DTypeLike = jnp.float32,
    param_dtype: DTypeLike = jnp.float32,
) -> ResNet:
    """Builds the ResNet for small images: three stages, of 16, 32 and 64 channels.

    Depth counts layers: 6n + 2 with n basic blocks a stage, so ResNet32 has five.

    Args:
      depth: 8, 14, 20, 26, 32, 44, 56, 110 or another 6n + 2.
      num_classes: number of logits.
      shortcut: ``"projection"``, or ``"zero_pad"`` as in section 4.2 of He et al.
      width: channels of the first stage.
      dtype: dtype of the computation.
      param_dtype: dtype of the parameters.

    Returns:
      A :class:`ResNet` for images of shape ``(batch, height, width, channels)``.

    Raises:
      ValueError: if ``depth`` is not 6n + 2.

    Examples:
      >>> from synscale_jax.models import cifar_resnet
      >>> cifar_resnet(32, num_classes=10).stage_sizes
      (5, 5, 5)

    References:
      He et al., `Deep Residual Learning for Image Recognition
      <https://arxiv.org/abs/1512.03385>`_, 2015, section 4.2.
    """
    if depth < 8 or depth % 6 != 2:
        raise ValueError(
            "depth of a CIFAR ResNet must be 6n + 2 "
            f"(8, 14, 20, 26, 32, 44, 56, 110, …), got {depth}."
        )
    return ResNet(
        stage_sizes=((depth - 2) // 6,) * 3,
        num_classes=num_classes,
        width=width,
        stem="cifar",
        shortcut=shortcut,
        dtype=dtype,
        param_dtype=param_dtype,
    )


def resnet34(
    num_classes: int,
    stem: Stem = "imagenet",
    *,
    dtype: DTypeLike = jnp.float32,
    param_dtype: DTypeLike = jnp.float32,
) -> ResNet:
    """Builds ResNet-34: 3, 4, 6 and 3 basic blocks of 64, 128, 256 and 512 channels.

    Args:
      num_classes: number of logits.
      stem: ``"imagenet"`` or ``"cifar"``; see :class:`ResNet`.
      dtype: dtype of the computation.
      param_dtype: dtype of the parameters.

    Returns:
      A :class:`ResNet` for images of shape ``(batch, height, width, channels)``.

    Examples:
      >>> from synscale_jax.models import resnet34
      >>> len(resnet34(num_classes=10).layer_table())  # 33 convolutions, 3 shortcuts, the head
      37

    References:
      He et al., `Deep Residual Learning for Image Recognition
      <https://arxiv.org/abs/1512.03385>`_, 2015, table 1.
    """
    return ResNet((3, 4, 6, 3), num_classes, stem=stem, dtype=dtype, param_dtype=param_dtype)


def resnet50(
    num_classes: int,
    stem: Stem = "imagenet",
    *,
    dtype: DTypeLike = jnp.float32,
    param_dtype: DTypeLike = jnp.float32,
) -> ResNet:
    """Builds ResNet-50 v1.5: 3, 4, 6 and 3 bottlenecks that put out 256 to 2048 channels.

    Version 1.5 strides in a bottleneck's 3×3 convolution, He et al. in its first 1×1.

    Args:
      num_classes: number of logits.
      stem: ``"imagenet"`` or ``"cifar"``; see :class:`ResNet`.
      dtype: dtype of the computation.
      param_dtype: dtype of the parameters.

    Returns:
      A :class:`ResNet` for images of shape ``(batch, height, width, channels)``.

    Examples:
      >>> from synscale_jax.models import resnet50
      >>> len(resnet50(num_classes=1000).layer_table())  # 49 convolutions, 4 shortcuts, the head
      54

    References:
      He et al., `Deep Residual Learning for Image Recognition
      <https://arxiv.org/abs/1512.03385>`_, 2015, table 1.
    """
    return ResNet(
        (3, 4, 6, 3), num_classes, bottleneck=True, stem=stem, dtype=dtype, param_dtype=param_dtype
    )
