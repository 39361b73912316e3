# SPDX-License-Identifier: Apache-2.0
"""Feature cells by class over a whole batch: drawn at random, averaged, compared.

Everything keeps its shape whatever classes occur, and nothing moves an example to another device: what leaves a device
    are sums
over the batch.
"""

import jax
import jax.numpy as jnp
from flax import struct

from nightjax.ops.prototypes import class_prototypes, unit_vectors


@struct.dataclass
class ClassCells:
    """The cells of each image, sorted by class.

    Attributes:
        order: [B, n] int32, cells of class 0 first, ignored ones last.
        first: [B, K] int32, where a class begins in ``order``.
        count: [B, K] int32, cells of a class.
    """

    order: jax.Array
    first: jax.Array
    count: jax.Array

    @property
    def others(self) -> jax.Array:
        """[B, K] int32, cells of any class but this one."""
        return self.count.sum(axis=1, keepdims=True) - self.count


@struct.dataclass
class Draw:
    """Cells drawn for every class, with replacement.

    Attributes:
        cell: [B, K, M] int32, a candidate of every image.
        chosen: [B, K, M] bool, True for the image whose candidate counts: one a draw, or none if no cell qualifies.
    """

    cell: jax.Array
    chosen: jax.Array


def sort_by_class(label: jax.Array, num_classes: int) -> ClassCells:
    """Sorts the cells of label maps [B, h, w]; values of ``num_classes`` and above are ignored."""
    label = label.reshape(label.shape[0], -1).astype(jnp.int32)
    count = (label[..., None] == jnp.arange(num_classes)).sum(axis=1, dtype=jnp.int32)
    cells = label.shape[1]
    order = jnp.sort(label * cells + jnp.arange(cells), axis=1) % cells  # One number a cell sorts faster than a pair.
    return ClassCells(order, jnp.cumsum(count, axis=1) - count, count)


def draw_cells(key: jax.Array, cells: ClassCells, draws: int, *, others: bool = False) -> Draw:
    """Draws cells of every class, each equally likely over the whole batch.

    An image is drawn with a probability proportional to its cells, as the maximum of Gumbel noise, then a cell of it.

    Args:
        key: random key.
        cells: of the batch.
        draws: M, for each class.
        others: draws from the cells of all other classes instead.
    """
    image_key, cell_key = jax.random.split(key)
    available = cells.others if others else cells.count
    shape = (*available.shape, draws)
    score = jnp.log(available.astype(jnp.float32))[..., None] + jax.random.gumbel(image_key, shape)
    image = jnp.arange(shape[0])[:, None, None]
    best = (score == score.max(axis=0)) & (available > 0)[..., None]
    chosen = image == jnp.where(best, image, shape[0]).min(axis=0)
    place = jax.random.randint(cell_key, shape, 0, jnp.maximum(available, 1)[..., None])
    if others:  # Steps over the cells of the class itself.
        place += jnp.where(place >= cells.first[..., None], cells.count[..., None], 0)
    else:
        place += cells.first[..., None]
    place = jnp.minimum(place, cells.order.shape[1] - 1)
    return Draw(jnp.take_along_axis(cells.order, place.reshape(shape[0], -1), axis=1).reshape(shape), chosen)


def take_cells(features: jax.Array, draw: Draw) -> jax.Array:
    """Features of the drawn cells.

    Args:
        features: [B, h, w, C].
        draw: of label maps [B, h, w].

    Returns:
        [K, M, C] of features' dtype; 0 where nothing was drawn.
    """
    batch, *_, channels = features.shape
    rows = features.reshape(batch, -1, channels)
    taken = jnp.take_along_axis(rows, draw.cell.reshape(batch, -1)[..., None], axis=1)
    return jnp.where(draw.chosen[..., None], taken.reshape(*draw.cell.shape, channels), 0).sum(axis=0)


def class_means(features: jax.Array, label: jax.Array, num_classes: int) -> tuple[jax.Array, jax.Array]:
    """Mean feature of each class over a batch.

    Args:
        features: [B, h, w, C].
        label: [B, h, w] train ids, 255 = ignore.
        num_classes: K.

    Returns:
        [K, C] float32 (0 for absent classes) and the number of cells [K] float32.
    """
    means, count = class_prototypes(features, label, num_classes)
    total = count.sum(axis=0)
    return (means * count[..., None]).sum(axis=0) / jnp.maximum(total, 1.0)[:, None], total


def class_similarity(
    features: jax.Array, label: jax.Array, prototypes: jax.Array, known: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """How close the features of each class are to the prototype of their own class, and to those of the others.

    Args:
        features: [B, h, w, C].
        label: [B, h, w] train ids, 255 = ignore.
        prototypes: [K, C].
        known: [K] bool, which of them exist.

    Returns:
        Mean cosine to the own prototype and to the other known ones, [K] float32 each, and bool [K] where they are
        defined.
    """
    means, count = class_means(unit_vectors(features), label, len(known))
    cosine = jnp.einsum("kc,jc->kj", means, unit_vectors(prototypes), precision=jax.lax.Precision.HIGHEST)
    other = known[None] & ~jnp.eye(len(known), dtype=bool)
    mean_other = jnp.where(other, cosine, 0.0).sum(axis=1) / jnp.maximum(other.sum(axis=1), 1)
    return jnp.diagonal(cosine), mean_other, known & (count > 0) & other.any(axis=1)
