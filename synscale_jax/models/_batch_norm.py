"""flax's batch norm, with the gradient of our own that is faster on the CPU."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from synscale_jax.kernels.normalization import batch_norm, normalize


class BatchNorm(nn.BatchNorm):
    """As :class:`flax.linen.BatchNorm` over the last axis, variables and all.

    It takes no mask and no ``axis_name``.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalizes by the running statistics, or by the batch's, which it averages into them."""
        shape = x.shape[-1:]
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        variance = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        scale = self.param("scale", self.scale_init, shape, self.param_dtype)
        bias = self.param("bias", self.bias_init, shape, self.param_dtype)
        if self.use_running_average:
            running = mean.value, variance.value
            y = normalize(x, *running, scale, bias, epsilon=self.epsilon)
        else:
            y, *batch = batch_norm(x, scale, bias, epsilon=self.epsilon)
            if not self.is_initializing():
                for old, new in zip((mean, variance), batch, strict=True):
                    old.value = self.momentum * old.value + (1 - self.momentum) * new
        return y.astype(self.dtype)
