# SPDX-License-Identifier: Apache-2.0
"""Distances of features to those of a frozen network: DAFormer's on thing classes, VFM-UDA++'s on every cell."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from nightjax.core.classes import CITYSCAPES
from nightjax.core.types import IGNORE
from nightjax.losses.segmentation import masked_mean
from nightjax.ops.prototypes import cell_label_counts
from nightjax.ops.resize import resize_nearest


def downscale_label(
    label: jax.Array, scale: int, min_ratio: float = 0.75, num_classes: int = len(CITYSCAPES)
) -> jax.Array:
    """Majority label of each ``scale`` x ``scale`` block.

    Args:
        label: [B, H, W] train ids, 255 = ignore, which counts as one more class. Rows and columns
            beyond the last whole block are left out.
        scale: side of a block.
        min_ratio: blocks whose majority has a smaller share become 255; exactly this share is kept.
        num_classes: K.

    Returns:
        [B, H // scale, W // scale] uint8; ties go to the smaller id.
    """
    size = label.shape[1] // scale, label.shape[2] // scale
    count = cell_label_counts(label[:, : size[0] * scale, : size[1] * scale], size, num_classes)
    ignored = scale**2 - count.sum(axis=-1, keepdims=True)
    count = jnp.concatenate([count, ignored], axis=-1)
    majority = count.argmax(axis=-1)
    enough = count.max(axis=-1).astype(jnp.float32) / scale**2 >= np.float32(min_ratio)
    return jnp.where(enough & (majority < num_classes), majority, IGNORE).astype(jnp.uint8)


def feature_distance(
    features: jax.Array,
    frozen: jax.Array,
    label: jax.Array | None,
    *,
    classes: Sequence[int] = CITYSCAPES.group("thing"),
    num_classes: int = len(CITYSCAPES),
    min_ratio: float = 0.75,
) -> jax.Array:
    """Mean Euclidean distance between two feature maps over the cells of some classes.

    Args:
        features: [B, h, w, C] of the network in training.
        frozen: [B, h, w, C] of the frozen network; gets no gradient.
        label: [B, H, W] labels, brought to the cells by ``downscale_label``; None compares every
            cell.
        classes: train ids to compare, a class set's group ``"thing"``.
        num_classes: K.
        min_ratio: see ``downscale_label``.

    Returns:
        Scalar float32; 0 with zero gradient if no cell qualifies (nan in the official code).
        Unweighted: DAFormer and DSR multiply it by 0.005.
    """
    difference = features.astype(jnp.float32) - jax.lax.stop_gradient(frozen.astype(jnp.float32))
    square = jnp.square(difference).sum(axis=-1)
    apart = square > 0  # The root has no gradient at 0, where training starts.
    distance = jnp.where(apart, jnp.sqrt(jnp.where(apart, square, 1.0)), 0.0)
    if label is None:
        return distance.mean()
    cells = downscale_label(label, label.shape[2] // features.shape[2], min_ratio, num_classes)
    if cells.shape != features.shape[:3]:  # Cells of no whole number of pixels, as those of resized or padded images.
        scale = max(1, round(label.shape[2] / features.shape[2]))
        label = resize_nearest(label, (features.shape[1] * scale, features.shape[2] * scale))
        cells = downscale_label(label, scale, min_ratio, num_classes)
    member = sum((cells == c for c in classes), start=jnp.zeros(cells.shape, bool))
    return masked_mean(distance, member, normalizer="valid")


def feature_distillation(features: jax.Array, frozen: jax.Array, *, smooth: float = 0.1) -> jax.Array:
    """Distance of projected features to those of a frozen foundation model, over every cell.

    Source: VFM-UDA++ (arXiv 2503.10685), ``get_feature_distance_loss`` of its official repository, where a cell adds
    0.1 of the smooth L1 distance, the mean over its channels, to 0.9 of one minus the cosine. The program weighs it by
    0.1.

    Args:
        features: [B, h, w, C] of the network in training, projected to the frozen model's channels and cells
            (`models.projection.DistillationHead`).
        frozen: [B, h, w, C]; gets no gradient.
        smooth: share of the smooth L1 distance.

    Returns:
        Scalar float32.
    """
    features, frozen = features.astype(jnp.float32), jax.lax.stop_gradient(frozen.astype(jnp.float32))
    gap = jnp.abs(features - frozen)
    distance = jnp.where(gap < 1, 0.5 * gap**2, gap - 0.5).mean(axis=-1)
    unit = [x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), 1e-16)) for x in (features, frozen)]
    return (smooth * distance + (1 - smooth) * (1 - (unit[0] * unit[1]).sum(axis=-1))).mean()
