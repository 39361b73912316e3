"""Color jitter and blur of training images, on the device."""

import dataclasses
from typing import Literal

import jax

from nightjax.ops import color


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

    probability: float = 0.8
    strength: float = 0.2
    ranges: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    each: float = 1.0
    order: Literal["any", "mmseg"] = "any"


@dataclasses.dataclass(frozen=True)
class GaussianBlur:
    """Random blur.

    Attributes:
        probability: of blurring a batch.
        sigma: range of the standard deviation, pixels.
    """

    probability: float = 0.5
    sigma: tuple[float, float] = (0.15, 1.15)


@dataclasses.dataclass(frozen=True)
class Photometric:
    """Photometric augmentation; the defaults are those of DACS.

    Attributes:
        jitter: of the colors, or None.
        blur: of the sharpness, or None.
    """

    jitter: ColorJitter | None = ColorJitter()
    blur: GaussianBlur | None = GaussianBlur()

    def __call__(self, image: jax.Array, key: jax.Array) -> jax.Array:
        """[B, H, W, 3] float32 in [0, 1] to the same."""
        jitter, blur = self.jitter or ColorJitter(probability=0.0), self.blur or GaussianBlur(probability=0.0)
        return color.photometric(
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
