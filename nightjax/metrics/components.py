# SPDX-License-Identifier: Apache-2.0
"""Recall by the size of objects: how much of small and of large ones a network finds."""

from collections.abc import Sequence

import cv2
import numpy as np


def recall_counts(
    label: np.ndarray, prediction: np.ndarray, classes: Sequence[int], edges: Sequence[int]
) -> np.ndarray:
    """Counts found pixels by class and by the size of what they belong to.

    An object is a connected component (8 neighbors) of one class in the truth, so objects that touch count as one, and
    an occluded one as several.

    Args:
        label: train ids uint8 [H, W], 255 = ignore.
        prediction: train ids uint8 [H, W].
        classes: train ids to count.
        edges: rising sizes in pixels; a component of ``edges[i]`` pixels or more belongs to bin i + 1 or a later one.

    Returns:
        int64 [classes, bins, 3], with ``len(edges) + 1`` bins: components, their pixels, and how many of these have the
        right class in the prediction. Counts of several images add.
    """
    counts = np.zeros((len(classes), len(edges) + 1, 3), np.int64)
    for row, train_id in enumerate(classes):
        mask = (label == train_id).astype(np.uint8)
        number, component = cv2.connectedComponents(mask, connectivity=8)
        if number == 1:
            continue
        inside = mask > 0
        pixels = np.bincount(component[inside], minlength=number)[1:]
        found = np.bincount(component[inside & (prediction == train_id)], minlength=number)[1:]
        bins = np.searchsorted(edges, pixels, side="right")
        for column, values in enumerate((np.ones_like(pixels), pixels, found)):
            counts[row, :, column] += np.bincount(bins, values, len(edges) + 1).astype(np.int64)
    return counts


def recall(counts: np.ndarray) -> np.ndarray:
    """Percentage of the pixels found, float64 [...], of `recall_counts` [..., 3]; NaN without a pixel."""
    pixels = counts[..., 1].astype(float)
    return np.divide(100.0 * counts[..., 2], pixels, out=np.full(pixels.shape, np.nan), where=pixels > 0)
