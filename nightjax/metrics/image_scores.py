# SPDX-License-Identifier: Apache-2.0
"""Scores of single images of a set, of which the worst, the median and the best are worth looking at."""

import dataclasses
import zlib
from collections.abc import Sequence

import numpy as np

from nightjax.metrics import confusion

MOST = 1000
"""So many images of a set are scored one by one."""


@dataclasses.dataclass(frozen=True)
class Chosen:
    """The worst, the median and the best image of a set.

    Attributes:
        count: images that were scored.
        miou: name of each to its mIoU over the classes of its truth, in percent.
        index: position of each in the set.
        prediction: train ids of each, uint8 [H, W].
    """

    count: int
    miou: dict[str, float]
    index: dict[str, int]
    prediction: dict[str, np.ndarray]


class ImageScores:
    """Collects images with their predictions, packed.

    Args:
        num_classes: K.
    """

    def __init__(self, num_classes: int):
        self._num_classes = num_classes
        self._images: list[tuple[float, int, bytes, tuple[int, ...]]] = []

    def __len__(self) -> int:
        return len(self._images)

    def add(self, index: Sequence[int], label: np.ndarray, prediction: np.ndarray) -> None:
        """Scores the images of one batch.

        Args:
            index: position of each in the set; -1 for padding.
            label: train ids, uint8 [B, H, W].
            prediction: train ids, uint8 [B, H, W].
        """
        k = self._num_classes
        for position, truth, found in zip(index, label, prediction, strict=True):
            if position < 0 or len(self._images) >= MOST or not (known := truth < k).any():
                continue
            pairs = truth[known].astype(np.int64) * k + np.minimum(found[known], k - 1)
            counts = np.bincount(pairs, minlength=k * k).reshape(k, k)
            score = 100 * confusion.mean_iou(counts, "gt_only")
            self._images.append((score, int(position), zlib.compress(found.tobytes(), 1), found.shape))

    def chosen(self) -> Chosen:
        """The worst, the median and the best one; of equal scores the first."""
        order = sorted(self._images, key=lambda image: image[:2])
        picked = {"worst": order[0], "median": order[(len(order) - 1) // 2], "best": order[-1]}
        unpack = lambda image: np.frombuffer(zlib.decompress(image[2]), np.uint8).reshape(image[3])
        return Chosen(
            len(order),
            {name: image[0] for name, image in picked.items()},
            {name: image[1] for name, image in picked.items()},
            {name: unpack(image) for name, image in picked.items()},
        )
