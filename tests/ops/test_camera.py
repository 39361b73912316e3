"""Light and camera of training images."""

import jax
import jax.numpy as jnp
import numpy as np

from nightjax.methods.parts.photometric import CameraLight, Photometric
from nightjax.ops import camera

RANGES = {"stops": (2.0, 1.0), "tint": 0.3, "veil": 0.1, "noise": 0.1, "contrast": 0.4}


def still(batch=1, **values):
    """A camera that changes nothing but what is given."""
    plain = {"exposure": 1.0, "balance": [1.0] * 3, "veil": [0.0] * 3, "noise": 0.0, "contrast": 1.0} | values
    return camera.Camera(**{k: jnp.broadcast_to(jnp.float32(v), (batch, *np.shape(v))) for k, v in plain.items()})


def grays(values):
    return jnp.broadcast_to(jnp.float32(values)[None, :, None, None], (1, len(values), 2, 3))


def test_linear_light_is_that_of_the_standard():
    """Values of IEC 61966-2-1, worked out by hand in float64."""
    values = np.float64([0.0, 0.02, 0.04045, 0.2, 0.5, 1.0])
    wanted = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    np.testing.assert_allclose(camera.to_linear(jnp.float32(values)), wanted, atol=1e-6)
    np.testing.assert_allclose(camera.to_srgb(jnp.float32(wanted)), values, atol=1e-5)


def test_a_still_camera_only_rounds():
    image = grays(np.arange(256) / 255)
    np.testing.assert_allclose(camera.apply_camera(image, still(), jax.random.key(0)), image, atol=1e-6)


def test_exposure_balance_and_veil_act_on_linear_light():
    light = np.float32([0.01, 0.1, 0.3])
    image = camera.to_srgb(grays(light))
    taken = still(exposure=2.0, balance=[1.0, 0.5, 1.5], veil=[0.05, 0.0, 0.1])
    out = camera.to_linear(camera.apply_camera(image, taken, jax.random.key(0)))[0, :, 0]
    wanted = np.clip(light[:, None] * 2 * np.float32([1, 0.5, 1.5]) + np.float32([0.05, 0, 0.1]), 0, 1)
    np.testing.assert_allclose(out, wanted, atol=0.006)  # Of 8 bits.


def test_contrast_turns_about_middle_gray():
    out = camera.apply_camera(camera.to_srgb(grays([0.05, 0.18, 0.6])), still(contrast=1.4), jax.random.key(0))
    dark, middle, bright = camera.to_linear(out)[0, :, 0, 0]
    assert dark < 0.04 and bright > 0.7
    np.testing.assert_allclose(middle, 0.18, atol=0.003)


def test_noise_grows_with_light():
    image = camera.to_srgb(jnp.broadcast_to(jnp.float32([0.2, 0.5])[:, None, None, None], (2, 100, 100, 3)))
    out = camera.to_linear(camera.apply_camera(image, still(2, noise=0.05), jax.random.key(1)))
    wanted = 0.05 * np.sqrt(np.float32([0.2, 0.5]) + camera.DARK_NOISE)
    np.testing.assert_allclose(out.std(axis=(1, 2, 3)), wanted, rtol=0.05)


def test_draws_stay_in_their_ranges_and_spare_as_many_images_as_asked():
    drawn = camera.draw_camera(jax.random.key(3), 4000, probability=0.75, **RANGES)
    changed = drawn.exposure != 1
    assert abs(float(changed.mean()) - 0.75) < 0.03
    assert 0.25 <= drawn.exposure.min() < 0.3 and 1.9 < drawn.exposure.max() <= 2
    assert drawn.noise.min() == 0 and 0.09 < drawn.noise.max() <= 0.1
    assert 1 / 1.4 - 1e-6 <= drawn.contrast.min() < 0.73 and 1.38 < drawn.contrast.max() <= 1.4 + 1e-6
    warm = jnp.log(drawn.balance[changed][:, 0] / drawn.balance[changed][:, 2])
    assert abs(float(warm.std()) - 0.3) < 0.02
    spared = jax.tree.map(lambda x: x[~changed], drawn)
    assert (
        not spared.noise.any()
        and not spared.veil.any()
        and (spared.balance == 1).all()
        and (spared.contrast == 1).all()
    )


def test_the_part_follows_jitter_and_blur_without_changing_their_draws():
    image = jax.random.uniform(jax.random.key(0), (2, 16, 16, 3))
    plain = Photometric()(image, jax.random.key(5))
    still_camera = CameraLight(stops=(0.0, 0.0), tint=0.0, veil=0.0, noise=0.0, contrast=0.0)
    np.testing.assert_allclose(Photometric(camera=still_camera)(image, jax.random.key(5)), plain, atol=0.5 / 255 + 1e-6)
    assert (jnp.abs(Photometric(camera=CameraLight())(image, jax.random.key(5)) - plain) > 0.02).any()
