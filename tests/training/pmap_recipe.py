"""Training with ``jax.pmap``: what is averaged before the optimizer sees it."""

import jax
import jax.numpy as jnp
import optax
from jax.lax import pmean

from synscale_jax.adapters.linen import apply_collecting


def make_pmap_step(model, optimizer):
    """``step(params, opt_state, images, labels)``; every argument has a leading device axis."""
    layers = model.layer_table()

    def step(params, opt_state, images, labels):
        def loss_fn(params):
            logits, _, collected = apply_collecting(
                model, {"params": params}, images, layers=layers, train=True
            )
            entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return jnp.mean(entropy), collected.activity

        (loss, activity), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        # Every device must scale by the activity of the whole batch, or the replicas part.
        loss, activity, grads = pmean((loss, activity, grads), "data")
        updates, opt_state = optimizer.update(grads, opt_state, params, activity=activity)
        return optax.apply_updates(params, updates), opt_state, loss

    return jax.pmap(step, axis_name="data")
