# SPDX-License-Identifier: Apache-2.0
"""Images as grids of square patches, and back."""

import jax


def to_patches(image: jax.Array, patch: int) -> jax.Array:
    """Images [B, H, W, C] of whole patches to [B, H / patch, W / patch, patch * patch * C], each row by row."""
    batch, height, width, channels = image.shape
    rows, columns = height // patch, width // patch
    x = image.reshape(batch, rows, patch, columns, patch, channels).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, rows, columns, patch * patch * channels)


def from_patches(patches: jax.Array, patch: int) -> jax.Array:
    """The inverse of `to_patches`."""
    batch, rows, columns, size = patches.shape
    x = patches.reshape(batch, rows, columns, patch, patch, size // patch**2).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, rows * patch, columns * patch, size // patch**2)
