"""The paper's frequency decomposition network for EEG."""

from __future__ import annotations

from functools import partial

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Float

from synscale_jax.kernels.convolution import conv_general_dilated
from synscale_jax.models._batch_norm import BatchNorm
from synscale_jax.models._dropout import check_dropout, drop
from synscale_jax.models.convnet import max_pool
from synscale_jax.scaling._layers import Layer

DILATIONS = 128
LENGTH = 128  # of each dilated convolution's output
CHANNELS = 3
STRIDE = 3  # reads 510 of a window's 512 samples


class _Dilated(nn.Module):
    """128 convolutions of kernel 2 side by side, dilations 1 to 128, each read alike long."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """(batch, samples) -> (batch, dilations, length, channels)."""
        shape = (2, DILATIONS, CHANNELS)  # two taps in, three channels out, for each dilation
        kernel = self.param("kernel", nn.initializers.normal(0.5**0.5), shape)
        bias = self.param("bias", nn.initializers.zeros, (DILATIONS, CHANNELS))
        start = STRIDE * jnp.arange(LENGTH)
        later = start[None] + jnp.arange(1, DILATIONS + 1)[:, None]
        late = x[:, later]  # (batch, dilations, length)
        return (
            x[:, None, start, None] * kernel[0][None, :, None]
            + late[..., None] * kernel[1][None, :, None]
            + bias[None, :, None]
        )


class FrequencyDecompositionNetwork(nn.Module):
    """Dilated convolutions that decompose a signal, then two-dimensional feature extraction.

    The signal enters 128 convolutions of kernel 2 at once, with dilations 1 to 128 and three output
    channels each. Their outputs, cut to one length, are a 128 × 128 map with three channels. On it
    come four stacks of two 3 × 3 convolutions, each followed by 2 × 2 max-pooling, and one linear
    classifier. Every output but the last is batch normalized and Leaky-ReLU activated.

    The paper gives 1.9 million parameters and no widths. Ours are 40, 80, 160 and 320 channels and
    a stride of 3 in the dilated convolutions, which reads nearly the whole window: 1 937 043
    parameters for five classes.

    Args:
      num_classes: number of logits.
      widths: channels of the four stacks.
      dropout: rates at which samples and the stacks' outputs are dropped in training, or None. It
        needs ``rngs={"dropout": key}``.

    Raises:
      ValueError: if a signal has fewer than 510 samples, or a rate is outside [0, 1).

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from synscale_jax.models import FrequencyDecompositionNetwork
      >>> model = FrequencyDecompositionNetwork(5)
      >>> shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 512)))
      >>> sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
      1937043
    """

    num_classes: int
    widths: tuple[int, int, int, int] = (40, 80, 160, 320)
    # None where not used: what is None is no part of a run's identity.
    dropout: tuple[float, float] | None = None

    def __post_init__(self):
        check_dropout(self.dropout)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch samples ..."], *, train: bool = False
    ) -> Float[Array, "batch classes"]:
        """Computes the logits of a batch of windows, ``(batch, 512)``."""
        x = x.reshape(x.shape[0], -1)
        needed = STRIDE * (LENGTH - 1) + DILATIONS + 1
        if x.shape[1] < needed:
            raise ValueError(f"{x.shape[1]} samples are too few: give {needed} or more, e.g. 512.")
        drop_input, drop_hidden = self.dropout or (0.0, 0.0)
        x = drop(x, drop_input, train)
        norm = partial(BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5)
        x = nn.leaky_relu(norm(name="dilated_norm")(_Dilated(name="dilated")(x)))
        for stack, width in enumerate(self.widths):
            for index in range(2):
                name = f"conv{stack}_{index}"
                x = nn.Conv(width, (3, 3), name=name, conv_general_dilated=conv_general_dilated)(x)
                x = nn.leaky_relu(norm(name=f"{name}_norm")(x))
            x = drop(max_pool(x), drop_hidden, train)
        return nn.Dense(self.num_classes, name="head")(x.reshape(x.shape[0], -1))

    def layer_table(self) -> tuple[Layer, ...]:
        """Lists the scaled layers: the 3 × 3 convolutions with their norms, and the head.

        The dilated convolutions, whose kernels have two synapses, are left out.
        """
        names = [f"conv{stack}_{index}" for stack in range(len(self.widths)) for index in range(2)]
        convolutions = tuple(
            Layer((name,), norm=(f"{name}_norm",), activation="leaky_relu") for name in names
        )
        return (*convolutions, Layer(("head",), activation="leaky_relu", output=True))
