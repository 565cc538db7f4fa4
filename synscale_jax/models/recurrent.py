"""GRU and LSTM classifiers of sequences, with the parameters of flax's cells."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from synscale_jax.adapters.linen import ACTIVITY
from synscale_jax.models._dropout import check_dropout, drop
from synscale_jax.scaling._layers import Layer

CellName = Literal["gru", "lstm"]

HOIST_FROM = 8
"""Inputs from which on their product with the kernel is made for all steps at once; below, a step
makes its own, since storing them all would cost more."""


class _Gates(NamedTuple):
    """The gates of a cell, by the names that flax gives their kernels."""

    of_input: tuple[str, ...]
    of_state: tuple[str, ...]
    with_bias: tuple[str, ...]


_CELLS: Mapping[str, _Gates] = MappingProxyType(
    {
        "gru": _Gates(("ir", "iz", "in"), ("hr", "hz", "hn"), ("ir", "iz", "in", "hn")),
        "lstm": _Gates(
            ("ii", "if", "ig", "io"), ("hi", "hf", "hg", "ho"), ("hi", "hf", "hg", "ho")
        ),
    }
)


class _Gate(nn.Module):
    """One kernel of a gate: gives its weights, and later hears what its neurons did."""

    features: int
    use_bias: bool
    kernel_init: nn.initializers.Initializer

    @nn.compact
    def weights(self, fan_in: int) -> tuple[Array, Array]:
        """Kernel (fan_in, features) and bias, zeros where there is none."""
        kernel = self.param("kernel", self.kernel_init, (fan_in, self.features))
        if not self.use_bias:
            return kernel, jnp.zeros(self.features, kernel.dtype)
        return kernel, self.param("bias", nn.initializers.zeros, (self.features,))

    def __call__(self, entered: Array, activity: Array) -> Array:
        """Note the mean activity of the cell's output for a collector."""
        if not self.is_initializing():
            self.sow(ACTIVITY, "activity", activity)
        return entered


class RecurrentLayer(nn.Module):
    r"""A layer of GRU or LSTM cells over a batch of sequences.

    Parameters have the names and shapes of :class:`flax.linen.GRUCell` and
    :class:`flax.linen.OptimizedLSTMCell`; the products are made for all gates at once, those of
    the inputs for all steps at once. With σ the logistic function, a GRU is

    .. math::
        r &= σ(W_{ir} x + b_{ir} + W_{hr} h), \quad z = σ(W_{iz} x + b_{iz} + W_{hz} h) \\
        n &= \tanh(W_{in} x + b_{in} + r (W_{hn} h + b_{hn})), \quad h' = (1 - z) n + z h

    and an LSTM

    .. math::
        i, f, o &= σ(W_{i\cdot} x + W_{h\cdot} h + b_{h\cdot}), \quad
        g = \tanh(W_{ig} x + W_{hg} h + b_{hg}) \\
        c' &= f c + i g, \quad h' = o \tanh(c')

    A step that the mask leaves out keeps the state.

    Args:
      cell: ``"gru"`` or ``"lstm"``.
      features: hidden units.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from synscale_jax.models.recurrent import RecurrentLayer
      >>> layer = RecurrentLayer("gru", 4)
      >>> x, mask = jnp.ones((2, 5, 3)), jnp.ones((2, 5), bool)
      >>> variables = layer.init(jax.random.key(0), x, mask)
      >>> states, last = layer.apply(variables, x, mask)
      >>> states.shape, last.shape
      ((2, 5, 4), (2, 4))
    """

    cell: CellName
    features: int

    @nn.compact
    def __call__(self, x: Array, mask: Array) -> tuple[Array, Array]:
        """Runs the cells.

        Args:
          x: float inputs, ``(batch, steps, inputs)``.
          mask: which steps count, bool, ``(batch, steps)``.

        Returns:
          The states after every step, ``(batch, steps, features)``, and the last ones.
        """
        gates = _CELLS[self.cell]
        orthogonal, plain = nn.initializers.orthogonal(), nn.initializers.lecun_normal()
        inputs = [self._gate(name, plain) for name in gates.of_input]
        recurrent = [self._gate(name, orthogonal) for name in gates.of_state]
        w_in, b_in = _joined([gate.weights(x.shape[-1]) for gate in inputs])
        w_state, b_state = _joined([gate.weights(self.features) for gate in recurrent])
        drive = _gru if self.cell == "gru" else _lstm
        hoist = x.shape[-1] >= HOIST_FROM
        entering = jnp.swapaxes(x @ w_in + b_in[None, None] if hoist else x, 0, 1)

        def step(state: tuple[Array, ...], entered: tuple[Array, Array]):
            part, counts = entered
            part = part if hoist else part @ w_in + b_in[None]
            new = drive(part, state[0] @ w_state + b_state[None], state)
            new = tuple(jnp.where(counts[:, None], a, b) for a, b in zip(new, state, strict=True))
            return new, new[0]

        dtype = jnp.result_type(x, w_in, w_state)
        start = jnp.zeros((x.shape[0], self.features), dtype)
        first = (start,) if self.cell == "gru" else (start, start)
        last, states = jax.lax.scan(step, first, (entering, mask.T))
        states = jnp.swapaxes(states, 0, 1)
        self._note(inputs, recurrent, x, states, mask)
        return states, last[0]

    def _gate(self, name: str, init: nn.initializers.Initializer) -> _Gate:
        return _Gate(self.features, name in _CELLS[self.cell].with_bias, init, name=name)

    def _note(
        self, inputs: list[_Gate], recurrent: list[_Gate], x: Array, states: Array, mask: Array
    ) -> None:
        """Input and recurrent kernels share the activity of the cell's output."""
        counts = mask[..., None].astype(states.dtype)
        activity = jnp.sum(states * counts, (0, 1)) / jnp.maximum(jnp.sum(counts), 1)
        before = jnp.pad(states[:, :-1], ((0, 0), (1, 0), (0, 0)))
        for gate in inputs:
            gate(x, activity)
        for gate in recurrent:
            gate(before, activity)


