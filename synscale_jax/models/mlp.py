"""Multilayer perceptrons."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from synscale_jax.scaling._activations import activation_function
from synscale_jax.scaling._layers import Layer


class MLP(nn.Module):
    r"""A multilayer perceptron: dense layers with one activation, then a linear head.

    With :math:`h_0` the flattened input and φ the activation,

    .. math::
        h_{i+1} = φ(W_i h_i + b_i), \qquad \text{logits} = W_{head} h_n + b_{head}

    The layers are called ``dense0``, ``dense1``, … and ``head``.

    Args:
      features: widths of the hidden layers, first to last; empty for a linear classifier.
      num_classes: number of logits.
      activation: φ, a name in :data:`synscale_jax.scaling.ACTIVATIONS`.
      dtype: dtype of the computation.
      param_dtype: dtype of the parameters.
      kernel_init: initializer of every kernel; biases start at zero.

    Raises:
      ValueError: if ``activation`` is not one of these names.

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

    def __post_init__(self):
        activation_function(self.activation)  # a wrong name is told at construction
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch ..."], *, train: bool = False
    ) -> Float[Array, "batch classes"]:
        """Computes the logits of a batch.

        Args:
          x: inputs, ``(batch, ...)``; everything behind the batch axis is flattened, in C order.
          train: without effect here; accepted so that all models are called alike.

        Returns:
          Logits, ``(batch, num_classes)``, in ``dtype``.
        """
        del train
        phi = activation_function(self.activation)
        x = x.reshape(x.shape[0], -1)
        for i, width in enumerate(self.features):
            x = phi(self._dense(width, name=f"dense{i}")(x))
        return self._dense(self.num_classes, name="head")(x)

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
        names = [*(f"dense{i}" for i in range(len(self.features))), "head"]
        return tuple(
            Layer((name,), activation=self.activation, output=name == "head") for name in names
        )
