# SPDX-License-Identifier: Apache-2.0
"""Class prototypes of feature maps, and label maps brought to the feature grid."""

import jax
import jax.numpy as jnp
import numpy as np

from nightjax.core.types import IGNORE, Size
from nightjax.ops.resize import nearest_index


def cell_label_counts(label: jax.Array, size: Size, num_classes: int) -> jax.Array:
    """Pixels of each class that use each cell when a [h, w] map is repeated to the label's size.

    A loss against a nearest-repeated map is the count-weighted sum over cells: full-size maps are
    never built.

    Args:
        label: [B, H, W] train ids, 255 = ignore (not counted).
        size: (h, w) of the cells, at most (H, W).
        num_classes: K.

    Returns:
        [B, h, w, K] int32; the pixels of a cell are those that torch's nearest resize from (h, w)
        to (H, W) maps to it.
    """
    cells = _split(_split(label, size[1], axis=2), size[0], axis=1)  # [B, h, rows, w, columns]
    same = cells[..., None].astype(jnp.int32) == jnp.arange(num_classes)
    return same.sum(axis=(2, 4), dtype=jnp.int32)


def _split(label: jax.Array, cells: int, axis: int) -> jax.Array:
    """Splits one axis into (cells, pixels of a cell), padding short cells with the ignore value."""
    size = label.shape[axis]
    cell_of = nearest_index(cells, size)
    first = np.searchsorted(cell_of, np.arange(cells))
    length = np.bincount(cell_of, minlength=cells)
    shape = (*label.shape[:axis], cells, length.max(), *label.shape[axis + 1 :])
    if (length == length[0]).all():
        return label.reshape(shape)
    offset = np.arange(length.max())
    index = np.minimum(first[:, None] + offset, size - 1)
    known = (offset < length[:, None]).reshape((cells, -1) + (1,) * (label.ndim - axis - 1))
    return jnp.where(known, jnp.take(label, index.reshape(-1), axis=axis).reshape(shape), IGNORE)


def class_prototypes(features: jax.Array, label: jax.Array, num_classes: int) -> tuple[jax.Array, jax.Array]:
    """Mean feature of each class of each image.

    Args:
        features: [B, h, w, C].
        label: [B, h, w] train ids at the feature grid, 255 = ignore.
        num_classes: K.

    Returns:
        Prototypes [B, K, C] float32 (0 for absent classes) and cell counts [B, K] float32.
    """
    batch, *_, channels = features.shape
    cells = features.reshape(batch, -1, channels).astype(jnp.float32)
    # Classes before cells, as the product reads them: the compiler would write a transposed copy.
    member = (label.reshape(batch, 1, -1).astype(jnp.int32) == jnp.arange(num_classes)[:, None]).astype(jnp.float32)
    count = member.sum(axis=2)
    total = jnp.einsum("bkn,bnc->bkc", member, cells, precision=jax.lax.Precision.HIGHEST)
    return total / jnp.maximum(count, 1.0)[..., None], count


def unit_vectors(x: jax.Array) -> jax.Array:
    """``x`` scaled to length 1 over its last axis, float32; zero vectors stay (zero gradient)."""
    x = x.astype(jnp.float32)
    square = jnp.square(x).sum(axis=-1, keepdims=True)
    known = square > 0
    return jnp.where(known, x * jax.lax.rsqrt(jnp.where(known, square, 1.0)), 0.0)


def cosine_to_prototypes(features: jax.Array, prototypes: jax.Array) -> jax.Array:
    """Cosine of features [B, h, w, C] to their image's prototypes [B, K, C]; [B, h, w, K]."""
    return jnp.einsum(
        "bhwc,bkc->bhwk",
        unit_vectors(features),
        unit_vectors(prototypes),
        precision=jax.lax.Precision.HIGHEST,
    )
