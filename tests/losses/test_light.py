"""Terms of the light loss: analytic values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.errors import UserError
from nightjax.losses.light import exposure_loss, light_loss, ssim_map, total_variation


def noise(seed, shape=(2, 16, 20, 3)):
    return jax.random.normal(jax.random.key(seed), shape)


def test_total_variation_sees_differences_only():
    residual = noise(0)
    loss = total_variation(residual)
    assert total_variation(jnp.full_like(residual, 0.7)) == 0
    np.testing.assert_allclose(total_variation(residual + 5), loss, rtol=1e-5)
    np.testing.assert_allclose(total_variation(3 * residual), 9 * loss, rtol=1e-5)


def test_total_variation_of_a_ramp():
    ramp = jnp.broadcast_to(2.0 * jnp.arange(5.0)[None, None, :, None], (2, 4, 5, 3))
    # 2 / B * sum / (H * (W - 1)): every one of B * H * (W - 1) steps is 4, in three channels.
    np.testing.assert_allclose(total_variation(ramp), 2 * 4 * 3, rtol=1e-6)
    np.testing.assert_allclose(total_variation(ramp, form="paper"), 4 * 3 * 4 / 5, rtol=1e-6)


def test_exposure_measures_the_distance_of_cell_means():
    level = jnp.float32(-0.4)
    image = jnp.full((1, 64, 64, 3), level)
    np.testing.assert_allclose(exposure_loss(image, level), 0, atol=1e-12)
    np.testing.assert_allclose(exposure_loss(image + 0.5, level), 0.25, rtol=1e-5)
    np.testing.assert_allclose(exposure_loss(image - 1.0, level), 1.0, rtol=1e-5)
    np.testing.assert_allclose(exposure_loss(image - 0.5, level, form="paper"), 0.5, rtol=1e-5)
    zero_mean = jnp.where(jnp.arange(64)[:, None, None] % 2, 1.0, -1.0) * jnp.ones((1, 64, 64, 3))
    np.testing.assert_allclose(exposure_loss(zero_mean, 0.0), 0, atol=1e-12)


def test_exposure_drops_what_is_beyond_the_last_whole_cell():
    image = jnp.zeros((1, 100, 70, 3)).at[:, 96:].set(9.0).at[:, :, 64:].set(9.0)
    assert exposure_loss(image, 0.0) == 0
    one_of_six = jnp.zeros((1, 100, 70, 3)).at[:, :32, :32].set(1.0)
    np.testing.assert_allclose(exposure_loss(one_of_six, 0.0), 1 / 6, rtol=1e-6)


def test_ssim_is_a_symmetric_dissimilarity():
    x, y = noise(0), noise(1)
    forward = ssim_map(x, y)
    np.testing.assert_allclose(ssim_map(x, x), 0, atol=1e-5)
    np.testing.assert_allclose(ssim_map(y, x), forward, atol=1e-5)
    assert forward.shape == x.shape
    assert float(forward.min()) >= 0 and float(forward.max()) <= 1
    np.testing.assert_allclose(ssim_map(x, -x).max(), 1, atol=1e-3)


def test_light_loss_is_the_weighted_sum_of_its_terms():
    image, residual = noise(0, (1, 32, 36, 3)), 0.1 * noise(1, (1, 32, 36, 3))
    for form in ("official", "paper"):
        terms = light_loss(image, residual, jnp.float32(0.3), form=form)
        total = 10 * terms["tv"] + terms["ssim"] + terms["exposure"]
        np.testing.assert_allclose(terms["total"], total, rtol=1e-6)


def test_no_gradient_into_the_level():
    def loss(level):
        return light_loss(noise(0, (1, 32, 32, 3)), noise(1, (1, 32, 32, 3)), level)["total"]

    assert jax.grad(loss)(0.3) == 0


def test_user_errors():
    with pytest.raises(UserError, match="use one of official, paper"):
        total_variation(noise(0), form="code")
    with pytest.raises(UserError, match="smaller than a cell of 32"):
        exposure_loss(noise(0), 0.0)
