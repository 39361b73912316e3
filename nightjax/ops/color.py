# SPDX-License-Identifier: Apache-2.0
"""Color work on the device: normalization, exposure, jitter, and self-training's augmentation.

Images are float32 [B, H, W, 3], RGB, in [0, 1] unless said. Drawing is kept apart from applying.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from nightjax.ops.blur import gaussian_blur

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MIDDLE_GREY = 0.46
"""The photographers' middle gray, which reflects 18 % of the light, as sRGB stores it."""

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
ORDERS = {
    "any": None,
    "mmseg": ((BRIGHTNESS, CONTRAST, SATURATION, HUE), (BRIGHTNESS, SATURATION, HUE, CONTRAST)),
}
"""Orders of the four operations that an image draws from, all alike likely; None for every order."""


def normalize(image: jax.Array, mean=IMAGENET_MEAN, std=IMAGENET_STD) -> jax.Array:
    """``(image - mean) / std`` per channel, float32, of uint8 or of floats in [0, 1]; [..., 3]."""
    if image.dtype == jnp.uint8:
        image = image.astype(jnp.float32) / 255.0
    return (image.astype(jnp.float32) - np.float32(mean)) / np.float32(std)


def denormalize(image: jax.Array, mean=IMAGENET_MEAN, std=IMAGENET_STD) -> jax.Array:
    """Undoes ``normalize``: [0, 1] floats."""
    return image.astype(jnp.float32) * np.float32(std) + np.float32(mean)


def normalize_exposure(image: jax.Array, target: float = MIDDLE_GREY, floor: float = 1 / 255) -> jax.Array:
    """Scales each image so that its log-average luminance becomes ``target``.

    Source: Reinhard et al. 2002, equation 1, whose key value of 0.18 is of linear light; here values are sRGB's.

    Args:
        image: [B, H, W, 3] in [0, 1].
        target: wanted log-average, reached up to ``floor`` and to clipping.
        floor: added to the luminance before the logarithm; bounds the gain by ``target / floor``.

    Returns:
        [B, H, W, 3] in [0, 1].
    """
    luminance = (image * np.array((0.2126, 0.7152, 0.0722), np.float32)).sum(axis=-1)
    average = jnp.exp(jnp.log(luminance + floor).mean(axis=(1, 2), keepdims=True))
    return jnp.clip(image * (target / average)[..., None], 0.0, 1.0)


@struct.dataclass
class Jitter:
    """Color jitter of each image.

    Attributes:
        brightness: [B], 1 changes nothing; ``brightness - 1`` is added to every channel.
        contrast: [B], multiplies every channel.
        saturation: [B], multiplies the saturation.
        hue: [B] in turns, added to the hue.
        order: [B, 4] int32, the operations (0 brightness, 1 contrast, 2 saturation, 3 hue) in the
            order applied.
    """

    brightness: jax.Array
    contrast: jax.Array
    saturation: jax.Array
    hue: jax.Array
    order: jax.Array


def draw_jitter(
    key: jax.Array,
    batch: int,
    strength: float = 0.2,
    *,
    ranges: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
    each: float = 1.0,
    order: str = "any",
) -> Jitter:
    """Draws the jitter of each image.

    Args:
        key: random key.
        batch: B.
        strength: the first three factors lie in 1 +- ``strength``, the hue in +- ``strength`` turns.
        ranges: multiply ``strength`` for brightness, contrast, saturation and hue.
        each: probability of each operation in each image.
        order: key of `ORDERS`.
    """
    factor_key, order_key = jax.random.split(key)
    factor = jax.random.uniform(factor_key, (4, batch), minval=-strength, maxval=strength)
    factor *= np.array(ranges, np.float32)[:, None]
    if each < 1:
        factor *= jax.random.bernoulli(jax.random.fold_in(key, 1), each, (4, batch))
    if ORDERS[order] is None:
        places = jnp.argsort(jax.random.uniform(order_key, (batch, 4)), axis=1)
    else:
        places = jax.random.choice(order_key, np.int32(ORDERS[order]), (batch,))
    return Jitter(1 + factor[0], 1 + factor[1], 1 + factor[2], factor[3], places)


def apply_jitter(image: jax.Array, jitter: Jitter) -> jax.Array:
    """Applies the four operations in each image's order, clipping to [0, 1] after each.

    The semantics are those of kornia 0.5.8 (brightness is additive, saturation and hue work in
    HSV). Brightness and contrast are cheap; they run where they belong around two passes through
    HSV, whichever of saturation and hue comes first. No branch depends on the data, so images of a
    batch may differ in order.

    Args:
        image: [B, H, W, 3] in [0, 1].
        jitter: factors and orders, [B] and [B, 4].

    Returns:
        [B, H, W, 3] in [0, 1].
    """
    position = jnp.argsort(jitter.order, axis=1)  # [B, 4]: when each operation runs
    saturation_at, hue_at = position[:, SATURATION], position[:, HUE]
    first_hsv, second_hsv = jnp.minimum(saturation_at, hue_at), jnp.maximum(saturation_at, hue_at)
    saturation_first = saturation_at < hue_at

    x = _brightness_contrast(image, jitter, position, -1, first_hsv)
    x = shift_hsv(
        x,
        jnp.where(saturation_first, jitter.saturation, 1.0),
        jnp.where(saturation_first, 0.0, jitter.hue),
    )
    x = _brightness_contrast(x, jitter, position, first_hsv, second_hsv)
    x = shift_hsv(
        x,
        jnp.where(saturation_first, 1.0, jitter.saturation),
        jnp.where(saturation_first, jitter.hue, 0.0),
    )
    return _brightness_contrast(x, jitter, position, second_hsv, 4)


