"""Normalization, exposure, jitter and blur."""

import colorsys
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.ops import color
from nightjax.ops.blur import blur_kernel_size, gaussian_blur

IMAGE = np.random.default_rng(0).random((2, 5, 6, 3), np.float32)


def test_normalize_and_back():
    image = np.array([[[[0, 128, 255]]]], np.uint8)
    expected = (np.array([0, 128, 255]) / 255 - color.IMAGENET_MEAN) / np.array(color.IMAGENET_STD)
    out = color.normalize(jnp.asarray(image))
    np.testing.assert_allclose(out[0, 0, 0], expected, rtol=1e-5)
    np.testing.assert_allclose(color.denormalize(out), image / 255, atol=1e-6)
    np.testing.assert_allclose(color.normalize(jnp.asarray(image), (0.5,) * 3, (0.5,) * 3)[0, 0, 0, 0], -1)


def test_exposure_reaches_the_target_whatever_the_gain():
    image = jnp.asarray(0.1 + 0.1 * IMAGE)
    out = color.normalize_exposure(image, target=0.3, floor=1e-6)
    luminance = (out * np.array((0.2126, 0.7152, 0.0722))).sum(-1)
    np.testing.assert_allclose(np.exp(np.log(luminance).mean((1, 2))), 0.3, rtol=1e-4)
    np.testing.assert_allclose(color.normalize_exposure(image * 2, 0.3, 1e-6), out, rtol=1e-4)
    dark = color.normalize_exposure(jnp.zeros((1, 2, 2, 3)))
    bright = color.normalize_exposure(jnp.full((1, 2, 2, 3), 1e-3).at[0, 0, 0].set(1.0))
    np.testing.assert_array_equal(dark, 0)
    assert bright.max() <= 1


def reference_jitter(pixel, brightness, contrast, saturation, hue, order):
    """One pixel through the standard library's HSV."""
    for operation in order:
        if operation == color.BRIGHTNESS:
            pixel = [min(max(v + brightness - 1, 0), 1) for v in pixel]
        elif operation == color.CONTRAST:
            pixel = [min(max(v * contrast, 0), 1) for v in pixel]
        else:
            h, s, v = colorsys.rgb_to_hsv(*pixel)
            if operation == color.SATURATION:
                s = min(max(s * saturation, 0), 1)
            else:
                h = (h + hue) % 1
            pixel = colorsys.hsv_to_rgb(h, s, v)
    return pixel


def test_jitter_in_every_order():
    orders = np.array(list(itertools.permutations(range(4))), np.int32)
    rng = np.random.default_rng(1)
    image = rng.random((24, 1, 3, 3), np.float32)
    low, high = [[0.6], [0.6], [0.6], [-0.4]], [[1.4], [1.4], [1.4], [0.4]]
    factors = rng.uniform(low, high, (4, 24)).astype(np.float32)
    out = color.apply_jitter(jnp.asarray(image), color.Jitter(*jnp.asarray(factors), order=jnp.asarray(orders)))
    for i, j in np.ndindex(24, 3):
        expected = reference_jitter(image[i, 0, j].tolist(), *factors[:, i].tolist(), orders[i])
        np.testing.assert_allclose(out[i, 0, j], expected, atol=2e-5)


def test_drawn_jitter_ranges():
    jitter = color.draw_jitter(jax.random.key(0), 500, strength=0.3)
    for factor in (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue + 1):
        assert 0.7 <= factor.min() < 0.72 and 1.28 < factor.max() <= 1.3
    assert len(np.unique(np.asarray(jitter.order), axis=0)) == 24


def test_mmsegmentations_distortion():
    """Ranges, that each operation changes about half of the images, and that contrast comes second or last."""
    settings = {k.removeprefix("jitter_"): v for k, v in color.MMSEG_DISTORTION.items() if "blur" not in k}
    del settings["probability"]
    jitter = color.draw_jitter(jax.random.key(0), 2000, **settings)
    factors = jnp.stack([jitter.brightness - 1, jitter.contrast - 1, jitter.saturation - 1, jitter.hue])
    for value, reach in zip(factors, (32 / 255, 0.5, 0.5, 0.1), strict=True):
        assert -reach <= value.min() < -0.98 * reach and 0.98 * reach < value.max() <= reach + 1e-6
        assert abs((value == 0).mean() - 0.5) < 0.05
    orders, times = np.unique(np.asarray(jitter.order), axis=0, return_counts=True)
    np.testing.assert_array_equal(orders, [[0, 1, 2, 3], [0, 2, 3, 1]])
    assert abs(times[0] / 2000 - 0.5) < 0.05
    assert np.abs(np.corrcoef(factors != 0) - np.eye(4)).max() < 0.1
    image = jnp.asarray(np.random.default_rng(0).random((8, 6, 5, 3), np.float32))
    np.testing.assert_allclose(
        color.photometric(image, jax.random.key(1), **color.MMSEG_DISTORTION),
        color.apply_jitter(image, color.draw_jitter(jax.random.split(jax.random.key(1), 3)[1], 8, **settings)),
        atol=1e-5,
    )


def test_blur_kernel_sizes():
    assert [blur_kernel_size(side) for side in (512, 1024, 20, 101)] == [51, 103, 1, 11]


@pytest.mark.parametrize("max_sigma", [None, 2.0])
def test_blur_is_per_image_keeps_the_mean_and_reflects(max_sigma):
    impulse = jnp.zeros((2, 41, 41, 1)).at[:, 20, 20].set(1.0)
    out = gaussian_blur(impulse, jnp.array([1.0, 2.0]), (31, 31), max_sigma=max_sigma)
    np.testing.assert_allclose(out.sum((1, 2, 3)), 1.0, rtol=1e-5)
    np.testing.assert_allclose(out[:, 20, 20, 0], [1 / (2 * np.pi), 1 / (8 * np.pi)], rtol=1e-3)
    edge = gaussian_blur(jnp.zeros((1, 9, 9, 1)).at[0, :, 1].set(1.0), jnp.array([1.0]), (3, 3))
    kernel = np.exp(-0.5) / (1 + 2 * np.exp(-0.5))
    np.testing.assert_allclose(edge[0, 4, 0, 0], 2 * kernel, rtol=1e-5)


def test_photometric_gates_and_range():
    image = jnp.asarray(np.random.default_rng(0).random((2, 32, 40, 3), np.float32))
    keys = jax.random.split(jax.random.key(0), 2)
    off = color.photometric(image, keys[0], jitter_probability=0.0, blur_probability=0.0)
    np.testing.assert_array_equal(off, image)
    jittered = color.photometric(image, keys[0], jitter_probability=1.0, blur_probability=0.0)
    blurred = color.photometric(image, keys[0], jitter_probability=0.0, blur_probability=1.0, blur_sigma=(1.0, 1.1))
    both = color.photometric(image, keys[0], jitter_probability=1.0, blur_probability=1.0, blur_sigma=(1.0, 1.1))
    assert np.abs(jittered - image).max() > 0.02
    assert blurred.std() < 0.9 * image.std()
    for out in (jittered, blurred, both):
        assert out.shape == image.shape and out.min() >= 0 and out.max() <= 1 + 1e-6
    same = color.photometric(image, keys[0], jitter_probability=1.0, jitter_strength=0.0, blur_probability=0.0)
    np.testing.assert_allclose(same, image, atol=1e-5)
    assert np.abs(color.photometric(image, keys[1], jitter_probability=1.0, blur_probability=0.0) - jittered).max() > 0
