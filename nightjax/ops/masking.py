# SPDX-License-Identifier: Apache-2.0
"""Masks of masked image consistency: square blocks of an image that the student must infer from their surroundings.

Source: MIC (arXiv 2212.01322), ``mmseg/models/utils/masking_transforms.py`` of its official repository. Drawing is kept
apart from applying.
"""

import jax
import jax.numpy as jnp

from nightjax.core.types import Size
from nightjax.ops.resize import resize_nearest


def block_grid(size: Size, block: int) -> tuple[int, int]:
    """Rows and columns of blocks in an image of ``size`` (H, W).

    The number of blocks is rounded, ties to even, so blocks only have ``block`` pixels a side where that divides the
    image. There is at least one.
    """
    return max(1, round(size[0] / block)), max(1, round(size[1] / block))


def draw_blocks(key: jax.Array, batch: int, size: Size, block: int) -> jax.Array:
    """One uniform number in [0, 1) for each block of each image: float32 [B, rows, columns]."""
    return jax.random.uniform(key, (batch, *block_grid(size, block)))


def kept_pixels(draws: jax.Array, size: Size, ratio: float) -> jax.Array:
    """The pixels that masking leaves, those of blocks whose number is above ``ratio``.

    Args:
        draws: [B, rows, columns] of `draw_blocks`.
        size: (H, W) of the images.
        ratio: expected share of masked pixels. A number equal to it masks.

    Returns:
        Bool [B, H, W].
    """
    return resize_nearest(draws > ratio, size)


def draw_tokens(key: jax.Array, batch: int, count: int) -> jax.Array:
    """One uniform number in [0, 1) for each of ``count`` tokens of each image: float32 [B, count]."""
    return jax.random.uniform(key, (batch, count))


def masked_tokens(draws: jax.Array, ratio: float) -> jax.Array:
    """The tokens that a mask token replaces, those whose number is below ``ratio``: bool, shaped like ``draws``.

    A number equal to the ratio leaves its token, while a block of such a number is masked. Source: VFM-UDA (arXiv
    2406.09896), ``models/vit_variants/token_masking.py`` of its official repository.
    """
    return draws < ratio


def mask_pixels(image: jax.Array, kept: jax.Array, fill: tuple[float, ...]) -> jax.Array:
    """Images [B, H, W, C] with the color ``fill`` (C numbers) where ``kept`` [B, H, W] is False."""
    return jnp.where(kept[..., None], image, jnp.asarray(fill, image.dtype))
