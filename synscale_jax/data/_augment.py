import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, Shaped


def augment(
    key: PRNGKeyArray,
    images: Shaped[Array | np.ndarray, "batch height width channels"],
    *,
    padding: int = 4,
    flip: bool = True,
) -> Shaped[Array, "batch height width channels"]:
    r"""Crops images at random after zero padding and mirrors half of them, each on its own.

    With probability 1/2 an image is mirrored left to right; then it is padded by :math:`p` zeros on
    each side and cut back to its size at an offset drawn uniformly from
    :math:`\{0, \dots, 2p\}^2`. It is a pure function for use inside a compiled step.

    Args:
      key: a typed PRNG key.
      images: array (batch, height, width, channels) of any dtype.
      padding: zeros on each side; 0 leaves out the crop.
      flip: whether to mirror; leave it out where left and right matter, as in digits.

    Returns:
      Images of the same shape and dtype.

    Raises:
      ValueError: if ``images`` has not four axes or ``padding`` is negative.

    Examples:
      >>> import jax
      >>> from synscale_jax.data import augment, load_images
      >>> images = load_images("digits").train.images[:16]
      >>> augment(jax.random.key(0), images, padding=1, flip=False).shape
      (16, 8, 8, 1)

    References:
      Lee et al., `Deeply-Supervised Nets <https://arxiv.org/abs/1409.5185>`_, 2014;
      He et al., `Deep Residual Learning <https://arxiv.org/abs/1512.03385>`_, 2015.
    """
    if images.ndim != 4:
        raise ValueError(
            f"Images to augment have shape {images.shape}: "
            "give four axes (batch, height, width, channels)."
        )
    if padding < 0:
        raise ValueError(f"The padding of images is {padding}: give 0 or more.")
    images = jnp.asarray(images)
    crop_key, flip_key = jax.random.split(key)
    # to mirror before the crop comes to the same, and XLA on CPU runs it four times as fast
    if flip:
        mirrored = jax.random.bernoulli(flip_key, shape=(images.shape[0], 1, 1, 1))
        images = jnp.where(mirrored, images[:, :, ::-1], images)
    if padding:
        images = _crop(crop_key, images, padding)
    return images


def _crop(key: PRNGKeyArray, images: Array, padding: int) -> Array:
    offsets = jax.random.randint(key, (images.shape[0], 2), 0, 2 * padding + 1)
    border = (padding, padding)
    padded = jnp.pad(images, ((0, 0), border, border, (0, 0)))

    def crop_one(image: Array, offset: Array) -> Array:
        return jax.lax.dynamic_slice(image, (offset[0], offset[1], 0), images.shape[1:])

    return jax.vmap(crop_one)(padded, offsets)
