# SPDX-License-Identifier: Apache-2.0
"""Regions of images: from label masks, cut out at one size, pasted back, compared with the truth.

A region is half-open [x1, x2) x [y1, y2) in pixels of its image. Cutting out and pasting back are products with one
matrix for rows and one for columns, so regions of any size have static shapes, and nothing crosses the batch axis.
"""

import functools

import jax
import jax.numpy as jnp

from nightjax.core.types import IGNORE, Size
from nightjax.ops.boxes import largest

LEAST_SIDE = 8
"""Pixels below which the side of a region is too short to compare two predictions in it."""


def class_mask(label: jax.Array, classes: tuple[int, ...]) -> jax.Array:
    """Which pixels are of one of the classes: bool of label's shape."""
    return jnp.isin(label, jnp.asarray(classes, jnp.int32))


def label_boxes(
    label: jax.Array, classes: tuple[int, ...], *, count: int, min_area: int = 1
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Boxes around the connected parts of a label map, the largest first.

    Pixels of one class that touch, corners included (8-connected), form a part.

    Args:
        label: [H, W] integer.
        classes: those to look for.
        count: G, how many boxes to return.
        min_area: pixels of the smallest part that counts.

    Returns:
        Boxes [G, 4] float32 with inclusive corners, their classes int32 [G] and areas int32 [G]; the area of what is no
        box is 0.
    """
    height, width = label.shape
    pixels = height * width
    wanted = class_mask(label, classes)
    kind = jnp.where(wanted, label.astype(jnp.int32), -1)
    own = jnp.arange(pixels, dtype=jnp.int32).reshape(label.shape)

    def round_of(root):
        """Takes the largest root among the neighbors, then the root's own root: a few rounds cross any part."""
        padded, kinds = jnp.pad(root, 1), jnp.pad(kind, 1, constant_values=-1)
        for dy in range(3):
            for dx in range(3):
                neighbor = (slice(dy, dy + height), slice(dx, dx + width))
                root = jnp.where(wanted & (kinds[neighbor] == kind), jnp.maximum(root, padded[neighbor]), root)
        root = root.ravel()
        return root[root].reshape(label.shape)

    _, root = jax.lax.while_loop(
        lambda pair: jnp.any(pair[0] != pair[1]), lambda pair: (pair[1], round_of(pair[1])), (own, round_of(own))
    )
    root, seen = root.ravel(), wanted.ravel()
    area = jnp.zeros(pixels, jnp.int32).at[root].add(seen.astype(jnp.int32))
    y, x = jnp.divmod(jnp.arange(pixels, dtype=jnp.int32), width)
    corners = jnp.full((pixels, 4), -pixels).at[root].max(jnp.stack([-x, -y, x, y], -1))
    area, chosen = largest(jnp.where(area >= min_area, area, 0), count)
    boxes = corners[chosen] * jnp.array([-1, -1, 1, 1])
    return boxes.astype(jnp.float32), kind.ravel()[chosen], area


def crop(
    image: jax.Array, regions: jax.Array, size: int, *, antialias: bool = False, keep_aspect: bool = False
) -> jax.Array:
    """Regions resampled to ``size`` x ``size``, bilinear, half-pixel centers, their borders repeated.

    Args:
        image: [B, H, W, C] float.
        regions: [B, M, 4].
        size: side of the result.
        antialias: along a side that shrinks, widens the filter by the shrinking factor, as `resize.resize` does.
        keep_aspect: only the long side becomes ``size``; the rest, to the right or below, is 0.

    Returns:
        [B, M, size, size, C].
    """
    build = functools.partial(_bilinear_in, antialias=antialias)
    rows, columns = _matrices(build, regions, image.shape[1:3], size, keep_aspect)
    return _sample(rows, columns, image)


def crop_label(label: jax.Array, regions: jax.Array, size: int, *, keep_aspect: bool = False) -> jax.Array:
    """The same of a label map [B, H, W], by the pixel under the center: [B, M, size, size] of label's dtype; the rest
    is 255."""
    rows, columns = _matrices(_nearest_in, regions, label.shape[1:3], size, keep_aspect)
    cut = _sample(rows, columns, label[..., None].astype(jnp.float32))[..., 0]
    inside = rows.any(-1)[..., :, None] & columns.any(-1)[..., None, :]
    return jnp.where(inside, cut, IGNORE).astype(label.dtype)


def paste(
    values: jax.Array, regions: jax.Array, size: Size, *, keep_aspect: bool = False
) -> tuple[jax.Array, jax.Array]:
    """Values of one region an image, resized to the region and put in its place; the inverse of `crop`.

    Args:
        values: [B, h, w, C] float; with ``keep_aspect`` h = w.
        regions: [B, 4].
        size: (H, W) of the image.
        keep_aspect: as the values were cut out.

    Returns:
        [B, H, W, C], of which only the inside of the region means anything, and that inside, bool [B, H, W].
    """
    height, width = values.shape[1:3]
    across, down = _spans(regions, keep_aspect)
    rows = _bilinear_out(regions[:, 1], regions[:, 3], down, height, size[0])
    columns = _bilinear_out(regions[:, 0], regions[:, 2], across, width, size[1])
    y, x = jnp.arange(size[0]), jnp.arange(size[1])
    inside_rows = (y >= regions[:, 1:2]) & (y < regions[:, 3:4])
    inside_columns = (x >= regions[:, 0:1]) & (x < regions[:, 2:3])
    full = jnp.einsum("byh,bhwc->bywc", rows, values, precision="highest")
    full = jnp.einsum("bxw,bywc->byxc", columns, full, precision="highest")
    return full, inside_rows[:, :, None] & inside_columns[:, None]


def merge_regions(
    logits: jax.Array,
    region_logits: jax.Array,
    regions: jax.Array,
    valid: jax.Array,
    hard_classes: tuple[int, ...],
    *,
    keep_aspect: bool = False,
) -> jax.Array:
    """Two levels in one: inside a region, pixels that the region level calls hard take its logits.

    Later regions go under earlier ones; a pixel that the first region calls not hard keeps what the others say. Source:
    arXiv 2204.05538 supplementary, section B.

    Args:
        logits: of the image level [B, H, W, K].
        region_logits: [B, M, h, w, K], resized bilinearly to the regions before the decision.
        regions: [B, M, 4] whole numbers, the best first.
        valid: bool [B, M].
        hard_classes: train ids.
        keep_aspect: as the regions were cut out, see `crop`.

    Returns:
        [B, H, W, K]; their arg-max is the merged prediction.
    """

    def put(canvas, item):
        values, region, there = item
        full, inside = paste(values, region, canvas.shape[1:3], keep_aspect=keep_aspect)
        takes = inside & there[:, None, None] & class_mask(full.argmax(-1), hard_classes)
        return jnp.where(takes[..., None], full, canvas), None

    items = (region_logits.swapaxes(0, 1), regions.swapaxes(0, 1), valid.swapaxes(0, 1))
    return jax.lax.scan(put, logits, items, reverse=True)[0]


def region_iou(
    prediction: jax.Array, label: jax.Array, inside: jax.Array, num_classes: int, classes: tuple[int, ...] | None = None
) -> jax.Array:
    """Mean IoU within one region an image, over the classes that truth or prediction have there.

    Args:
        prediction, label: integer [B, H, W]; 255 in the label counts nowhere.
        inside: bool [B, H, W].
        num_classes: K.
        classes: only these; None for all.

    Returns:
        float32 [B]; NaN where there is nothing to compare.
    """
    ids = jnp.arange(num_classes)
    valid = (inside & (label != IGNORE))[..., None]
    truth, guess = valid & (label[..., None] == ids), valid & (prediction[..., None] == ids)
    shared, union = (jnp.sum(x, (1, 2), dtype=jnp.int32) for x in (truth & guess, truth | guess))
    present = union > 0
    if classes is not None:
        present &= class_mask(ids, classes)
    iou = jnp.where(present, shared / jnp.maximum(union, 1), 0.0)
    return jnp.where(present.any(-1), iou.sum(-1) / jnp.maximum(present.sum(-1), 1), jnp.nan)


def region_gain(
    region_logits: jax.Array,
    prediction: jax.Array,
    label: jax.Array,
    regions: jax.Array,
    classes: tuple[int, ...] | None = None,
    *,
    keep_aspect: bool = False,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Where the region level is better than the image level: eq. (1) of arXiv 2204.05538's supplementary.

    Both are compared with the truth at the image's own resolution, region by region.

    Args:
        region_logits: [B, M, h, w, K].
        prediction: of the image level, integer [B, H, W].
        label: [B, H, W], 255 = ignore.
        regions: [B, M, 4] whole numbers.
        classes: compare these only; None for all.
        keep_aspect: as the regions were cut out, see `crop`.

    Returns:
        bool [B, M] that says where the mean IoU is strictly higher (never in a region with a side below `LEAST_SIDE` or
        without valid pixels), and the mean IoU of region and image level, float32 [B, M], NaN without such pixels.
    """

    def one(_, item):
        values, region = item
        full, inside = paste(values, region, label.shape[1:3], keep_aspect=keep_aspect)
        levels = (full.argmax(-1), prediction)
        return None, tuple(region_iou(x, label, inside, values.shape[-1], classes) for x in levels)

    _, (ours, image) = jax.lax.scan(one, None, (region_logits.swapaxes(0, 1), regions.swapaxes(0, 1)))
    ours, image = ours.swapaxes(0, 1), image.swapaxes(0, 1)
    sides = regions[..., 2:] - regions[..., :2]
    return (ours > image) & (sides.min(-1) >= LEAST_SIDE), ours, image


def draw_regions(image: jax.Array, regions: jax.Array, valid: jax.Array, color: tuple[int, int, int]) -> jax.Array:
    """The frames of regions [B, M, 4] on images [B, H, W, 3] uint8, one pixel wide."""
    y, x = jnp.arange(image.shape[1])[:, None], jnp.arange(image.shape[2])[None]

    def draw(canvas, item):
        region, there = item
        x1, y1, x2, y2 = (c[:, None, None] for c in jnp.round(region).astype(jnp.int32).T)
        inside = (x >= x1) & (x < x2) & (y >= y1) & (y < y2)
        border = inside & ((x == x1) | (x == x2 - 1) | (y == y1) | (y == y2 - 1))
        return jnp.where((border & there[:, None, None])[..., None], jnp.asarray(color, jnp.uint8), canvas), None

    return jax.lax.scan(draw, image, (regions.swapaxes(0, 1), valid.swapaxes(0, 1)))[0]


def _spans(regions, keep_aspect):
    """Pixels [...] that a region's columns and rows stand for: its sides, or twice the long one."""
    across, down = (jnp.maximum(regions[..., i + 2] - regions[..., i], 1.0) for i in (0, 1))
    return (jnp.maximum(across, down),) * 2 if keep_aspect else (across, down)


def _matrices(build, regions, size, count, keep_aspect):
    """Matrices [B, M, count, H] of the rows and [B, M, count, W] of the columns; rows of zeros beyond the region."""
    across, down = _spans(regions, keep_aspect)
    return (
        build(regions[..., 1], regions[..., 3], down, size[0], count),
        build(regions[..., 0], regions[..., 2], across, size[1], count),
    )


def _sample(rows, columns, image):
    cut = jnp.einsum("bmyh,bhwc->bmywc", rows, image, precision="highest")
    return jnp.einsum("bmxw,bmywc->bmyxc", columns, cut, precision="highest")


def _centers(span, cells):
    """Middles [..., cells] of equal cells of [0, span)."""
    return (jnp.arange(cells) + 0.5) * span[..., None] / cells


def _bilinear_in(start, stop, span, before, after, antialias):
    """Weights [..., after, before] that resample [start, start + span) to ``after`` cells, zeros from ``stop`` on."""
    start, length, center = start[..., None], jnp.maximum(stop - start, 1.0)[..., None], _centers(span, after)
    source = start + jnp.clip(center - 0.5, 0.0, length - 1)
    if not antialias:
        weights = _hat(source, before)
    else:
        cell, wide = jnp.arange(before), jnp.maximum(span / after, 1.0)[..., None, None]
        weights = jnp.maximum(1.0 - jnp.abs(source[..., None] - cell) / wide, 0.0)
        weights = jnp.where((cell > start[..., None] - 1) & (cell < (start + length)[..., None]), weights, 0.0)
        weights = weights / jnp.maximum(weights.sum(-1, keepdims=True), 1e-6)
    return jnp.where((center < length)[..., None], weights, 0.0)


def _nearest_in(start, stop, span, before, after):
    """The same with one weight of 1 a row."""
    start, length, center = start[..., None], jnp.maximum(stop - start, 1.0)[..., None], _centers(span, after)
    source = jnp.clip(jnp.floor(start + center), 0, before - 1)
    return ((source[..., None] == jnp.arange(before)) & (center < length)[..., None]).astype(jnp.float32)


def _bilinear_out(start, stop, span, before, after):
    """Weights [..., after, before] that resample ``before`` cells of [start, start + span) to [start, stop) of
    ``after`` pixels."""
    start, length, span = (x[..., None] for x in (start, jnp.maximum(stop - start, 1.0), span))
    last = jnp.ceil(before * length / span - 0.5) - 1  # The last cell with its center in the region.
    source = (jnp.arange(after) + 0.5 - start) * before / span - 0.5
    return _hat(jnp.clip(source, 0.0, jnp.maximum(last, 0.0)), before)


def _hat(source, before):
    return jnp.maximum(1.0 - jnp.abs(source[..., None] - jnp.arange(before)), 0.0)
