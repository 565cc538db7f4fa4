import jax
import jax.numpy as jnp
import numpy as np
import pytest


@pytest.fixture
def random_variables():
    """Returns a function of a model and an image shape; compiles no initializer, so it is fast."""

    def draw(model, image, **kwargs):
        shapes = jax.eval_shape(
            lambda key, x: model.init(key, x, **kwargs), jax.random.key(0), jnp.zeros(image)
        )
        rng = np.random.default_rng(0)

        def leaf(path, like):
            values = rng.normal(size=like.shape, scale=0.3)
            if path[-1].key in ("scale", "var"):
                values = 1 + np.abs(values)
            return jnp.asarray(values, like.dtype)

        return jax.tree_util.tree_map_with_path(leaf, shapes)

    return draw
