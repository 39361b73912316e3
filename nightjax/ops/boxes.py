# SPDX-License-Identifier: Apache-2.0
"""Boxes in static shapes: area, IoU, box code, clipping, non-maximum suppression, the best of many.

Boxes are (x1, y1, x2, y2) float32 with *inclusive* corners, in pixels: a box of one pixel has x1 = x2 and width 1
(maskrcnn-benchmark's convention). Regions of an image are half-open; `half_open` and `inclusive` convert, and they are
the only places that do. A set of boxes has a fixed length and a mask ``valid``; what the others hold does not matter.
"""

import math

import jax
import jax.numpy as jnp

from nightjax.core.types import Size

MAX_LOG_SCALE = math.log(1000 / 16)
"""Largest decoded log-ratio of sides."""


def half_open(boxes: jax.Array) -> jax.Array:
    """Inclusive corners to [x1, x2) x [y1, y2)."""
    return boxes + jnp.array([0.0, 0.0, 1.0, 1.0])


def inclusive(regions: jax.Array) -> jax.Array:
    """The inverse of `half_open`."""
    return regions - jnp.array([0.0, 0.0, 1.0, 1.0])


def box_area(boxes: jax.Array) -> jax.Array:
    """Pixels of boxes [..., 4]: [...]."""
    return (boxes[..., 2] - boxes[..., 0] + 1) * (boxes[..., 3] - boxes[..., 1] + 1)


def box_iou(one: jax.Array, two: jax.Array) -> jax.Array:
    """Intersection over union of every pair: [..., N, 4] and [..., M, 4] to [..., N, M]."""
    a, b = one[..., :, None, :], two[..., None, :, :]
    sides = jnp.minimum(a[..., 2:], b[..., 2:]) - jnp.maximum(a[..., :2], b[..., :2]) + 1
    shared = jnp.maximum(sides, 0.0).prod(-1)
    return shared / (box_area(one)[..., :, None] + box_area(two)[..., None, :] - shared)


def encode_boxes(boxes: jax.Array, anchors: jax.Array, weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)) -> jax.Array:
    """Offsets of boxes from anchors; see maskrcnn-benchmark ``BoxCoder``.

    Args:
        boxes, anchors: [..., 4].
        weights: factors of the four numbers.

    Returns:
        [..., 4]: shift of the center in sides of the anchor, and log-ratio of the sides.
    """
    center, sides = _center_and_sides(anchors)
    box_center, box_sides = _center_and_sides(boxes)
    code = jnp.concatenate([(box_center - center) / sides, jnp.log(box_sides / sides)], -1)
    return code * jnp.asarray(weights)


def decode_boxes(code: jax.Array, anchors: jax.Array, weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)) -> jax.Array:
    """The inverse of `encode_boxes`; log-ratios are cut at `MAX_LOG_SCALE`."""
    center, sides = _center_and_sides(anchors)
    code = code / jnp.asarray(weights)
    center = code[..., :2] * sides + center
    sides = jnp.exp(jnp.minimum(code[..., 2:], MAX_LOG_SCALE)) * sides
    return jnp.concatenate([center - 0.5 * sides, center + 0.5 * sides - 1], -1)


def _center_and_sides(boxes: jax.Array) -> tuple[jax.Array, jax.Array]:
    sides = boxes[..., 2:] - boxes[..., :2] + 1
    return boxes[..., :2] + 0.5 * sides, sides


def clip_boxes(boxes: jax.Array, size: Size) -> jax.Array:
    """Cuts boxes [..., 4] to an image of ``size`` (H, W): corners in [0, W - 1] x [0, H - 1]."""
    return jnp.clip(boxes, 0.0, jnp.array([size[1] - 1, size[0] - 1] * 2, jnp.float32))


