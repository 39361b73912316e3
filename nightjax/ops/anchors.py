# SPDX-License-Identifier: Apache-2.0
"""Anchors of a region proposal network, their match to true boxes, and the sample that a step learns from.

Source: maskrcnn-benchmark ``anchor_generator.py``, ``matcher.py``, ``balanced_positive_negative_sampler.py``. Boxes as
    in
`nightjax.ops.boxes`. Labels of anchors: 1 region, 0 background, -1 neither.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from nightjax.core.types import Size
from nightjax.ops.boxes import largest


def cell_anchors(stride: int, sizes: Sequence[float], ratios: Sequence[float]) -> np.ndarray:
    """Anchors of the cell at the origin, float32 [A, 4], by ratio (height / width) and then by size.

    The sides are rounded (half to even) at the size of the stride and then scaled, as in the original Faster R-CNN.
    """
    center = 0.5 * (stride - 1)
    rows = []
    for ratio in ratios:
        width = np.round(np.sqrt(stride**2 / ratio))
        sides = np.array([width, np.round(width * ratio)])
        for size in sizes:
            reach = 0.5 * (sides * size / stride - 1)
            rows.append(np.concatenate([center - reach, center + reach]))
    return np.stack(rows).astype(np.float32)


def grid_anchors(cell: np.ndarray, grid: tuple[int, int], stride: int) -> np.ndarray:
    """Anchors of a level of ``grid`` (h, w) cells, float32 [h * w * A, 4], by y, then x, then anchor."""
    y, x = np.meshgrid(np.arange(grid[0]) * stride, np.arange(grid[1]) * stride, indexing="ij")
    shifts = np.stack([x, y, x, y], -1).reshape(-1, 1, 4).astype(np.float32)
    return (shifts + cell).reshape(-1, 4)


def inside_image(anchors: jax.Array, size: Size) -> jax.Array:
    """Which anchors [N, 4] lie wholly in an image of ``size`` (H, W): bool [N]."""
    return (anchors[:, 0] >= 0) & (anchors[:, 1] >= 0) & (anchors[:, 2] < size[1]) & (anchors[:, 3] < size[0])


def match_anchors(
    iou: jax.Array, valid: jax.Array, high: float = 0.7, low: float = 0.3, low_quality: bool = True
) -> tuple[jax.Array, jax.Array]:
    """Labels anchors by their overlap with the true boxes.

    An anchor is positive from ``high`` on and negative below ``low``. With ``low_quality`` all anchors that reach a
    true box's best overlap, if that is above 0, are positive too, each for the box that *it* overlaps most. (The
    original makes every anchor positive when some box overlaps none.)

    Args:
        iou: [G, N].
        valid: bool [G], which true boxes there are; without any, all anchors are negative.

    Returns:
        Index of the true box int32 [N], and label int32 [N].
    """
    iou = jnp.where(valid[:, None], iou, -1.0)
    best, index = iou.max(0), iou.argmax(0)
    label = jnp.where(best >= high, 1, jnp.where(best < low, 0, -1))
    if low_quality:
        of_box = iou.max(1, keepdims=True)
        label = jnp.where(jnp.any((iou == of_box) & (of_box > 0), axis=0), 1, label)
    return index.astype(jnp.int32), label.astype(jnp.int32)


def sample_anchors(key: jax.Array, label: jax.Array, count: int = 256, positives: float = 0.5) -> jax.Array:
    """Draws anchors uniformly: at most the share ``positives`` of positive ones, the rest negative.

    Args:
        label: int [N]; -1 is never drawn.
        count: how many at most.

    Returns:
        bool [N].
    """
    score = jax.random.uniform(key, label.shape)
    drawn = jnp.zeros(label.shape, bool)
    room = jnp.asarray(count)
    for wanted, most in ((1, int(count * positives)), (0, count)):
        best, index = largest(jnp.where(label == wanted, score, -1.0), most)
        taken = (best >= 0) & (jnp.arange(best.shape[0]) < room)
        drawn = drawn.at[index].max(taken)
        room = room - taken.sum()
    return drawn
