# SPDX-License-Identifier: Apache-2.0
"""Whether two photos show the same place: a cheap test that works for a day and a night photo.

Both photos are reduced to oriented gradients of a small, locally normalized image. The angle of the gradient is
doubled, so that an edge may be bright by day and dark by night. The score is the best correlation over small shifts.

One score says little. On real drives a true pair reaches 0.15 to 0.4 and a wrong one 0.05 to 0.3, because all streets
look alike at this size. So pairs are compared with the same photos under *wrong* partners.
"""

from collections.abc import Sequence

import cv2
import numpy as np

WIDTH, HEIGHT = 96, 54
SHIFT_X, SHIFT_Y = 8, 5
MAX_METERS = 50.0
"""Two photos farther apart than this by GPS are no pair."""
_EARTH_RADIUS = 6_371_000.0


def edges(image: np.ndarray) -> np.ndarray:
    """Doubled-angle gradients, float32 [54, 96, 2], of an RGB image uint8 [H, W, 3]."""
    gray = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    gray = np.log1p(gray.astype(np.float32))
    gray -= cv2.GaussianBlur(gray, (0, 0), 4)
    gray /= np.sqrt(cv2.GaussianBlur(gray * gray, (0, 0), 4)) + 0.05
    dx, dy = cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1)
    length = np.hypot(dx, dy) + 1e-6
    return np.dstack([(dx * dx - dy * dy) / length, 2 * dx * dy / length])


def similarity(first: np.ndarray, second: np.ndarray) -> float:
    """Best correlation of two `edges` arrays over small shifts; 1 for the same image."""
    core = first[SHIFT_Y:-SHIFT_Y, SHIFT_X:-SHIFT_X].astype(np.float32)
    second = second.astype(np.float32)
    products = sum(
        cv2.matchTemplate(np.ascontiguousarray(second[..., k]), np.ascontiguousarray(core[..., k]), cv2.TM_CCORR)
        for k in range(2)
    )
    energy = cv2.matchTemplate((second**2).sum(-1), np.ones(core.shape[:2], np.float32), cv2.TM_CCORR)
    return float((products / np.sqrt(energy * (core**2).sum() + 1e-12)).max())


def suspects(pairs: Sequence[tuple[np.ndarray, np.ndarray]], partners: Sequence[str]) -> list[int] | None:
    """Finds pairs that fit no better than wrong pairs do.

    Args:
        pairs: `edges` of image and reference.
        partners: id of each reference; the wrong partners of a pair have another id.

    Returns:
        Positions of suspicious pairs, empty if there are fewer than four different references, which are too few to
        tell. None if the pairs as a whole fit no better than wrong ones, so that the pairing is wrong throughout.
    """
    if len(set(partners)) < 4:
        return []
    true = np.array([similarity(*pair) for pair in pairs])
    wrong = np.concatenate([_strangers(i, pairs, partners) for i in range(len(pairs))])
    spread = max(float(wrong.std()), 1e-3)
    separation = (np.median(true) - wrong.mean()) / spread
    if separation < 0.25:
        return None
    # A single pair is suspect only if the others stand out clearly.
    return [i for i, score in enumerate(true) if separation > 3 and score < wrong.mean() + spread]


def meters(first: tuple[float, float], second: tuple[float, float]) -> float:
    """Distance in meters between two (latitude, longitude) in degrees; nan if either is nan."""
    (lat1, lon1), (lat2, lon2) = np.radians(first), np.radians(second)
    return float(_EARTH_RADIUS * np.hypot(lat2 - lat1, (lon2 - lon1) * np.cos((lat1 + lat2) / 2)))


def _strangers(position: int, pairs: Sequence[tuple[np.ndarray, np.ndarray]], partners: Sequence[str]) -> list[float]:
    """Scores of one image with up to three wrong references from all over the list."""
    count = len(pairs)
    others = [(position + step * count // 4) % count for step in (1, 2, 3)]
    return [similarity(pairs[position][0], pairs[i][1]) for i in others if partners[i] != partners[position]]
