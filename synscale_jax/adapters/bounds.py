"""Bottleneck layers attached to a linen model, to bound what its layers know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from synscale_jax.regularizers.bottleneck import (
    CODES,
    Bottleneck,
    BottleneckTerms,
    Code,
)
from synscale_jax.scaling._layers import Layer

Mode = Literal["joint", "probe"]

_PREFIX = "bound_"


class VariationalBound(nn.Module):
    r"""A linen model with a bottleneck beside each of some of its modules.

    What enters the module at a place goes, with its mean over positions taken if it has any, into
    a :class:`~synscale_jax.regularizers.Bottleneck` of its own, whose codes z bound two
    informations: the KL to the prior :math:`I(Z; X)` from above, the decoder :math:`I(Z; Y)` from
    below. The output stays the model's, and so do the names of its parameters: those of the
    bottlenecks stand beside them as ``bound_<place>``. Initial weights are the model's own, too.

    In training (``train=True``) the bottlenecks sow into ``"regularizers"``, from which
    :func:`bounds_loss` makes what is added to the training loss. In evaluation they do nothing,
    unless the collection ``"codes"`` is mutable: see :func:`codes_of`.

    Args:
      model: called as ``model(x, train=...)``.
      places: names of modules, e.g. ``("dense1", "head")`` or ``("block/conv",)``, each called
        once in a pass.
      classes: how many labels there are.
      mode: ``"joint"``, the paper's: the bottlenecks' losses train the model, too. ``"probe"``:
        they read behind a stop-gradient, and the model trains as it would without them.
      features: N, units of each code.
      samples: codes drawn for each example in training.
      dtype: dtype of the bottlenecks' computation.

    Raises:
      ValueError: if the mode is unknown or there is no place; in the first pass, if a place is no
        module that is called once.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from synscale_jax.adapters.bounds import VariationalBound
      >>> from synscale_jax.models import MLP
      >>> model = VariationalBound(MLP((8, 8), 3), ("dense1", "head"), classes=3, features=4)
      >>> variables = model.init(jax.random.key(0), jnp.ones((2, 5)), train=False)
      >>> sorted(variables["params"])
      ['bound_dense1', 'bound_head', 'dense0', 'dense1', 'head']

    References:
      Alemi et al., `Deep Variational Information Bottleneck <https://arxiv.org/abs/1612.00410>`_,
      2017. Hofmann and Mäder, IEEE TNNLS 33(7), 2022, section IV-C.
    """

    model: nn.Module
    places: tuple[str, ...]
    classes: int
    mode: Mode = "joint"
    features: int = 256
    samples: int = 12
    dtype: DTypeLike = jnp.float32

    def __post_init__(self):
        if self.mode not in ("joint", "probe"):
            raise ValueError(f"mode={self.mode!r} is unknown: use joint or probe.")
        if not self.places or len(set(self.places)) != len(self.places):
            raise ValueError(
                f"places={self.places} are empty or repeat themselves: name modules of the model, "
                "each once."
            )
        super().__post_init__()

    def setup(self) -> None:
        """Shares the model's scope, so that its parameters keep their names."""
        nn.share_scope(self, self.model)
        self.bounds = {
            place: Bottleneck(
                self.features,
                self.classes,
                self.samples,
                dtype=self.dtype,
                name=bound_name(place),
            )
            for place in self.places
        }

    def __call__(self, x: Array, *, train: bool = False) -> Float[Array, "batch classes"]:
        """The model's logits; the bounds are sown.

        Args:
          x: what the model takes.
          train: handed on to the model; whether the bottlenecks draw samples.
        """
        entered: dict[str, list[Array]] = {place: [] for place in self.places}

        def record(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
            name = "/".join(context.module.path)
            if context.method_name == "__call__" and name in entered:
                entered[name].append(args[0])
            return call(*args, **kwargs)

        with nn.intercept_methods(record):
            logits = self.model(x, train=train)  # type: ignore[operator]
        if train or self.is_initializing() or self.is_mutable_collection(CODES):
            for place, inputs in entered.items():
                self.bounds[place](self._read(place, inputs), train=train)
        return logits

    def _read(self, place: str, inputs: list[Array]) -> Float[Array, "batch inputs"]:
        if len(inputs) != 1:
            raise ValueError(
                f"module {place!r} was called {len(inputs)} times in one pass: name modules that "
                "are called once."
            )
        x = inputs[0]
        x = x.mean(tuple(range(1, x.ndim - 1))) if x.ndim > 2 else x
        return jax.lax.stop_gradient(x) if self.mode == "probe" else x

    def layer_table(self) -> tuple[Layer, ...]:
        """The model's own layers: the bottlenecks are not scaled."""
        return self.model.layer_table()  # type: ignore[attr-defined]


def bound_name(place: str) -> str:
    """Name of the bottleneck at a place."""
    return _PREFIX + place.replace("/", "_")


def bounds_loss(
    sown: Mapping[str, Any], labels: Int[Array, " batch"], *, strength: float | Array
) -> Float[Array, " batch"]:
    r"""What the attached bottlenecks add to the loss, example by example.

    .. math::
        \sum_{\text{places}} \mathbb E_\varepsilon [-\log q(y_n | z_n)]
        + \beta \, \mathrm{KL}[p(Z|x_n), \mathcal N(0, I)]

    A bottleneck that is the model's own head is not counted.

    Args:
      sown: the collection ``"regularizers"`` of a training pass.
      labels: class indices, shape ``(batch,)``.
      strength: β, a number of 0 or more.

    Returns:
      The sum, shape ``(batch,)``, in nats.

    Raises:
      ValueError: if β is negative, or no bottleneck is attached.
    """
    if isinstance(strength, int | float | np.number) and not 0 <= strength < float("inf"):
        raise ValueError(f"strength={strength} is no weight of the KL: use a number of 0 or more.")
    attached = {name: part for name, part in sown.items() if name.startswith(_PREFIX)}
    if not attached:
        raise ValueError(
            "no bottleneck was sown: apply a VariationalBound with train=True and "
            'mutable=["regularizers"].'
        )
    total = jnp.zeros(labels.shape)
    for part in attached.values():
        terms: BottleneckTerms = part["bottleneck"][0]
        picked = jnp.take_along_axis(terms.log_probabilities, labels[:, None], axis=-1)
        total = total + strength * terms.kl - picked[:, 0]
    return total


def codes_of(model: VariationalBound, variables: Mapping[str, Any], x: Array) -> dict[str, Code]:
    """The distributions p(z|x) of a batch at each place, in evaluation.

    Args:
      model: the model with its bounds.
      variables: ``{"params": ..., "batch_stats": ...}``.
      x: what the model takes.

    Returns:
      Place -> means and deviations, each of shape ``(batch, features)``.
    """
    _, changed = model.apply(variables, x, train=False, mutable=[CODES])
    sown: Any = changed[CODES]
    return {place: sown[bound_name(place)]["code"][0] for place in model.places}


def decoded(
    model: VariationalBound, params: Mapping[str, Any], place: str, codes: Array
) -> Float[Array, "... classes"]:
    """Log q(y|z) of codes by the decoder at a place, in nats.

    Args:
      model: the model with its bounds.
      params: its parameters.
      place: one of ``model.places``.
      codes: z, shape ``(..., features)``.
    """
    decoder = nn.Dense(model.classes, dtype=model.dtype)
    weights = {"params": params[bound_name(place)]["decoder"]}
    return jax.nn.log_softmax(decoder.apply(weights, codes))  # type: ignore[arg-type]
