# SPDX-License-Identifier: Apache-2.0
"""Distances between sets of images (FID and KID), by one process or several that share the images."""

from collections.abc import Iterator, Sequence

import jax
import numpy as np

from nightjax.core.errors import UserError
from nightjax.metrics import fid
from nightjax.selection.image_features import Describe
from nightjax.selection.images import ImageSet

NAMES = {"inception": ("FID", "KID"), "random": ("random-feature Fréchet distance", "random-feature kernel distance")}
"""Features to the names of their two distances."""

TIE = {"inception": 0.1, "random": 0.0}
"""Features to the difference of Fréchet distances below which the earlier set is not preferred."""


def compare(sets: Sequence[ImageSet], last: ImageSet, describe: Describe, features: str, resize: str) -> Iterator[str]:
    """Compares sets with the last one.

    Args:
        sets: to compare, of equal numbers of images.
        last: what they are compared with.
        describe: features of images.
        features: their name, a key of `NAMES`.
        resize: name of the resize rule, for the text.

    Yields:
        Lines of text: sizes and distances of every set and, of several, the best one. Process 0 alone yields lines.

    Raises:
        UserError: the sets are of different sizes, or one has fewer images than there are processes.
    """
    if len(sizes := {len(images) for images in sets}) > 1:
        raise UserError(f"the sets to choose from hold {sorted(sizes)} images: distances compare at equal numbers only")
    other = _features(last, describe)
    reference, distances = fid.merge_over_processes(fid.statistics([other])), []
    distance, kernel = NAMES[features]
    for images in sets:
        one = _features(images, describe)
        whole = fid.merge_over_processes(fid.statistics([one]))
        if jax.process_index() > 0:
            continue
        name = f"{images.where}: " if len(sets) > 1 else ""
        yield f"{name}{whole.count} and {reference.count} images, {features} features, resize {resize}"
        distances.append(fid.frechet_distance(whole, reference))
        yield f"{distance}: {max(distances[-1], 0.0):.4f}"  # Rounding may leave equal sets a little below 0.
        if jax.process_count() == 1:
            yield "{}: {:.6f} ± {:.6f}".format(kernel, *fid.kernel_distance(one, other))
    if len(distances) > 1:
        yield f"best: {sets[best_of(distances, TIE[features])].where}"


def best_of(distances: Sequence[float], tie: float) -> int:
    """Position of the smallest distance, or of the last one less than ``tie`` above it."""
    least = min(distances)
    return max(i for i, distance in enumerate(distances) if distance == least or distance - least < tie)


def _features(images: ImageSet, describe: Describe) -> np.ndarray:
    """Features of the images of this process, [n, D]: every n-th of n processes."""
    if len(images) < jax.process_count():
        raise UserError(
            f"{images.where} has {len(images)} images for {jax.process_count()} processes: use fewer processes"
        )
    share = (images[i][1] for i in range(jax.process_index(), len(images), jax.process_count()))
    return np.concatenate(list(describe(share)))
