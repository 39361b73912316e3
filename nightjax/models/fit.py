# SPDX-License-Identifier: Apache-2.0
"""How an image comes to a size that a backbone of square patches can read."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from nightjax.core.errors import UserError, choose
from nightjax.core.types import Size
from nightjax.ops.resize import resize

RULES = ("none", "pad", "resize")


@dataclasses.dataclass(frozen=True)
class PatchFit:
    """A rule for images whose sides are no multiples of the patch.

    Attributes:
        rule: ``"none"`` refuses them. ``"pad"`` puts zeros, the mean color of normalized images, around them, the
            larger half at the bottom and right (DINOv2's ``CenterPadding``). ``"resize"`` makes every side, multiples
            too, about a tenth longer, to ``int(1.1 * side) // patch * patch`` (VFM-UDA).
        patch: side of a patch in pixels.
    """

    rule: str
    patch: int

    def __post_init__(self):
        choose(dict.fromkeys(RULES), self.rule, "model.backbone_fit")

    def sides(self, size: Size) -> Size:
        """Height and width that the network sees of an image of ``size``.

        Raises:
            UserError: no rule is set and a side is no multiple, or the image is smaller than a patch.
        """
        if self.rule == "resize":
            height, width = (int(side * 1.1) // self.patch * self.patch for side in size)
        else:
            height, width = (-(-side // self.patch) * self.patch for side in size)
        if self.rule == "none" and (height, width) != tuple(size):
            raise UserError(
                f"this backbone reads patches of {self.patch} pixels, and {size[0]}x{size[1]} is no multiple of that: "
                "set model.backbone_fit to pad or resize, or change the crop or resize of the data"
            )
        if not height or not width:
            raise UserError(f"an image of {size[0]}x{size[1]} is smaller than a patch of {self.patch} pixels")
        return height, width

    def borders(self, size: Size) -> tuple[tuple[int, int], tuple[int, int]]:
        """Rows above and below, columns left and right, that ``"pad"`` adds to an image of ``size``."""
        missing = (self.sides(size)[i] - size[i] for i in range(2))
        top, left = ((n // 2, n - n // 2) for n in missing)
        return top, left

    def image(self, x: jax.Array) -> jax.Array:
        """What the network sees of normalized images [B, H, W, 3]."""
        size = x.shape[1:3]
        if self.rule == "pad":
            return jnp.pad(x, ((0, 0), *self.borders(size), (0, 0)))
        return resize(x, self.sides(size), align_corners=False)

    def logits(self, logits: jax.Array, size: Size) -> jax.Array:
        """Logits [B, h, w, K] of what the network saw, as logits of the image of ``size``.

        Padding is cut off at the resolution of the image: [B, H, W, K]. Otherwise they cover the image as they are.
        """
        if self.rule != "pad" or self.sides(size) == tuple(size):
            return logits
        (top, _), (left, _) = self.borders(size)
        whole = resize(logits, self.sides(size), align_corners=False)
        return whole[:, top : top + size[0], left : left + size[1]]


def fit_of(backbone: nn.Module) -> PatchFit | None:
    """The rule of a backbone, its attribute ``image_fit``; None for one that takes any size."""
    return getattr(backbone, "image_fit", None)
