# SPDX-License-Identifier: Apache-2.0
"""Matrices of bicubic interpolation along one axis, by torch's rules."""

import numpy as np


def cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic kernel with the slope ``a`` at distance 1; zero from distance 2 on."""
    t = np.abs(distance)
    near = (a + 2) * t**3 - (a + 3) * t**2 + 1
    far = a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a
    return np.where(t <= 1, near, np.where(t < 2, far, 0.0))


def clamped_matrix(before: int, after: int, scale: float) -> np.ndarray:
    """torch's ``interpolate(mode="bicubic", align_corners=False)`` along one axis.

    Args:
        before: positions there are.
        after: positions to make.
        scale: of the coordinates, ``after / before`` or whatever a caller passes as torch's ``scale_factor``.

    Returns:
        float64 [after, before]; the weights of taps beyond the border are added to the last position's.
    """
    source = (np.arange(after) + 0.5) / scale - 0.5
    first = np.floor(source).astype(int) - 1
    matrix = np.zeros((after, before))
    for tap in range(4):
        weight = cubic(source - (first + tap), a=-0.75)
        np.add.at(matrix, (np.arange(after), np.clip(first + tap, 0, before - 1)), weight)
    return matrix


def antialiased_matrix(before: int, after: int) -> np.ndarray:
    """The same with ``antialias=True``: a wider kernel where the axis shrinks, and weights that sum to 1.

    Returns:
        float64 [after, before].
    """
    stretch = max(before / after, 1.0)
    source = (np.arange(after) + 0.5) * before / after - 0.5
    weights = cubic((np.arange(before) - source[:, None]) / stretch, a=-0.5)
    return weights / weights.sum(axis=1, keepdims=True)