def _brightness_contrast(x, jitter, position, after, before):
    """Applies those of brightness and contrast that run between two positions, in their order."""
    brightness_first = position[:, BRIGHTNESS] < position[:, CONTRAST]
    inside = (position > jnp.asarray(after)[..., None]) & (position < jnp.asarray(before)[..., None])
    for is_brightness in (brightness_first, ~brightness_first):
        active = jnp.where(is_brightness, inside[:, BRIGHTNESS], inside[:, CONTRAST])
        gain = jnp.where(is_brightness, 1.0, jitter.contrast)
        offset = jnp.where(is_brightness, jitter.brightness - 1.0, 0.0)
        changed = jnp.clip(x * _per_image(gain) + _per_image(offset), 0.0, 1.0)
        x = jnp.where(_per_image(active), changed, x)
    return x


def _per_image(value: jax.Array) -> jax.Array:
    return value[:, None, None, None]


def shift_hsv(image: jax.Array, saturation: jax.Array, hue: jax.Array) -> jax.Array:
    """Multiplies the saturation and turns the hue of each image.

    Args:
        image: [B, H, W, 3] in [0, 1].
        saturation: [B] factors; the product is clipped to [0, 1].
        hue: [B] in turns.

    Returns:
        [B, H, W, 3] in [0, 1].
    """
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    value = image.max(axis=-1)
    chroma = value - image.min(axis=-1)
    divisor = jnp.where(chroma == 0, 1.0, chroma)
    sextant = jnp.where(
        red == value,
        (green - blue) / divisor,
        jnp.where(green == value, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    sextant = sextant + 6 * hue[:, None, None]
    scaled = jnp.clip(chroma / (value + 1e-6) * saturation[:, None, None], 0.0, 1.0)
    # Each channel falls from the value by the chroma times a trapezium of the hue, shifted by two
    # sextants each.
    position = (sextant[..., None] + np.array((5, 3, 1), np.float32)) % 6
    fall = jnp.clip(jnp.minimum(position, 4 - position), 0.0, 1.0)
    return value[..., None] * (1 - scaled[..., None] * fall)


def photometric(
    image: jax.Array,
    key: jax.Array,
    *,
    jitter_probability: float = 0.8,
    jitter_strength: float = 0.2,
    jitter_ranges: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
    jitter_each: float = 1.0,
    jitter_order: str = "any",
    blur_probability: float = 0.5,
    blur_sigma: tuple[float, float] = (0.15, 1.15),
) -> jax.Array:
    """Strong augmentation of mixed images: color jitter, then Gaussian blur.

    Source: DACS ``strong_transform``. Whether to jitter and whether to blur is drawn once for the
    batch; factors, orders and sigmas for each image. `MMSEG_DISTORTION` makes it mmsegmentation's
    ``PhotoMetricDistortion``, less its rounding to whole gray levels.

    Args:
        image: [B, H, W, 3] in [0, 1].
        key: random key.
        jitter_probability: of jittering the batch.
        jitter_strength, jitter_ranges, jitter_each, jitter_order: see ``draw_jitter``.
        blur_probability: of blurring the batch.
        blur_sigma: range of the standard deviation, pixels.

    Returns:
        [B, H, W, 3] in [0, 1].
    """
    gate_key, jitter_key, sigma_key = jax.random.split(key, 3)
    gate = jax.random.uniform(gate_key, (2,))
    jitter = draw_jitter(
        jitter_key, image.shape[0], jitter_strength, ranges=jitter_ranges, each=jitter_each, order=jitter_order
    )
    sigma = jax.random.uniform(sigma_key, image.shape[:1], minval=blur_sigma[0], maxval=blur_sigma[1])
    image = image.astype(jnp.float32)
    image = jax.lax.cond(gate[0] < jitter_probability, lambda x: apply_jitter(x, jitter), lambda x: x, image)
    return jax.lax.cond(
        gate[1] < blur_probability,
        lambda x: gaussian_blur(x, sigma, max_sigma=blur_sigma[1]),
        lambda x: x,
        image,
    )


MMSEG_DISTORTION = {
    "jitter_probability": 1.0,
    "jitter_strength": 1.0,
    "jitter_ranges": (32 / 255, 0.5, 0.5, 0.1),
    "jitter_each": 0.5,
    "jitter_order": "mmseg",
    "blur_probability": 0.0,
}
"""Settings of ``photometric``: brightness +- 32 levels, contrast and saturation 0.5 to 1.5, hue +- 36 degrees, each in
half of the images, contrast before or after the other two."""
