"""Multilayer perceptrons."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from synscale_jax.models._dropout import check_dropout, drop
from synscale_jax.regularizers.bottleneck import Bottleneck, bottleneck_layers
from synscale_jax.scaling._activations import ACTIVATIONS, activation_function
from synscale_jax.scaling._layers import Layer


class MLP(nn.Module):
    r"""A multilayer perceptron: dense layers with one activation, then a linear head.

    With :math:`h_0` the flattened input and φ the activation,

    .. math::
        h_{i+1} = φ(W_i h_i + b_i), \qquad \text{logits} = W_{head} h_n + b_{head}

    The layers are called ``dense0``, ``dense1``, … and ``head``; with an information bottleneck
    ``head/encoder`` and ``head/decoder`` take the head's place.

    Args:
      features: widths of the hidden layers, first to last; empty for a linear classifier.
      num_classes: number of logits.
      activation: φ, a name in :data:`synscale_jax.scaling.ACTIVATIONS`.
      dtype: dtype of the computation.
      param_dtype: dtype of the parameters.
      kernel_init: initializer of every kernel; biases start at zero.
      dropout: rates at which inputs and hidden units are dropped in training, or None. It needs
        ``rngs={"dropout": key}``.
      information_bottleneck: units and samples of a :class:`synscale_jax.regularizers.Bottleneck`
        in place of the head, or None.

    Raises:
      ValueError: if ``activation`` is not one of these names, or a rate is outside [0, 1).

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from synscale_jax.models import MLP
      >>> model = MLP(features=(1024, 1024), num_classes=10)
      >>> images = jnp.zeros((2, 28, 28, 1))
      >>> variables = model.init(jax.random.key(0), images)
      >>> model.apply(variables, images).shape
      (2, 10)
      >>> [layer.name for layer in model.layer_table()]
      ['dense0', 'dense1', 'head']

    References:
      Hofmann and Mader, `Synaptic Scaling
      <https://doi.org/10.1109/TNNLS.2021.3050422>`_, 2022 (1024-1024 hidden units).
    """

    features: Sequence[int]
    num_classes: int
    activation: str = "relu"
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    # None where not used: what is None is no part of a run's identity.
    dropout: tuple[float, float] | None = None
    information_bottleneck: tuple[int, int] | None = None

    def __post_init__(self):
        if not isinstance(self.activation, str):
            raise ValueError(
                f"activation={self.activation!r} is no name, by which a run is known: use one of "
                f"{', '.join(ACTIVATIONS)}."
            )
        activation_function(self.activation)  # a wrong name is told at construction
        check_dropout(self.dropout)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch ..."], *, train: bool = False
    ) -> Float[Array, "batch classes"]:
        """Computes the logits of a batch.

        Args:
          x: inputs, ``(batch, ...)``; everything behind the batch axis is flattened, in C order.
          train: whether to drop units and to draw the bottleneck's samples; without either it
            has no effect.

        Returns:
          Logits, ``(batch, num_classes)``, in ``dtype``.
        """
        phi = activation_function(self.activation)
        drop_input, drop_hidden = self.dropout or (0.0, 0.0)
        x = drop(x.reshape(x.shape[0], -1), drop_input, train)
        for i, width in enumerate(self.features):
            x = drop(phi(self._dense(width, name=f"dense{i}")(x)), drop_hidden, train)
        if self.information_bottleneck is None:
            return self._dense(self.num_classes, name="head")(x)
        units, samples = self.information_bottleneck
        return Bottleneck(
            units,
            self.num_classes,
            samples,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            kernel_init=self.kernel_init,
            name="head",
        )(x, train=train)

    def _dense(self, width: int, name: str) -> nn.Dense:
        return nn.Dense(
            width,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            kernel_init=self.kernel_init,
            name=name,
        )

    def layer_table(self) -> tuple[Layer, ...]:
        """Lists the scaled layers in call order.

        The head's φ is the hidden layers' (the paper's authors apply ReLU to both), although the
        forward pass leaves the logits linear.

        Returns:
          One :class:`Layer` a kernel; the last one is marked as output.
        """
        hidden = tuple(
            Layer((f"dense{i}",), activation=self.activation) for i in range(len(self.features))
        )
        if self.information_bottleneck is not None:
            return hidden + bottleneck_layers(("head",), self.activation)
        return (*hidden, Layer(("head",), activation=self.activation, output=True))
