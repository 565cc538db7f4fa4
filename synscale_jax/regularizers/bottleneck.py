"""The variational information bottleneck: a stochastic head and its loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.scipy.special import logsumexp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from synscale_jax.scaling._activations import Activation
from synscale_jax.scaling._layers import Layer, Path

REGULARIZERS = "regularizers"
"""The linen collection that modules sow into what a loss needs."""

CODES = "codes"
"""The linen collection that a bottleneck sows its :class:`Code` into, if it is asked for."""

# Alemi et al. start with little noise: deviations of softplus(−5), about 0.007.
_OFFSET = 5.0

_JITTER, _TINY = 1e-6, 1e-12  # of the logits' variance: relative, absolute


class BottleneckTerms(NamedTuple):
    """What a bottleneck sows for its loss.

    Attributes:
      kl: KL[p(Z|x), N(0, I)], shape ``(batch,)``, in nats, float32 or wider.
      log_probabilities: log q(y|z), averaged over the samples, shape ``(batch, classes)``, in the
        same dtype.
    """

    kl: Array
    log_probabilities: Array


class Code(NamedTuple):
    """The distribution p(z|x) that a bottleneck gives an example, N(μ, diag σ²).

    Attributes:
      mean: μ, shape ``(batch, features)``.
      deviation: σ, shape ``(batch, features)``.
    """

    mean: Array
    deviation: Array


class Bottleneck(nn.Module):
    r"""A head that passes its input through N noisy units.

    The layer ``encoder`` makes N means μ and N deviations σ = softplus(s − 5) from the input. In
    training, ``samples`` codes :math:`z = \mu + \sigma \varepsilon` with
    :math:`\varepsilon \sim \mathcal N(0, I)` go through ``decoder``, a linear layer of one unit a
    class, with kernel V. For few classes (no more than samples, nor than units) the logits are
    drawn without the codes, from the normal distribution that they have, of mean μV and covariance
    :math:`V^\top \mathrm{diag}(\sigma^2) V`: the same in distribution and about half the time.
    The module sows :class:`BottleneckTerms` into the collection ``"regularizers"``, from which
    :func:`bottleneck_loss` makes the objective:

    .. math::
        \mathrm{KL} = \tfrac12 \sum_{i=1}^N (\mu_i^2 + \sigma_i^2 - 1 - \log \sigma_i^2)

    In training the output is the log of the mean of the samples' probabilities, so its softmax is
    the mean prediction. In evaluation z is μ: one pass, no random numbers. (The paper does not say
    how it evaluates.)

    Args:
      features: N.
      classes: number of logits.
      samples: codes drawn for each example in training (12 in the paper).
      dtype: dtype of the computation.
      param_dtype: dtype of the parameters.
      kernel_init: initializer of both kernels.
      rng_collection: the stream of random numbers; dropout's by default, so that a trainer that
        hands on a key for dropout needs no other.

    Raises:
      ValueError: if N or the number of samples is below 1.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from synscale_jax.regularizers import Bottleneck, bottleneck_loss
      >>> head, x = Bottleneck(features=8, classes=3), jnp.ones((5, 4))
      >>> variables = head.init(jax.random.key(0), x)
      >>> logits, sown = head.apply(
      ...     variables, x, train=True, rngs={"dropout": jax.random.key(1)},
      ...     mutable=["regularizers"],
      ... )
      >>> logits.shape
      (5, 3)
      >>> bottleneck_loss(sown["regularizers"], jnp.zeros(5, int), strength=1e-3).shape
      (5,)

    References:
      Alemi et al., `Deep Variational Information Bottleneck <https://arxiv.org/abs/1612.00410>`_,
      2017. Hofmann and Mäder, IEEE TNNLS 33(7), 2022, eq. 13 and section IV-C. Kingma et al.,
      `Variational Dropout and the Local Reparameterization Trick
      <https://arxiv.org/abs/1506.02557>`_, 2015.
    """

    features: int
    classes: int
    samples: int = 12
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    rng_collection: str = "dropout"

    def __post_init__(self):
        for name in ("features", "samples"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name}={getattr(self, name)} of a bottleneck is not possible: use 1 or more "
                    "(Alemi et al.: 256 units; the paper: 12 samples)."
                )
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch inputs"], *, train: bool = False
    ) -> Float[Array, "batch classes"]:
        """Computes the logits of a batch.

        Args:
          x: what the last hidden layer puts out, ``(batch, inputs)``.
          train: whether to draw samples, which needs ``rngs={rng_collection: key}``.

        Returns:
          Logits, ``(batch, classes)``, in ``dtype``.
        """
        mean, spread = jnp.split(self._dense(2 * self.features, "encoder")(x), 2, axis=-1)
        decoder = self._dense(self.classes, "decoder")
        deviation = jax.nn.softplus(spread - _OFFSET)
        if not self.is_initializing():  # init would return what is sown, as a variable
            self.sow(CODES, "code", Code(mean, deviation))
        if not train:
            return decoder(mean)
        key = self.make_rng(self.rng_collection)
        if self.classes <= min(self.samples, self.features):
            centre = decoder(mean)
            kernel = decoder.variables["params"]["kernel"]
            spread = _logit_noise(key, self.samples, deviation, kernel)
            log_p = jax.nn.log_softmax(centre[None] + spread.astype(centre.dtype))
        else:
            noise = jax.random.normal(key, (self.samples, *mean.shape), mean.dtype)
            log_p = jax.nn.log_softmax(decoder(mean[None] + deviation[None] * noise))
        wide = np.promote_types(mean.dtype, jnp.float32)  # float16 squares overflow at 256
        mean, deviation = mean.astype(wide), deviation.astype(wide)
        kl = -0.5 + 0.5 * (jnp.square(mean) + jnp.square(deviation)) - jnp.log(deviation)
        if not self.is_initializing():
            terms = BottleneckTerms(kl.sum(-1), log_p.astype(wide).mean(0))
            self.sow(REGULARIZERS, "bottleneck", terms)
        return logsumexp(log_p, axis=0) - jnp.log(self.samples).astype(log_p.dtype)

    def _dense(self, width: int, name: str) -> nn.Dense:
        return nn.Dense(
            width,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            kernel_init=self.kernel_init,
            name=name,
        )


def bottleneck_loss(
    sown: Mapping[str, Any], labels: Int[Array, " batch"], *, strength: float | Array
) -> Float[Array, " batch"]:
    r"""The objective of the variational information bottleneck, example by example.

    .. math::
        \mathbb E_\varepsilon [-\log q(y_n | z_n)]
        + \beta \, \mathrm{KL}[p(Z|x_n), \mathcal N(0, I)]

    The cross-entropy is the mean of the samples' cross-entropies, as equation 13 has it; that of
    the mean prediction is never larger.

    Args:
      sown: the collection ``"regularizers"`` of a training pass, with one :class:`Bottleneck`.
      labels: class indices, shape ``(batch,)``.
      strength: β, a number of 0 or more. The paper prints none; Alemi et al. found 1e-3 best on
        MNIST.

    Returns:
      The objective, shape ``(batch,)``, cross-entropy included, float32 or wider.

    Raises:
      ValueError: if β is negative, or there is not exactly one bottleneck in ``sown``.

    Examples:
      See :class:`Bottleneck`.
    """
    if isinstance(strength, int | float | np.number) and not 0 <= strength < float("inf"):
        raise ValueError(
            f"strength={strength} is no weight of the KL: use a number of 0 or more "
            "(Alemi et al.: 1e-3)."
        )
    terms = _sown_terms(sown)
    picked = jnp.take_along_axis(terms.log_probabilities, labels[:, None], axis=-1)
    return strength * terms.kl - picked[:, 0]


def bottleneck_layers(head: Path, activation: Activation) -> tuple[Layer, Layer]:
    """The layer table of a bottleneck: encoder, whose units are linear, and decoder.

    Args:
      head: path of the bottleneck in its model.
      activation: φ of the decoder, which is the output layer.
    """
    return (
        Layer((*head, "encoder"), activation="identity"),
        Layer((*head, "decoder"), activation=activation, output=True),
    )


def _logit_noise(
    key: Array,
    samples: int,
    deviation: Float[Array, "batch features"],
    kernel: Float[Array, "features classes"],
) -> Float[Array, "samples batch classes"]:
    """(σ ε) V for independent normal ε: the local reparameterisation of Kingma et al., 2015."""
    variance, kernel = jnp.square(deviation.astype(jnp.float32)), kernel.astype(jnp.float32)
    covariance = jnp.einsum("bn,nk,nl->bkl", variance, kernel, kernel)
    # Rounding may leave a dependent decoder's covariance short of positive definite.
    own = jnp.trace(covariance, axis1=1, axis2=2)[:, None, None] / kernel.shape[1]
    covariance += (_JITTER * own + _TINY) * jnp.eye(kernel.shape[1])[None]
    noise = jax.random.normal(key, (samples, *covariance.shape[:2]))
    return jnp.einsum("bkl,sbl->sbk", jnp.linalg.cholesky(covariance), noise)


def _sown_terms(sown: Mapping[str, Any]) -> BottleneckTerms:
    leaves = jax.tree.leaves(sown, is_leaf=lambda node: isinstance(node, BottleneckTerms))
    found = [leaf for leaf in leaves if isinstance(leaf, BottleneckTerms)]
    if len(found) != 1:
        raise ValueError(
            f"{len(found)} bottlenecks were sown where the loss needs one: apply a model with a "
            'Bottleneck head, train=True and mutable=["regularizers"].'
        )
    return found[0]