def nms(boxes: jax.Array, scores: jax.Array, threshold: float, valid: jax.Array | None = None) -> jax.Array:
    """Greedy non-maximum suppression.

    A box goes if a better one that stays overlaps it by an IoU *above* the threshold (the CUDA rule of
    maskrcnn-benchmark; its CPU code suppresses at equality too). Of equal scores the lower index is the better.

    Args:
        boxes: [N, 4].
        scores: [N].
        threshold: IoU.
        valid: bool [N]; others neither stay nor suppress. None for all.

    Returns:
        bool [N], which boxes stay, in the order given.
    """
    valid = jnp.ones(scores.shape, bool) if valid is None else valid
    index = jnp.arange(scores.shape[0])
    better = scores[:, None] > scores[None]
    better |= (scores[:, None] == scores[None]) & (index[:, None] < index[None])
    suppresses = better & (box_iou(boxes, boxes) > threshold)
    # The greedy result is the only fixed point; after n rounds at least the n best boxes are settled.
    step = lambda kept: valid & ~jnp.any(kept[:, None] & suppresses, axis=0)
    _, kept = jax.lax.while_loop(
        lambda pair: jnp.any(pair[0] != pair[1]), lambda pair: (pair[1], step(pair[1])), (valid, step(valid))
    )
    return kept


def best_boxes(
    boxes: jax.Array, scores: jax.Array, valid: jax.Array, count: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The valid boxes of the highest scores, sorted.

    Args:
        boxes: [N, 4].
        scores: [N].
        valid: bool [N].
        count: M; fewer if N is smaller.

    Returns:
        Boxes [M, 4], scores [M] and bool [M] that says which of them are valid; the valid ones come first.
    """
    best, index = largest(jnp.where(valid, scores, -jnp.inf), count)
    return boxes[index], scores[index], best > -jnp.inf


def largest(values: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """The largest of ``values`` [N], sorted, and where they are; the first of equals first; all if ``count`` exceeds N.

    A sort and not ``lax.top_k``, which under ``vmap`` gathers a sharded batch on every device.
    """
    index = jnp.argsort(values, descending=True, stable=True)[:count]
    return values[index], index


def region_of(regions: jax.Array, size: Size, *, context: float = 1.0, min_side: float = 0.0) -> jax.Array:
    """Regions with their surroundings, inside the image.

    Grows each about its center, first by ``context``, then to ``min_side``; shifts it inside; cuts it only where the
    image itself is smaller.

    Args:
        regions: half-open [..., 4].
        size: (H, W) of the image.
        context: factor on both sides.
        min_side: pixels.

    Returns:
        Half-open [..., 4], not rounded.
    """
    limit = jnp.array([size[1], size[0]], jnp.float32)
    center = (regions[..., :2] + regions[..., 2:]) / 2
    sides = (regions[..., 2:] - regions[..., :2]) * context
    sides = jnp.minimum(jnp.maximum(sides, min_side), limit)
    start = jnp.clip(center - sides / 2, 0.0, limit - sides)
    return jnp.concatenate([start, start + sides], -1)


def merge_overlapping(
    boxes: jax.Array, classes: jax.Array, valid: jax.Array, threshold: float
) -> tuple[jax.Array, jax.Array]:
    """Joins boxes of different classes that overlap by more than ``threshold`` IoU into the box around both.

    The earlier box takes the later ones in; one that was taken in takes none.

    Args:
        boxes: [N, 4], the most important first.
        classes: int [N].
        valid: bool [N].

    Returns:
        Boxes [N, 4] and bool [N] that says which of them are left.
    """
    index = jnp.arange(classes.shape[0])
    joins = (box_iou(boxes, boxes) > threshold) & (classes[:, None] != classes[None]) & (index[:, None] < index[None])

    def take(kept, i):
        return kept.at[i].set(valid[i] & ~jnp.any(kept & joins[:, i])), None

    kept, _ = jax.lax.scan(take, jnp.zeros(valid.shape, bool), index)
    first = jnp.argmax(kept[:, None] & joins, axis=0)
    owner = jnp.where(kept, index, first)
    members = (owner[None] == index[:, None]) & valid[None]
    low = jnp.where(members[..., None], boxes[None, :, :2], jnp.inf).min(1)
    high = jnp.where(members[..., None], boxes[None, :, 2:], -jnp.inf).max(1)
    return jnp.where(kept[:, None], jnp.concatenate([low, high], -1), 0.0), kept
