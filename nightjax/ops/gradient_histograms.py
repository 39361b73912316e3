# SPDX-License-Identifier: Apache-2.0
"""Histograms of oriented gradients (Dalal and Triggs, CVPR 2005), in the form that MaskFeat predicts.

Source: arXiv 2112.09133, ``slowfast/models/operators.py`` of its official repository.
"""

import jax
import jax.numpy as jnp
import numpy as np

BINS = 9
"""Directions of a histogram, over half a turn: an edge from dark to bright is one from bright to dark."""

_SMOOTH, _DIFFERENCE = np.array([1.0, 2.0, 1.0], np.float32), np.array([1.0, 0.0, -1.0], np.float32)


def gradient_histograms(image: jax.Array, cell: int) -> jax.Array:
    """How strongly the brightness of each cell changes in which direction, apart for each color.

    Sobel gradients vote with their length for one of `BINS` directions; each histogram has unit length, so that dark
    cells count as much as lit ones. Cells without any gradient have zeros.

    Args:
        image: float [B, H, W, C]; only differences count. H and W are multiples of ``cell``.
        cell: side of a cell in pixels.

    Returns:
        [B, H / cell, W / cell, C, BINS] float32 in [0, 1].
    """
    x = jnp.pad(image.astype(jnp.float32), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    across = _along(_along(x, _SMOOTH, 1), _DIFFERENCE, 2)
    down = _along(_along(x, _DIFFERENCE, 1), _SMOOTH, 2)
    turn = jnp.arctan2(across, down) / jnp.pi * BINS
    votes = jax.nn.one_hot(jnp.floor(turn).astype(jnp.int32) % BINS, BINS) * jnp.hypot(across, down)[..., None]
    batch, height, width, channels = image.shape
    cells = votes.reshape(batch, height // cell, cell, width // cell, cell, channels, BINS).sum(axis=(2, 4))
    return cells / jnp.maximum(jnp.linalg.norm(cells, axis=-1, keepdims=True), 1e-12)


def _along(x: jax.Array, kernel: np.ndarray, axis: int) -> jax.Array:
    """Correlation with three numbers along one axis, which loses a place at either end."""
    size = x.shape[axis] - 2
    parts = [float(k) * jax.lax.slice_in_dim(x, i, i + size, axis=axis) for i, k in enumerate(kernel)]
    return parts[0] + parts[1] + parts[2]
