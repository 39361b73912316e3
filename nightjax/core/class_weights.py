# SPDX-License-Identifier: Apache-2.0
"""Weights of classes by their share of the labeled pixels."""

from collections.abc import Callable, Sequence

import numpy as np

PixelShare = np.ndarray | Sequence[float]


def class_weights(pixel_share: PixelShare, std: float) -> np.ndarray:
    """Weights of mean 1 and deviation ``std`` that fall with the logarithm of the pixel share.

    Source: DANNet ``train.py``; the deviation is the unbiased one.

    Args:
        pixel_share: [K], above 0.
        std: 0.05 in DANNet's losses and pseudo-labels, 0.16 on its logits at test.

    Returns:
        [K] float64; 1 for all where the classes have one share.
    """
    log_share = np.log(np.asarray(pixel_share, np.float64))
    if len(log_share) == 1 or not log_share.std(ddof=1):
        return np.ones(len(log_share))
    return 1.0 + std * (log_share.mean() - log_share) / log_share.std(ddof=1)


def root_inverse_weights(pixel_share: PixelShare) -> tuple[float, ...]:
    """Inverse root of each class's share, mean 1 over the pixels, at most 8.

    Ours, not any paper's: within a short run from scratch an unweighted loss leaves the rare classes unlearned.

    Args:
        pixel_share: [K], above 0; rounded to five places, but never to 0.
    """
    exact = np.asarray(pixel_share, np.float64)
    share = np.where(exact.round(5) > 0, exact.round(5), exact)
    weights = share**-0.5
    weights /= (share * weights).sum()
    return tuple(float(w) for w in weights.clip(max=8).round(3))


def dannet_weights(pixel_share: PixelShare) -> tuple[float, ...]:
    """DANNet's class weights of pseudo-labels and losses."""
    return tuple(float(weight) for weight in class_weights(pixel_share, 0.05).round(7))


RULES: dict[str, Callable[[PixelShare], tuple[float, ...]]] = {
    "root_inverse": root_inverse_weights,
    "dannet": dannet_weights,
}
"""What a setting ``class_weights`` may say instead of numbers, to the numbers by the class set's pixel shares."""
