# SPDX-License-Identifier: Apache-2.0
"""Masked feature prediction: gradients of hidden patches are predicted from the visible ones (MaskFeat).

Source: arXiv 2112.09133. One network, mask tokens and one linear map to histograms of oriented gradients. There is no
teacher and no decoder. The histograms are normalized cell by cell, so what is dark counts as much as what is lit.
"""

import dataclasses

import jax
import jax.numpy as jnp

from nightjax.core.errors import UserError
from nightjax.core.modules import apply, init
from nightjax.core.types import PyTree, Size
from nightjax.losses.segmentation import masked_mean
from nightjax.models.projection import GradientHead
from nightjax.ops import masking
from nightjax.ops.gradient_histograms import BINS, gradient_histograms
from nightjax.ops.patches import from_patches, to_patches

CHANNELS = 3 * BINS
"""Of the histograms of one cell: those of red, green and blue."""


def cells(patch: int) -> int:
    """Cells along a side of a patch: two, as in MaskFeat, or one where its pixels cannot be halved."""
    return 1 if patch % 2 else 2


@dataclasses.dataclass(frozen=True)
class MaskedGradients:
    """Which patches are hidden, and how far the prediction is from them.

    Attributes:
        ratio: expected share of hidden patches, above 0 and at most 1.
        block: side of a hidden block, in patches.
    """

    ratio: float = 0.6
    block: int = 2

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
        """First parameters of the map from ``features`` channels to the histograms of a patch."""
        return init(_head(patch), key, jnp.zeros((1, 1, 1, features)))["params"]

    def predicted(self, head: PyTree, features: jax.Array, patch: int) -> jax.Array:
        """Histograms [B, h, w, cells * cells * CHANNELS] float32 of features [B, h, w, C]."""
        return apply(_head(patch, features.dtype), {"params": head}, features).astype(jnp.float32)

    def targets(self, image: jax.Array, patch: int) -> jax.Array:
        """The histograms of images [B, H, W, 3] of whole patches, [B, h, w, cells * cells * CHANNELS]."""
        found = gradient_histograms(image, patch // cells(patch))
        return to_patches(found.reshape(*found.shape[:3], CHANNELS), cells(patch))

    def loss(self, predicted: jax.Array, image: jax.Array, hidden: jax.Array, inside: jax.Array) -> jax.Array:
        """Mean squared difference on the hidden patches.

        Args:
            predicted: [B, h, w, cells * cells * CHANNELS].
            image: [B, H, W, 3], normalized and of whole patches.
            hidden: bool [B, h, w].
            inside: [B, H, W, 3], 0 on pixels that only fill up the last patches; a patch with such pixels is no target.
        """
        patch = image.shape[1] // hidden.shape[1]
        difference = jnp.square(predicted - self.targets(image, patch)).mean(axis=-1)
        return masked_mean(difference, hidden * to_patches(inside, patch).min(axis=-1), normalizer="weights")

    def completed(self, predicted: jax.Array, image: jax.Array, hidden: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Two drawings [B, H, W, 3] in [0, 1] of the directions of gradients: the true ones, and those with the
        predicted ones where patches are hidden. Red, green and blue are a third of a half turn each."""
        patch = image.shape[1] // hidden.shape[1]
        true = self.targets(image, patch)
        return _drawn(true, patch), _drawn(jnp.where(hidden[..., None], predicted, true), patch)


def _head(patch: int, dtype=jnp.float32) -> GradientHead:
    return GradientHead(cells(patch) ** 2 * CHANNELS, dtype)


def _drawn(histograms: jax.Array, patch: int) -> jax.Array:
    found = from_patches(histograms, cells(patch))
    thirds = found.reshape(*found.shape[:3], 3, 3, BINS // 3).mean(axis=(3, 5))
    side = patch // cells(patch)
    return jnp.clip(jnp.repeat(jnp.repeat(thirds, side, 1), side, 2), 0.0, 1.0)
