# SPDX-License-Identifier: Apache-2.0
"""What day photos of the same places say about labels of nights: a stand-in for truth where nights have no labels.

The label map of a day is moved onto that of its night by one shift and one zoom, those at which most static pixels
agree. A pair is off by a small turn of the camera and a few meters along the street, so that much is nearly right, and
so few numbers cannot be made to agree where the network is wrong. Pixels that are of a moving class in either map
say nothing: cars and people are elsewhere by day.
"""

from collections.abc import Collection

import cv2
import numpy as np

from nightjax.core.types import IGNORE

SEEN = 256
"""Columns at which maps are compared."""

SHIFT_X, SHIFT_Y, ZOOM = 0.05, 0.04, 0.12
"""Largest shift, as a share of width and height, and largest change of size that are tried."""


def day_truth(
    night: np.ndarray, day: np.ndarray, moving: Collection[int] = (), sure: np.ndarray | None = None
) -> np.ndarray:
    """The labels of a day at the pixels of its night.

    Args:
        night: predicted train ids of the night, uint8 [H, W].
        day: those of the day, uint8 [h, w], of about the same view.
        moving: train ids of classes whose things move.
        sure: bool [h, w], where the day's label counts; None for everywhere.

    Returns:
        uint8 [H, W], 255 where the day says nothing.
    """
    void = np.zeros(256, bool)
    void[[*moving, IGNORE]] = True
    height, width = night.shape
    day, known = (
        cv2.resize(x, (width, height), interpolation=cv2.INTER_NEAREST)
        for x in (day, day if sure is None else np.where(sure, day, np.uint8(IGNORE)))
    )
    small = (min(SEEN, width), max(round(height * min(SEEN, width) / width), 1))
    shrink = lambda x: cv2.resize(x, small, interpolation=cv2.INTER_NEAREST)
    shift_x, shift_y, zoom = registered(shrink(night), shrink(day), void)
    moved = _moved(known, shift_x * width, shift_y * height, zoom)
    return np.where(void[night] | void[moved], np.uint8(IGNORE), moved)


def registered(night: np.ndarray, day: np.ndarray, void: np.ndarray) -> tuple[float, float, float]:
    """Shift, as a share of width and height, and zoom of the day at which most pixels agree with the night.

    A coarse grid is tried, then two finer ones around the best.

    Args:
        night, day: train ids uint8 [H, W].
        void: bool [256], which of them do not count.
    """
    height, width = night.shape
    best = (_agreement(night, day, void), 0.0, 0.0, 1.0)
    steps = np.array([SHIFT_X * width / 3, SHIFT_Y * height / 2, ZOOM / 2])
    counts = (3, 2, 2)
    for _ in range(3):
        _, *center = best
        offsets = [step * np.arange(-count, count + 1) for step, count in zip(steps, counts, strict=True)]
        for zoom in center[2] + offsets[2]:
            for shift_x in center[0] + offsets[0]:
                for shift_y in center[1] + offsets[1]:
                    found = _agreement(night, _moved(day, shift_x, shift_y, zoom), void)
                    if found > best[0]:
                        best = (found, float(shift_x), float(shift_y), float(zoom))
        steps, counts = steps / 2.5, (1, 1, 1)
    return best[1] / width, best[2] / height, best[3]


def _moved(day: np.ndarray, shift_x: float, shift_y: float, zoom: float) -> np.ndarray:
    """The map at the places that shift (pixels) and zoom about the middle lead to; 255 outside of it."""
    height, width = day.shape
    matrix = np.array([[zoom, 0, (1 - zoom) * width / 2 + shift_x], [0, zoom, (1 - zoom) * height / 2 + shift_y]])
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(day, matrix, (width, height), flags=flags, borderValue=(IGNORE,))


def _agreement(night: np.ndarray, day: np.ndarray, void: np.ndarray) -> float:
    """Share of equal labels where neither is void; 0 where that is less than half of the night."""
    use = ~void[night]
    both = use & ~void[day]
    count = int(both.sum())
    return float((night == day)[both].mean()) if count and count > 0.5 * use.sum() else 0.0
