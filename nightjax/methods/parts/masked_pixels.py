# SPDX-License-Identifier: Apache-2.0
"""Masked image modeling: hidden patches are predicted from the visible ones (SimMIM, arXiv 2111.09886).

The simplest published objective: mask tokens in the encoder, one linear map to pixels, and the L1 distance on what is
hidden. There is no teacher and no decoder. Targets that are normalized by patch are MAE's (arXiv 2111.06377), whose
network learns more from them; at night they keep the few lit patches from being the whole loss.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from nightjax.core.errors import UserError
from nightjax.core.modules import apply, init
from nightjax.core.types import PyTree, Size
from nightjax.losses.segmentation import masked_mean
from nightjax.models.projection import PixelHead
from nightjax.ops import masking
from nightjax.ops.patches import from_patches, to_patches

EPSILON = 1e-6
"""Added to the variance of a patch, as in MAE."""


@dataclasses.dataclass(frozen=True)
class MaskedPixels:
    """Which patches are hidden, and how far the prediction is from them.

    Attributes:
        ratio: expected share of hidden patches, above 0 and at most 1.
        block: side of a hidden block, in patches. SimMIM's blocks have 32 pixels, two of its patches.
        normalized: bring the pixels of each patch to zero mean and unit variance first.
    """

    ratio: float = 0.6
    block: int = 2
    normalized: bool = True

    def __post_init__(self):
        if not 0.0 < self.ratio <= 1.0:
            raise UserError(f"method.masked.ratio={self.ratio} must be above 0 and at most 1")
        if self.block < 1:
            raise UserError(f"method.masked.block={self.block} must be 1 or more")

    def hidden(self, key: jax.Array, batch: int, grid: Size) -> jax.Array:
        """Hidden patches of each image, bool [B, h, w], for a grid (h, w) of patches."""
        draws = masking.draw_blocks(key, batch, grid, self.block)
        return ~masking.kept_pixels(draws, grid, self.ratio)

    def init(self, key: jax.Array, patch: int, features: int) -> PyTree:
        """First parameters of the map from ``features`` channels to the pixels of a patch."""
        return init(PixelHead(patch), key, jnp.zeros((1, 1, 1, features)))["params"]

    def predicted(self, head: PyTree, features: jax.Array, patch: int) -> jax.Array:
        """Pixels [B, h, w, patch * patch * 3] float32 of features [B, h, w, C]."""
        return apply(PixelHead(patch, features.dtype), {"params": head}, features).astype(jnp.float32)

    def targets(self, image: jax.Array, patch: int) -> tuple[jax.Array, jax.Array, jax.Array]:
        """What is to be predicted of images [B, H, W, 3] of whole patches.

        Returns:
            The patches [B, h, w, patch * patch * 3], and the mean and the standard deviation [B, h, w, 1] that were
            taken out of them, 0 and 1 if nothing was.
        """
        patches = to_patches(image, patch)
        if not self.normalized:
            one = jnp.ones((*patches.shape[:3], 1), patches.dtype)
            return patches, 0 * one, one
        mean = patches.mean(axis=-1, keepdims=True)
        deviation = jnp.sqrt(patches.var(axis=-1, keepdims=True, ddof=1) + EPSILON)
        return (patches - mean) / deviation, mean, deviation

    def loss(self, predicted: jax.Array, image: jax.Array, hidden: jax.Array, inside: jax.Array) -> jax.Array:
        """Mean absolute difference on the hidden pixels.

        Args:
            predicted: [B, h, w, patch * patch * 3].
            image: [B, H, W, 3], normalized and of whole patches.
            hidden: bool [B, h, w].
            inside: [B, H, W, 3], 0 on pixels that only fill up the last patches.
        """
        patch = math.isqrt(predicted.shape[-1] // 3)
        target, _, _ = self.targets(image, patch)
        weight = hidden[..., None] * to_patches(inside, patch)
        return masked_mean(jnp.abs(predicted - target), weight, normalizer="weights")

    def completed(self, predicted: jax.Array, image: jax.Array, hidden: jax.Array) -> jax.Array:
        """Images [B, H, W, 3] whose hidden patches are the predicted ones, in the colors that the true patch has."""
        patch = math.isqrt(predicted.shape[-1] // 3)
        _, mean, deviation = self.targets(image, patch)
        patches = jnp.where(hidden[..., None], predicted * deviation + mean, to_patches(image, patch))
        return from_patches(patches, patch)
