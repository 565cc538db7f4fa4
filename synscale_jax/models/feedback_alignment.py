"""Feedback alignment: layers whose error comes back through fixed random weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from flax.linen.linear import canonicalize_padding
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

from synscale_jax.kernels.convolution import conv_general_dilated
from synscale_jax.scaling._layers import Layer

FEEDBACK = "feedback"
"""The collection that holds the feedback weights; it is not among the trained ``params``."""

FeedbackKind = Literal["backprop", "alignment", "direct"]
Product = Callable[[Array, Array], Array]

kaiming_uniform = nn.initializers.variance_scaling(2.0, "fan_in", "uniform")
"""U(±√(6 / inputs)): what weights and feedback weights start from, each drawn on its own."""


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _aligned(product: Product, x: Array, kernel: Array, feedback: Array) -> Array:
    """A bilinear product whose gradient to x takes ``feedback`` for the kernel."""
    del feedback
    return product(x, kernel)


def _forward(product: Product, x: Array, kernel: Array, feedback: Array) -> tuple[Array, Any]:
    return product(x, kernel), (x, kernel, feedback)


def _backward(product: Product, saved: Any, error: Array) -> tuple[Array, Array, Array]:
    x, kernel, feedback = saved
    (to_x,) = jax.linear_transpose(lambda x: product(x, feedback), x)(error)
    (to_kernel,) = jax.linear_transpose(lambda kernel: product(x, kernel), kernel)(error)
    return to_x, to_kernel, jnp.zeros_like(feedback)


_aligned.defvjp(_forward, _backward)


class FeedbackDense(nn.Module):
    r"""A dense layer with feedback alignment, in place of ``nn.Dense``.

    Forward :math:`y = x W + b`; with the error :math:`G` from above

    .. math::
        \nabla_W = x^\top G, \qquad \nabla_b = \sum G, \qquad \nabla_x = G B^\top

    where B is random, of W's shape and never trained. As a network's first layer, or above layers
    that are not trained, it is plain gradient descent: nothing asks for :math:`\nabla_x`.

    Args:
      features: units.
      use_bias: whether there is a bias.
      dtype: of the computation; None: what input and parameters promote to.
      param_dtype: of the parameters and the feedback weights.
      kernel_init: initializer of W.
      feedback_init: initializer of B, which draws from the key of ``params``.
      bias_init: initializer of b; the published code starts it at one.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from synscale_jax.models.feedback_alignment import FeedbackDense
      >>> variables = FeedbackDense(3).init(jax.random.key(0), jnp.ones((2, 4)))
      >>> jax.tree.map(jnp.shape, variables["params"])
      {'bias': (3,), 'kernel': (4, 3)}
      >>> variables["feedback"]["kernel"].shape
      (4, 3)

    References:
      Lillicrap et al., `Random synaptic feedback weights support error backpropagation for deep
      learning <https://doi.org/10.1038/ncomms13276>`_, Nature Communications 7, 2016.
    """

    features: int
    use_bias: bool = True
    dtype: Any = None
    param_dtype: Any = jnp.float32
    kernel_init: nn.initializers.Initializer = kaiming_uniform
    feedback_init: nn.initializers.Initializer = kaiming_uniform
    bias_init: nn.initializers.Initializer = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """``(batch, inputs) -> (batch, features)``."""
        shape = (x.shape[-1], self.features)
        return _with_feedback(self, jnp.matmul, x, shape)


class FeedbackConv(nn.Module):
    """A two-dimensional convolution with feedback alignment, in place of ``nn.Conv``.

    As :class:`FeedbackDense`, with the transposed convolution by fixed random kernels.

    Args:
      features: output channels.
      kernel_size: rows and columns.
      strides: rows and columns the window moves on; one number for both.
      padding: ``"SAME"``, ``"VALID"``, or the zeros added: ((top, bottom), (left, right)), (rows,
        columns), or one number for all.
      use_bias: whether there is a bias.
      dtype: of the computation; None: what input and parameters promote to.
      param_dtype: of the parameters and the feedback weights.
      kernel_init: initializer of the kernel.
      feedback_init: initializer of the feedback kernel.
      bias_init: initializer of the bias.

    Raises:
      ValueError: for a kernel size, strides or padding that are not of two dimensions.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from synscale_jax.models import FeedbackConv
      >>> layer = FeedbackConv(4, (3, 3), strides=2, padding=1)
      >>> layer.init_with_output(jax.random.key(0), jnp.ones((2, 8, 8, 1)))[0].shape
      (2, 4, 4, 4)
    """

    features: int
    kernel_size: Sequence[int]
    strides: int | Sequence[int] | None = 1
    padding: Any = "SAME"
    use_bias: bool = True
    dtype: Any = None
    param_dtype: Any = jnp.float32
    kernel_init: nn.initializers.Initializer = kaiming_uniform
    feedback_init: nn.initializers.Initializer = kaiming_uniform
    bias_init: nn.initializers.Initializer = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """``(batch, height, width, channels) -> (batch, height', width', features)``."""
        strides = self.strides or 1
        strides = (strides, strides) if isinstance(strides, int) else tuple(strides)
        for name, pair in (("kernel_size", self.kernel_size), ("strides", strides)):
            if isinstance(pair, int) or len(pair) != 2:
                raise ValueError(f"{name}={pair} is not of two dimensions: use e.g. (3, 3).")
        padding = canonicalize_padding(self.padding, 2)
        if isinstance(padding, str) and padding not in ("SAME", "VALID"):
            raise ValueError(
                f"padding={padding!r} is not possible: use 'SAME', 'VALID' or numbers."
            )
        product = partial(_convolved, strides=strides, padding=padding)
        return _with_feedback(self, product, x, (*self.kernel_size, x.shape[-1], self.features))


def _convolved(x: Array, kernel: Array, *, strides: Any, padding: Any) -> Array:
    return conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _with_feedback(module: Any, product: Product, x: Array, shape: tuple[int, ...]) -> Array:
    kernel = module.param("kernel", module.kernel_init, shape, module.param_dtype)
    feedback = module.variable(
        FEEDBACK,
        "kernel",
        lambda: module.feedback_init(module.make_rng("params"), shape, module.param_dtype),
    )
    bias = None
    if module.use_bias:
        bias = module.param("bias", module.bias_init, (module.features,), module.param_dtype)
    fixed = jax.lax.stop_gradient(feedback.value)
    x, kernel, fixed, bias = promote_dtype(x, kernel, fixed, bias, dtype=module.dtype)
    y: Any = _aligned(product, x, kernel, fixed)
    return y if bias is None else y + jnp.expand_dims(bias, tuple(range(y.ndim - 1)))


@jax.custom_vjp
def _broadcast_error(logits: Array, hidden: Sequence[Array], feedback: Sequence[Array]) -> Array:
    """The logits; their error also goes straight to every hidden layer."""
    del hidden, feedback
    return logits


def _broadcast_forward(logits: Array, hidden: Any, feedback: Any) -> tuple[Array, Any]:
    return logits, (tuple(h.shape for h in hidden), feedback)


def _broadcast_backward(saved: Any, error: Array) -> tuple[Array, Any, Any]:
    shapes, feedback = saved
    to_hidden = [(error @ B.T).reshape(s) for s, B in zip(shapes, feedback, strict=True)]
    return error, to_hidden, [jnp.zeros_like(B) for B in feedback]


_broadcast_error.defvjp(_broadcast_forward, _broadcast_backward)


class DirectFeedback(nn.Module):
    r"""Direct feedback alignment: the output's error goes straight to each hidden layer.

    Call it on the logits and what the hidden layers put out, dense or convolutional, and stop the
    gradient between the layers. A hidden layer :math:`h_l` then gets

    .. math::
        \nabla_{h_l} = \nabla_{logits} B_l^\top

    Args:
      feedback_init: initializer of each :math:`B_l`, (units of the layer, classes).

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from flax import linen as nn
      >>> from synscale_jax.models.feedback_alignment import DirectFeedback
      >>> class Net(nn.Module):
      ...     @nn.compact
      ...     def __call__(self, x):
      ...         h = nn.relu(nn.Dense(5)(x))
      ...         g = nn.relu(nn.Dense(4)(jax.lax.stop_gradient(h)))
      ...         logits = nn.Dense(3)(jax.lax.stop_gradient(g))
      ...         return DirectFeedback()(logits, h, g)
      >>> sorted(Net().init(jax.random.key(0), jnp.ones((2, 4))))
      ['feedback', 'params']

    References:
      Nøkland, `Direct feedback alignment provides learning in deep neural networks
      <https://arxiv.org/abs/1609.01596>`_, 2016.
    """

    feedback_init: nn.initializers.Initializer = nn.initializers.variance_scaling(
        1.0, "fan_out", "uniform"
    )

    @nn.compact
    def __call__(self, logits: Array, *hidden: Array) -> Array:
        """The logits unchanged."""
        matrices = [
            self.variable(
                FEEDBACK,
                f"kernel{index}",
                lambda h=h: self.feedback_init(
                    self.make_rng("params"), (int(np.prod(h.shape[1:])), logits.shape[-1])
                ),
            ).value
            for index, h in enumerate(hidden)
        ]
        return _broadcast_error(logits, list(hidden), matrices)


class FeedbackMLP(nn.Module):
    """A multilayer perceptron that learns by backprop, feedback alignment or direct feedback.

    All three start from the same weights for the same key and differ in nothing but the way back.

    Args:
      features: widths of the hidden layers (ReLU).
      num_classes: number of logits.
      feedback: ``"backprop"``, ``"alignment"`` or ``"direct"``.

    Raises:
      ValueError: if ``feedback`` is none of these.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from synscale_jax.models.feedback_alignment import FeedbackMLP
      >>> model = FeedbackMLP((8, 8), 3, feedback="direct")
      >>> variables = model.init(jax.random.key(0), jnp.ones((2, 4, 4, 1)))
      >>> jax.tree.map(jnp.shape, variables["feedback"])
      {'direct': {'kernel0': (8, 3), 'kernel1': (8, 3)}}
    """

    features: Sequence[int]
    num_classes: int
    feedback: FeedbackKind = "alignment"

    def __post_init__(self) -> None:
        if self.feedback not in get_args(FeedbackKind):
            raise ValueError(
                f"feedback={self.feedback!r} is unknown: use one of "
                f"{', '.join(get_args(FeedbackKind))}."
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        """``(batch, ...) -> (batch, num_classes)``; ``train`` has no effect."""
        del train
        if self.feedback == "alignment":
            dense = FeedbackDense
        else:
            dense = partial(nn.Dense, kernel_init=kaiming_uniform)
        between = jax.lax.stop_gradient if self.feedback == "direct" else lambda h: h
        x = x.reshape(x.shape[0], -1)
        hidden = []
        for index, width in enumerate(self.features):
            x = nn.relu(dense(width, name=f"dense{index}")(between(x)))
            hidden.append(x)
        logits = dense(self.num_classes, name="head")(between(x))
        if self.feedback == "direct":
            return DirectFeedback(name="direct")(logits, *hidden)
        return logits

    def layer_table(self) -> tuple[Layer, ...]:
        """The scaled layers in call order; the last one is the output."""
        hidden = tuple(Layer((f"dense{index}",)) for index in range(len(self.features)))
        return (*hidden, Layer(("head",), output=True))


def exact_feedback(variables: Mapping[str, Any]) -> dict[str, Any]:
    """The variables with each layer's own weights as its feedback: with them it is backprop.

    Args:
      variables: of a model with :class:`FeedbackDense` or :class:`FeedbackConv`.

    Returns:
      The variables with another collection ``"feedback"``.

    Raises:
      ValueError: if the model learns by backprop, or has :class:`DirectFeedback`, whose feedback
        weights stand in for no layer's own.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from synscale_jax.models.feedback_alignment import FeedbackDense, exact_feedback
      >>> variables = exact_feedback(FeedbackDense(3).init(jax.random.key(0), jnp.ones((2, 4))))
      >>> bool((variables["feedback"]["kernel"] == variables["params"]["kernel"]).all())
      True
    """
    params, fixed = (flatten_dict(variables.get(part, {})) for part in ("params", FEEDBACK))
    if not fixed or not fixed.keys() <= params.keys():
        has = ", ".join("/".join(map(str, path)) for path in fixed) or "none"
        raise ValueError(
            f"these feedback weights ({has}) are not in place of layers' own: use a model of "
            "FeedbackDense or FeedbackConv."
        )
    return {**variables, FEEDBACK: unflatten_dict({path: params[path] for path in fixed})}


def alignment_angles(ours: Any, exact: Any) -> dict[str, Array]:
    r"""The angle between two updates of each kernel, in degrees.

    .. math::
        \arccos \frac{\langle g, g' \rangle}{\lVert g \rVert\, \lVert g' \rVert}

    Below 90° a step along one is a step down along the other. Feedback alignment learns by
    bringing it there.

    Args:
      ours: a tree of gradients.
      exact: the gradients of backprop, of the same structure; see :func:`exact_feedback`.

    Returns:
      Path of each leaf called ``kernel`` -> angle, shape=(), nan where a gradient is zero.

    Examples:
      >>> import jax.numpy as jnp
      >>> from synscale_jax.models.feedback_alignment import alignment_angles
      >>> a, b = {"head": {"kernel": jnp.eye(2)}}, {"head": {"kernel": jnp.ones((2, 2))}}
      >>> {name: round(float(angle), 2) for name, angle in alignment_angles(a, b).items()}
      {'head': 45.0}
    """

    def angle(a: Array, b: Array) -> Array:
        cosine = jnp.vdot(a, b) / (jnp.linalg.norm(a) * jnp.linalg.norm(b))
        return jnp.degrees(jnp.arccos(jnp.clip(cosine, -1, 1)))

    exact_leaves: dict[Any, Any] = flatten_dict(exact)
    our_leaves: dict[Any, Any] = flatten_dict(ours)
    return {
        "/".join(path[:-1]): angle(leaf.ravel(), exact_leaves[path].ravel())
        for path, leaf in our_leaves.items()
        if path[-1] == "kernel"
    }
