# SPDX-License-Identifier: Apache-2.0
"""Flicker of the labels of a video: how many pixels change class where the truth does not."""

import numpy as np

from nightjax.core.types import IGNORE


def flicker_counts(
    labels: tuple[np.ndarray, np.ndarray],
    truths: tuple[np.ndarray, np.ndarray],
    flow: np.ndarray,
    valid: np.ndarray,
) -> np.ndarray:
    """Compares each pixel of a frame with the same point in the frame before.

    Args:
        labels: predicted train ids of the frame before and of this one, uint8 [H, W].
        truths: the true ones.
        flow: float32 [H, W, 2] (dx, dy): pixel p of this frame is p + flow(p) of the one before.
        valid: bool [H, W], where the flow is known and both frames see the point.

    Returns:
        int64 [2]: how many pixels change their predicted class, of how many whose true class is known and stays.
        Counts of several pairs of frames add.
    """
    height, width = valid.shape
    rows, columns = np.indices((height, width), np.float32)
    row = np.clip(np.rint(rows + flow[..., 1]), 0, height - 1).astype(np.intp)
    column = np.clip(np.rint(columns + flow[..., 0]), 0, width - 1).astype(np.intp)
    before, now = truths[0][row, column], truths[1]
    same = valid & (before == now) & (now != IGNORE)
    changed = same & (labels[0][row, column] != labels[1])
    return np.array([changed.sum(), same.sum()], np.int64)


def flicker(counts: np.ndarray) -> float:
    """Percentage of `flicker_counts`; NaN without a pixel."""
    return 100 * float(counts[0]) / float(counts[1]) if counts[1] else float("nan")
