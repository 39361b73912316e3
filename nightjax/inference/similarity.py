# SPDX-License-Identifier: Apache-2.0
"""How close the features of one set of labeled images are to the class prototypes of another."""

import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from nightjax.core.errors import UserError
from nightjax.core.method import Variables
from nightjax.data import sources, transforms
from nightjax.ops.class_cells import class_means
from nightjax.ops.prototypes import unit_vectors
from nightjax.ops.resize import resize_nearest

BATCH = 4

Features = Callable[[Variables, jax.Array], jax.Array]
"""Variables and uint8 [B, H, W, 3] to the features that the classifier reads, float32 [B, h, w, C]. Hashable."""


def labeled_batches(
    source: sources.Source, size: tuple[int, int] | None, count: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Up to ``count`` images and labels of a source, in batches of `BATCH` and a rest.

    Args:
        source: records with image and label.
        size: (height, width) to which the images are resized; None keeps theirs. Labels keep their size.
        count: most images to read.
    """
    count = min(count, len(source))
    for start in range(0, count, BATCH):
        records = (source[i] for i in range(start, min(start + BATCH, count)))
        pairs = [transforms.decode(record, ("image", "label"), len(source.classes)) for record in records]
        images = [pair["image"] for pair in pairs]
        if size:
            images = [transforms.resize({"image": image}, size)["image"] for image in images]
        yield np.stack(images), np.stack([pair["label"] for pair in pairs])


def prototype_similarity(
    features: Features,
    variables: Variables,
    source: tuple[sources.Source, tuple[int, int] | None],
    other: tuple[sources.Source, tuple[int, int] | None],
    count: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean cosines of features to class prototypes.

    Args:
        features: of the network.
        variables: of the network.
        source: labeled images, whose mean features of a class are its prototype, and the size the network sees.
        other: labeled images whose features are compared, and the size the network sees.
        count: most images to read of either.

    Returns:
        For each class, the mean cosine [K] of its features to its own prototype, and to the prototypes of the others.
        NaN for classes that either set lacks.

    Raises:
        UserError: a source holds no images.
    """
    totals = []
    for (records, size), unit in ((source, False), (other, True)):
        options = {"unit": unit, "num_classes": len(records.classes)}
        found = [_sums(features, variables, *batch, **options) for batch in labeled_batches(records, size, count)]
        if not found:
            raise UserError(f"{records.name}@{records.split} holds no images")
        total, number = (np.sum(part, axis=0) for part in zip(*jax.device_get(found), strict=True))
        totals.append((total / np.maximum(number, 1)[:, None], number > 0))
    (prototypes, known), (means, seen) = totals
    cosine = means @ np.asarray(unit_vectors(jnp.asarray(prototypes))).T
    others = known[None] & ~np.eye(len(known), dtype=bool)
    to_own = np.diagonal(cosine)
    to_others = np.where(others, cosine, 0).sum(axis=1) / np.maximum(others.sum(axis=1), 1)
    return np.where(known & seen, to_own, np.nan), np.where(known & seen, to_others, np.nan)


@functools.partial(jax.jit, static_argnames=("features", "unit", "num_classes"))
def _sums(
    features: Features, variables: Variables, image: jax.Array, label: jax.Array, *, unit: bool, num_classes: int
) -> tuple[jax.Array, jax.Array]:
    """Sum of the features of each class [K, C], and their number [K]."""
    found = features(variables, image)
    found = unit_vectors(found) if unit else found
    mean, count = class_means(found, resize_nearest(label, found.shape[1:3]), num_classes)
    return mean * count[:, None], count
