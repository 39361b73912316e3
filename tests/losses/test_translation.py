"""Losses of translators: known values of the specification."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.errors import UserError
from nightjax.losses import translation


def test_constant_scores():
    scores = [jnp.full((2, side, side, 1), 0.5) for side in (8, 4, 2)]
    np.testing.assert_allclose(translation.discriminator_loss(scores, scores), 1.5, rtol=1e-6)
    np.testing.assert_allclose(translation.generator_loss(scores), 0.75, rtol=1e-6)


def test_vanilla_loss_is_cross_entropy_of_logits_and_does_not_saturate():
    scores = [jnp.zeros((1, 2, 2, 1))] * 3
    np.testing.assert_allclose(translation.generator_loss(scores, "vanilla"), 3 * np.log(2), rtol=1e-6)
    np.testing.assert_allclose(translation.discriminator_loss(scores, scores, "vanilla"), 6 * np.log(2), rtol=1e-6)
    far = jnp.full((1, 1, 1, 1), -200.0)
    slope = jax.grad(lambda s: translation.generator_loss([s], "vanilla"))(far)
    np.testing.assert_allclose(slope, -1.0, rtol=1e-6)
    with pytest.raises(UserError, match="did you mean 'vanilla'"):
        translation.generator_loss(scores, "vanila")


def test_code_and_reconstruction():
    np.testing.assert_allclose(translation.code_loss(jnp.full((1, 3, 3, 2), 2.0)), 4.0)
    np.testing.assert_allclose(
        translation.reconstruction_loss(jnp.full((1, 2, 2, 3), 0.5), jnp.zeros((1, 2, 2, 3))), 0.5
    )


@pytest.mark.parametrize(("value", "bgr"), [(0.0, (23.561, 10.721, 3.820)), (-1.0, (-103.939, -116.779, -123.680))])
def test_caffe_pixels(value, bgr):
    np.testing.assert_allclose(translation.caffe_bgr(jnp.full((1, 1, 1, 3), value))[0, 0, 0], bgr, atol=1e-4)


def test_pixels_swap_channels_for_caffe_only():
    red = jnp.array([1.0, -1.0, -1.0]).reshape(1, 1, 1, 3)
    assert translation.caffe_bgr(red)[0, 0, 0].argmax() == 2
    assert translation.imagenet_rgb(red)[0, 0, 0].argmax() == 0
    gray = translation.imagenet_rgb(jnp.full((1, 1, 1, 3), 2 * 0.485 - 1))
    np.testing.assert_allclose(gray[0, 0, 0, 0], 0.0, atol=1e-6)


def test_perceptual_loss_is_0_for_equals_and_4_for_opposites():
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 5))
    identity = lambda x: x
    assert translation.perceptual_loss(identity, x, x) == 0
    np.testing.assert_allclose(translation.perceptual_loss(identity, x, -x), 4.0, rtol=1e-3)


def test_perceptual_loss_ignores_scale_and_counts_dead_channels():
    keys = jax.random.split(jax.random.key(0))
    x, y = (jax.random.normal(key, (1, 8, 8, 4)) for key in keys)
    loss = translation.perceptual_loss(lambda x: x, x, y)
    scaled = translation.perceptual_loss(lambda x: x * jnp.array([0.5, 2.0, 10.0, 100.0]), x, y)
    np.testing.assert_allclose(scaled, loss, rtol=1e-3)
    assert 0 < loss < 4
    dead = jnp.zeros((1, 8, 8, 4))
    assert translation.perceptual_loss(lambda x: x, dead, dead) == 0
    np.testing.assert_allclose(translation.perceptual_loss(lambda x: x, x, dead), 1.0, rtol=1e-3)
