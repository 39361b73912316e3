# SPDX-License-Identifier: Apache-2.0
"""Merges: how models of Cityscapes' classes are scored on data sets that tell fewer classes apart."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from nightjax.core.class_section import IGNORED
from nightjax.core.classes import CAMVID, CITYSCAPES, lookup_table
from nightjax.core.types import IGNORE


@dataclasses.dataclass(frozen=True)
class ClassMerge:
    """Scores a model of Cityscapes' classes on a data set that tells fewer classes apart.

    Attributes:
        name: how results tables call it.
        classes: names of the merged classes.
        groups: the train ids that make up each of them. A train id in no group has no counterpart: truth is ignored
            there, and predicting it is an error.
    """

    name: str
    classes: tuple[str, ...]
    groups: tuple[tuple[int, ...], ...]

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @functools.cached_property
    def table(self) -> np.ndarray:
        """uint8[256]: train id to merged class; 255 for train ids in no group."""
        return lookup_table({train_id: k for k, group in enumerate(self.groups) for train_id in group})

    @property
    def by_name(self) -> dict[str, tuple[str, ...]]:
        """Merged class to names of Cityscapes' classes, ``ignore`` to those in no group: for ``classes.merges``."""
        grouped = {train_id for group in self.groups for train_id in group}
        rest = tuple(name for k, name in enumerate(CITYSCAPES.names) if k not in grouped)
        groups = zip(self.classes, self.groups, strict=True)
        merged = {name: tuple(CITYSCAPES.names[k] for k in group) for name, group in groups}
        return merged | ({IGNORED: rest} if rest else {})

    def merge_confusion(self, counts: np.ndarray) -> np.ndarray:
        """Merges a confusion matrix.

        Args:
            counts: integer [K, K] of Cityscapes' classes, rows truth and columns prediction, both train ids.

        Returns:
            int64 [M + 1, M + 1] of the M merged classes. The last row and column hold the train ids in no group: the
            last row (truth without counterpart) is zeroed, so that only the last column, predictions lost to those
            ids, counts.
        """
        member = np.zeros((len(CITYSCAPES), self.num_classes + 1), np.int64)
        merged = self.table[: len(CITYSCAPES)]
        member[np.arange(len(CITYSCAPES)), np.where(merged == IGNORE, self.num_classes, merged)] = 1
        result = member.T @ np.asarray(counts, np.int64) @ member
        result[-1] = 0
        return result


def _subset(name: str, train_ids: Sequence[int]) -> ClassMerge:
    names = tuple(CITYSCAPES.names[train_id] for train_id in train_ids)
    return ClassMerge(name, names, tuple((train_id,) for train_id in train_ids))


CITYSCAPES_19 = _subset("cityscapes_19", range(len(CITYSCAPES)))
CAMVID_11 = ClassMerge(
    "camvid_11",
    CAMVID.names,
    ((10,), (2, 3), (5,), (0,), (1,), (8, 9), (6, 7), (4,), (13, 14, 15, 16), (11,), (12, 17, 18)),
)
SYNTHIA_16 = _subset("synthia_16", [c for c in range(len(CITYSCAPES)) if c not in (9, 14, 16)])
SYNTHIA_13 = _subset("synthia_13", [c for c in range(len(CITYSCAPES)) if c not in (3, 4, 5, 9, 14, 16)])
CLASS_MERGES = {merge.name: merge for merge in (CITYSCAPES_19, CAMVID_11, SYNTHIA_16, SYNTHIA_13)}
"""Name to merge."""