def _joined(weights: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    kernels, biases = zip(*weights, strict=True)
    return jnp.concatenate(kernels, -1), jnp.concatenate(biases, -1)


def _gru(x: Array, h: Array, state: tuple[Array, ...]) -> tuple[Array, ...]:
    (x_r, x_z, x_n), (h_r, h_z, h_n) = jnp.split(x, 3, -1), jnp.split(h, 3, -1)
    update = jax.nn.sigmoid(x_z + h_z)
    candidate = jnp.tanh(x_n + jax.nn.sigmoid(x_r + h_r) * h_n)
    return ((1 - update) * candidate + update * state[0],)


def _lstm(x: Array, h: Array, state: tuple[Array, ...]) -> tuple[Array, ...]:
    i, f, g, o = jnp.split(x + h, 4, -1)
    memory = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(memory), memory


class RecurrentClassifier(nn.Module):
    """A classifier of sequences: an embedding for words, recurrent layers, a head on the last step.

    Integer inputs are words, embedded, and 0 is padding that changes nothing; other inputs are
    flattened behind the batch axis and read ``inputs`` numbers a step: an image of 28 × 28 pixel by
    pixel in 784 steps, or with ``inputs=28`` row by row in 28.

    The layer table has every gate's input and recurrent kernel as a layer of its own. A neuron's
    activity is the mean output h of its cell over batch and steps, the same for all its kernels;
    the target is that of a tanh neuron, since h lies in (−1, 1). The embedding is not scaled.

    Args:
      cell: ``"gru"`` or ``"lstm"``.
      num_classes: number of logits.
      hidden: units of each layer.
      layers: how many recurrent layers.
      vocabulary: how many numbers of words there are, padding included (two more than
        ``load_imdb`` was asked for); None: no words.
      embedding: width of the embedding.
      inputs: numbers that a step reads, where there are no words.
      dropout: rates of the inputs (for words: of their embedding) and of what each recurrent layer
        hands on, or None. It needs ``rngs={"dropout": key}``.

    Raises:
      ValueError: if the cell is unknown, a rate is outside [0, 1), words come without a
        vocabulary, or a vocabulary without words, or the numbers of an example are no multiple of
        ``inputs``.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from synscale_jax.models import RecurrentClassifier
      >>> model = RecurrentClassifier("gru", num_classes=10, hidden=16)
      >>> images = jnp.zeros((2, 8, 8, 1))
      >>> variables = model.init(jax.random.key(0), images)
      >>> model.apply(variables, images).shape
      (2, 10)
      >>> [layer.name for layer in model.layer_table()][:4]
      ['layer0/ir', 'layer0/iz', 'layer0/in', 'layer0/hr']
    """

    cell: CellName
    num_classes: int
    hidden: int = 128
    layers: int = 1
    vocabulary: int | None = None
    embedding: int = 128
    inputs: int = 1
    dropout: tuple[float, float] | None = None

    def __post_init__(self):
        if self.cell not in _CELLS:
            raise ValueError(f"cell={self.cell!r} is not known: use one of {', '.join(_CELLS)}.")
        check_dropout(self.dropout)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        """Computes the logits of a batch.

        Args:
          x: words (batch, steps), or numbers (batch, ...).
          train: whether to drop units.

        Returns:
          Logits, ``(batch, num_classes)``.
        """
        drop_input, drop_hidden = self.dropout or (0.0, 0.0)
        x, mask = self._steps(jnp.asarray(x))
        x = drop(x, drop_input, train)
        last = x[:, -1]
        for index in range(self.layers):
            x, last = RecurrentLayer(self.cell, self.hidden, name=f"layer{index}")(x, mask)
            x, last = drop(x, drop_hidden, train), drop(last, drop_hidden, train)
        return nn.Dense(self.num_classes, name="head")(last)

    def _steps(self, x: Array) -> tuple[Array, Array]:
        """Inputs (batch, steps, inputs) and which steps count."""
        if not jnp.issubdtype(x.dtype, jnp.integer):
            if self.vocabulary is not None:
                raise ValueError(
                    f"vocabulary={self.vocabulary} is for words, but the inputs have dtype "
                    f"{x.dtype}: give integers, or vocabulary=None."
                )
            numbers = math.prod(x.shape[1:])
            if self.inputs < 1 or numbers % self.inputs:
                raise ValueError(
                    f"inputs={self.inputs} does not divide the {numbers} numbers of an example: "
                    "use 1, or the length of a row."
                )
            x = x.reshape(x.shape[0], -1, self.inputs)
            return x, jnp.ones(x.shape[:2], bool)
        if self.vocabulary is None:
            raise ValueError(
                f"inputs of dtype {x.dtype} are words, but vocabulary=None: give their number."
            )
        return nn.Embed(self.vocabulary, self.embedding, name="embedding")(x), x != 0

    def layer_table(self) -> tuple[Layer, ...]:
        """Lists the scaled kernels: of each layer's gates, and the head's, which is the output."""
        gates = _CELLS[self.cell]
        table: list[Any] = []
        for index in range(self.layers):
            for name in (*gates.of_input, *gates.of_state):
                bias = "bias" if name in gates.with_bias else None
                table.append(Layer((f"layer{index}", name), bias=bias, activation="tanh"))
        return (*table, Layer(("head",), activation="tanh", output=True))
