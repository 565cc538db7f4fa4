import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from synscale_jax.data import augment


@pytest.fixture
def images():
    # no zeros, so that the padding can be told from the picture
    return np.random.default_rng(0).integers(1, 256, (32, 7, 5, 3), np.uint8)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_keeps_shape_and_dtype_under_jit_and_scan(images, dtype):
    images = jnp.asarray(images).astype(dtype)
    out = jax.jit(augment)(jax.random.key(0), images)
    assert out.shape == images.shape and out.dtype == dtype
    keys = jax.random.split(jax.random.key(1), 3)
    _, steps = jax.lax.scan(lambda carry, key: (carry, augment(key, images)), 0, keys)
    assert steps.shape == (3, *images.shape)
    assert not np.array_equal(steps[0], steps[1])


def test_same_key_same_images(images):
    first = augment(jax.random.key(3), images)
    np.testing.assert_array_equal(first, augment(jax.random.key(3), images))
    assert not np.array_equal(first, augment(jax.random.key(4), images))


def test_each_image_is_one_crop_of_its_padded_self(images):
    out = np.asarray(augment(jax.random.key(0), images, padding=2, flip=False))
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    offsets = []
    for index, image in enumerate(out):
        matches = [
            (row, column)
            for row in range(5)
            for column in range(5)
            if np.array_equal(padded[index, row : row + 7, column : column + 5], image)
        ]
        assert len(matches) == 1
        offsets += matches
    assert {row for row, _ in offsets} == {column for _, column in offsets} == set(range(5))


def test_flip_mirrors_about_half_and_nothing_else(images):
    out = np.asarray(augment(jax.random.key(0), images, padding=0))
    mirrored = (out == images[:, :, ::-1]).all((1, 2, 3))
    kept = (out == images).all((1, 2, 3))
    assert np.all(mirrored ^ kept)
    assert 8 <= mirrored.sum() <= 24


def test_nothing_to_do_is_the_identity(images):
    out = augment(jax.random.key(0), images, padding=0, flip=False)
    np.testing.assert_array_equal(out, images)


def test_bad_input_is_refused_before_any_compute(images):
    plain = inspect.unwrap(augment)  # as users call it, without the checks of types in tests
    with pytest.raises(ValueError, match=r"\(7, 5, 3\).*four axes"):
        plain(jax.random.key(0), images[0])
    with pytest.raises(ValueError, match="-1"):
        plain(jax.random.key(0), images, padding=-1)
