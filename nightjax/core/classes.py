"""Class sets: names, colors, groups and label values, and how the classes of one set merge into another's.

A *train id* is the position of a class in its set; 255 means "no class". Label files may hold other values, such as
Cityscapes' *label ids* 0..33; every table from values to train ids is ``uint8[256]`` and total, so ``table[label]``
never fails and unknown values become 255.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np

from nightjax.core.types import IGNORE


def lookup_table(pairs: Mapping[int, int], default: int = IGNORE) -> np.ndarray:
    """A total ``uint8[256]`` table of the pairs, ``default`` elsewhere."""
    table = np.full(256, default, np.uint8)
    for key, value in pairs.items():
        table[key] = value
    table.setflags(write=False)
    return table


@dataclasses.dataclass(frozen=True)
class ClassSet:
    """The classes that a network tells apart.

    Attributes:
        names: in train-id order, at most 254.
        palette: RGB color of each class, 0..255.
        ids: value of each class in the set's own label files; the train ids by default.
        groups: name of a group to its train ids, such as ``"static"``, ``"small"`` and ``"dynamic"``.
        pixel_share: share of each class in the labeled pixels of the set's training split; empty if unknown.
    """

    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    ids: tuple[int, ...] = ()
    groups: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict, hash=False)
    pixel_share: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def group(self, *names: str) -> tuple[int, ...]:
        """Train ids of all classes in the named groups, in increasing order."""
        return tuple(sorted({train_id for name in names for train_id in self.groups[name]}))

    @functools.cached_property
    def colors(self) -> np.ndarray:
        """uint8[256, 3]: RGB of each train id; every other value is black."""
        table = np.zeros((256, 3), np.uint8)
        table[: len(self)] = self.palette
        table.setflags(write=False)
        return table

    @functools.cached_property
    def from_ids(self) -> np.ndarray:
        """uint8[256]: value in the set's label files to train id; anything unknown becomes 255."""
        return lookup_table({value: train_id for train_id, value in enumerate(self.ids or range(len(self)))})

    @functools.cached_property
    def to_ids(self) -> np.ndarray:
        """uint8[256]: train id to the value in the set's label files; 255 becomes 0."""
        return lookup_table(dict(enumerate(self.ids or range(len(self)))), default=0)

    def colorize(self, label: np.ndarray) -> np.ndarray:
        """Train ids, integer [...], to their colors, uint8 [..., 3]; 255 is black."""
        return self.colors[label]


# Name, label id, RGB, share of the labeled pixels of the training split; one row a train id. Ids and colors:
# cityscapesScripts, helpers/labels.py. Shares: DANNet's published constants.
_CITYSCAPES = (
    ("road", 7, (128, 64, 128), 0.36869696),
    ("sidewalk", 8, (244, 35, 232), 0.06084986),
    ("building", 11, (70, 70, 70), 0.22824049),
    ("wall", 12, (102, 102, 156), 0.00655399),
    ("fence", 13, (190, 153, 153), 0.00877272),
    ("pole", 17, (153, 153, 153), 0.01227341),
    ("traffic light", 19, (250, 170, 30), 0.00207795),
    ("traffic sign", 20, (220, 220, 0), 0.0055127),
    ("vegetation", 21, (107, 142, 35), 0.15928651),
    ("terrain", 22, (152, 251, 152), 0.01157818),
    ("sky", 23, (70, 130, 180), 0.04018982),
    ("person", 24, (220, 20, 60), 0.01218957),
    ("rider", 25, (255, 0, 0), 0.00135122),
    ("car", 26, (0, 0, 142), 0.06994545),
    ("truck", 27, (0, 0, 70), 0.00267456),
    ("bus", 28, (0, 60, 100), 0.00235192),
    ("train", 31, (0, 80, 100), 0.00232904),
    ("motorcycle", 32, (0, 0, 230), 0.00098658),
    ("bicycle", 33, (119, 11, 32), 0.00413907),
)

CITYSCAPES = ClassSet(
    names=tuple(name for name, *_ in _CITYSCAPES),
    palette=tuple(color for _, _, color, _ in _CITYSCAPES),
    ids=tuple(label_id for _, label_id, *_ in _CITYSCAPES),
    groups={  # Of DSR+FPA, from the results table of its project page.
        "static": (0, 1, 2, 3, 4, 8, 9, 10),
        "small": (5, 6, 7),
        "dynamic": (11, 12, 13, 14, 15, 16, 17, 18),
    },
    pixel_share=tuple(share for *_, share in _CITYSCAPES),
)
"""The 19 classes of Cityscapes. A day reference says nothing about where the ``dynamic`` ones are at night."""

CAMVID_CLASSES = (
    "Sky",
    "Building",
    "Pole",
    "Road",
    "Pavement",
    "Tree",
    "SignSymbol",
    "Fence",
    "Car",
    "Pedestrian",
    "Bicyclist",
)
"""The 11 classes of the SegNet copy of CamVid, in id order; 11 is "unlabelled"."""


@dataclasses.dataclass(frozen=True)
class ClassMerge:
    """Scores a 19-class model on a data set that tells fewer classes apart.

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

    def merge_confusion(self, counts: np.ndarray) -> np.ndarray:
        """Merges a confusion matrix.

        Args:
            counts: integer [19, 19], rows truth and columns prediction, both train ids.

        Returns:
            int64 [K + 1, K + 1]. The last row and column hold the train ids in no group: the last
            row (truth without counterpart) is zeroed, so that only the last column, predictions
            lost to those ids, counts.
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
    CAMVID_CLASSES,
    ((10,), (2, 3), (5,), (0,), (1,), (8, 9), (6, 7), (4,), (13, 14, 15, 16), (11,), (12, 17, 18)),
)
SYNTHIA_16 = _subset("synthia_16", [c for c in range(len(CITYSCAPES)) if c not in (9, 14, 16)])
SYNTHIA_13 = _subset("synthia_13", [c for c in range(len(CITYSCAPES)) if c not in (3, 4, 5, 9, 14, 16)])
CLASS_MERGES = {merge.name: merge for merge in (CITYSCAPES_19, CAMVID_11, SYNTHIA_16, SYNTHIA_13)}
