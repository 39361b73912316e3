# SPDX-License-Identifier: Apache-2.0
"""Color jitter, blur and the light and camera of training images, on the device."""

import dataclasses
from typing import Literal

import jax

from nightjax.core.ranges import Share
from nightjax.ops import camera, color


@dataclasses.dataclass(frozen=True)
class ColorJitter:
    """Random brightness, contrast, saturation and hue; see `color.draw_jitter`.

    Attributes:
        probability: of jittering a batch.
        strength: range of the factors around 1, and of the hue in turns.
        ranges: multiply ``strength`` for brightness, contrast, saturation and hue.
        each: probability of each operation in each image.
        order: of the four operations, ``"any"`` or mmsegmentation's.
    """

    probability: Share = 0.8
    strength: float = 0.2
    ranges: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    each: Share = 1.0
    order: Literal["any", "mmseg"] = "any"


@dataclasses.dataclass(frozen=True)
class GaussianBlur:
    """Random blur.

    Attributes:
        probability: of blurring a batch.
        sigma: range of the standard deviation, pixels.
    """

    probability: Share = 0.5
    sigma: tuple[float, float] = (0.15, 1.15)


@dataclasses.dataclass(frozen=True)
class CameraLight:
    """Random light and camera of each image, after jitter and blur; see `camera.draw_camera`. Ours.

    Attributes:
        probability: of changing an image.
        stops: how many stops darker and how many brighter the exposure may be.
        tint: spread of the white balance.
        veil: largest scattered light; 1 is white.
        noise: largest standard deviation of the noise of white.
        contrast: range of the tone curve.
    """

    probability: Share = 0.8
    stops: tuple[float, float] = (3.0, 1.0)
    tint: float = 0.3
    veil: float = 0.1
    noise: float = 0.1
    contrast: float = 0.4


@dataclasses.dataclass(frozen=True)
class Photometric:
    """Photometric augmentation; the defaults are those of DACS.

    Attributes:
        jitter: of the colors, or None.
        blur: of the sharpness, or None.
        camera: light and camera, or None.
    """

    jitter: ColorJitter | None = ColorJitter()
    blur: GaussianBlur | None = GaussianBlur()
    camera: CameraLight | None = None

    def __call__(self, image: jax.Array, key: jax.Array) -> jax.Array:
        """[B, H, W, 3] float32 in [0, 1] to the same."""
        jitter, blur = self.jitter or ColorJitter(probability=0.0), self.blur or GaussianBlur(probability=0.0)
        image = color.photometric(
            image,
            key,
            jitter_probability=jitter.probability,
            jitter_strength=jitter.strength,
            jitter_ranges=jitter.ranges,
            jitter_each=jitter.each,
            jitter_order=jitter.order,
            blur_probability=blur.probability,
            blur_sigma=blur.sigma,
        )
        if self.camera is None:
            return image
        draw_key, noise_key = jax.random.split(jax.random.fold_in(key, 1))
        drawn = camera.draw_camera(draw_key, image.shape[0], **dataclasses.asdict(self.camera))
        return camera.apply_camera(image, drawn, noise_key)
