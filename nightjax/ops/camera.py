# SPDX-License-Identifier: Apache-2.0
"""What a camera makes of a scene's light, on the device: exposure, white balance, scattered light, noise and tone.

Ours. The equations are those of a raw converter: light is linear, noise grows with it, and 8 bits are left at the end.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

MIDDLE_GRAY = 0.18
"""Linear light that the tone curve leaves as it is."""
DARK_NOISE = 0.01
"""Light whose shot noise is as strong as the noise of the dark sensor."""


@struct.dataclass
class Camera:
    """One camera setting for each image.

    Attributes:
        exposure: [B], multiplies the light.
        balance: [B, 3], multiplies the channels.
        veil: [B, 3], scattered light that is added everywhere; 1 is white.
        noise: [B], standard deviation of the noise of white.
        contrast: [B], exponent of the tone curve around `MIDDLE_GRAY`.
    """

    exposure: jax.Array
    balance: jax.Array
    veil: jax.Array
    noise: jax.Array
    contrast: jax.Array


def draw_camera(
    key: jax.Array,
    batch: int,
    *,
    probability: float,
    stops: tuple[float, float],
    tint: float,
    veil: float,
    noise: float,
    contrast: float,
) -> Camera:
    """Draws a camera for each image.

    Args:
        key: random key.
        batch: B.
        probability: of changing an image; the others keep their light, without noise.
        stops: how many stops, powers of 2, darker and how many brighter the exposure may be.
        tint: standard deviation of the natural logarithm of red over blue, from candlelight to LEDs; that of green over
            both is a third of it.
        veil: largest scattered light; its square root is uniform, so that little of it is most common.
        noise: largest standard deviation of the noise, drawn like ``veil``.
        contrast: the exponent lies between ``1 / (1 + contrast)`` and ``1 + contrast``.
    """
    keys = jax.random.split(key, 6)
    on = jax.random.bernoulli(keys[0], probability, (batch,)).astype(jnp.float32)
    exposure = jnp.exp2(on * jax.random.uniform(keys[1], (batch,), minval=-stops[0], maxval=stops[1]))
    warm, green = tint * on * jax.random.normal(keys[2], (2, batch))
    balance = jnp.exp(jnp.stack([warm / 2, green / 3, -warm / 2], axis=1))
    levels = jnp.square(jax.random.uniform(keys[3], (2, batch))) * on
    scattered = (veil * levels[0])[:, None] * jnp.exp(0.5 * tint * jax.random.normal(keys[4], (batch, 3)))
    tone = np.log1p(contrast) * on * jax.random.uniform(keys[5], (batch,), minval=-1.0)
    return Camera(exposure, balance, scattered, noise * levels[1], jnp.exp(tone))


def apply_camera(image: jax.Array, camera: Camera, key: jax.Array) -> jax.Array:
    """The image as another camera would have taken it.

    Args:
        image: [B, H, W, 3] in [0, 1], sRGB.
        camera: of each image.
        key: random key of the noise.

    Returns:
        [B, H, W, 3] float32 in [0, 1], sRGB, rounded to 8 bits.
    """
    light = to_linear(image.astype(jnp.float32))
    light = light * (camera.exposure[:, None] * camera.balance)[:, None, None] + camera.veil[:, None, None]
    sigma = camera.noise[:, None, None, None] * jnp.sqrt(light + DARK_NOISE)
    light = jnp.clip(light + sigma * jax.random.normal(key, light.shape), 0.0, 1.0)
    light = MIDDLE_GRAY * (light / MIDDLE_GRAY) ** camera.contrast[:, None, None, None]
    return jnp.round(255 * to_srgb(jnp.clip(light, 0.0, 1.0))) / 255


def to_linear(image: jax.Array) -> jax.Array:
    """sRGB values in [0, 1] to linear light in [0, 1] (IEC 61966-2-1)."""
    return jnp.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)


def to_srgb(light: jax.Array) -> jax.Array:
    """The inverse of `to_linear`."""
    return jnp.where(light <= 0.0031308, 12.92 * light, 1.055 * jnp.maximum(light, 0.0031308) ** (1 / 2.4) - 0.055)
