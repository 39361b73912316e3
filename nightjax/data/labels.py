"""Label spaces: Cityscapes train ids, what each data set writes instead, and how to come back.

Three words are kept apart everywhere:

* a *train id* is 0..18, with 255 for "no class": the only encoding inside nightjax;
* a *label id* is one of Cityscapes' 0..33, in which 0 is "unlabeled" (road is 7, not 0);
* a *colour* is what a viewer shows. Colours are read only where a data set ships nothing else,
because in
  Cityscapes "pole" and "polegroup" share one.

Every look-up table is ``uint8[256]`` and total, so ``LUT[label]`` never fails; unknown values
become 255.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from nightjax.core.types import IGNORE, NUM_CLASSES

Encoding = Literal["train_ids", "label_ids"]

# name, Cityscapes label id, RGB, share of the labelled pixels of Cityscapes train; one row a train
# id. Ids and colours: cityscapesScripts, helpers/labels.py. Shares: DANNet's published constants.
_CLASSES = (
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


def lookup_table(pairs: Mapping[int, int], default: int = IGNORE) -> np.ndarray:
    """A total ``uint8[256]`` table of the pairs, ``default`` elsewhere."""
    table = np.full(256, default, np.uint8)
    for key, value in pairs.items():
        table[key] = value
    table.setflags(write=False)
    return table


CITYSCAPES_CLASSES = tuple(name for name, *_ in _CLASSES)
"""The 19 class names, in train-id order."""

PALETTE = np.zeros((256, 3), np.uint8)
"""uint8[256, 3] RGB of each train id; every other value is black."""
PALETTE[:NUM_CLASSES] = [color for _, _, color, _ in _CLASSES]
PALETTE.setflags(write=False)

CITYSCAPES_ID_TO_TRAIN_ID = lookup_table({label_id: train_id for train_id, (_, label_id, *_) in enumerate(_CLASSES)})
"""uint8[256]: Cityscapes label id to train id; void ids and anything unknown become 255."""

TRAIN_ID_TO_CITYSCAPES_ID = lookup_table(
    {train_id: label_id for train_id, (_, label_id, *_) in enumerate(_CLASSES)}, default=0
)
"""uint8[256]: train id to the label id the Cityscapes server wants; 255 becomes 0, "unlabeled"."""

CITYSCAPES_PIXEL_SHARE = np.array([share for *_, share in _CLASSES], np.float64)
"""float64[19]: share of the labelled pixels of Cityscapes train."""
CITYSCAPES_PIXEL_SHARE.setflags(write=False)

LABEL_IDS = tuple(range(34))
"""Every id that occurs in a Cityscapes ``labelIds`` file."""

# Class groups of DSR+FPA (results table of its project page; specs/dsr_fpa.md, section 2).
STATIC = (0, 1, 2, 3, 4, 8, 9, 10)
"""Large static classes: road, sidewalk, building, wall, fence, vegetation, terrain, sky."""
SMALL = (5, 6, 7)
"""Small static classes: pole, traffic light, traffic sign."""
DYNAMIC = (11, 12, 13, 14, 15, 16, 17, 18)
"""Classes that move: a day reference says nothing about where they are at night."""

IDENTITY = lookup_table({train_id: train_id for train_id in range(NUM_CLASSES)})
"""uint8[256]: keeps train ids, turns everything else into 255."""

SYNTHIA_ID_TO_TRAIN_ID = lookup_table(
    {
        3: 0,
        4: 1,
        2: 2,
        21: 3,
        5: 4,
        7: 5,
        15: 6,
        9: 7,
        6: 8,
        16: 9,
        1: 10,
        10: 11,
        17: 12,
        8: 13,
        18: 14,
        19: 15,
        20: 16,
        12: 17,
        11: 18,
    }
)
"""uint8[256]: SYNTHIA-RAND-CITYSCAPES id to train id (terrain, truck and train never occur)."""

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

CAMVID_ID_TO_TRAIN_ID = lookup_table({0: 10, 1: 2, 2: 5, 3: 0, 4: 1, 5: 8, 6: 7, 7: 4, 8: 13, 9: 11, 10: 18})
"""uint8[256]: CamVid 11-class id to one train id that stands for it (Building holds walls, Car
holds trucks and buses, Bicyclist is rider and cycle): compare with it only after `CAMVID_11` has
merged both sides."""

# CamVid's 32 classes: name -> (RGB, train id). Where one CamVid class spans several
# train ids and no member is a fair stand-in (Bicyclist, Truck_Bus), and where Cityscapes calls the
# class void, the train id is 255.
CAMVID_32: Mapping[str, tuple[tuple[int, int, int], int]] = {
    "Animal": ((64, 128, 64), 255),
    "Archway": ((192, 0, 128), 2),
    "Bicyclist": ((0, 128, 192), 255),
    "Bridge": ((0, 128, 64), 255),
    "Building": ((128, 0, 0), 2),
    "Car": ((64, 0, 128), 13),
    "CartLuggagePram": ((64, 0, 192), 11),
    "Child": ((192, 128, 64), 11),
    "Column_Pole": ((192, 192, 128), 5),
    "Fence": ((64, 64, 128), 4),
    "LaneMkgsDriv": ((128, 0, 192), 0),
    "LaneMkgsNonDriv": ((192, 0, 64), 0),
    "Misc_Text": ((128, 128, 64), 255),
    "MotorcycleScooter": ((192, 0, 192), 17),
    "OtherMoving": ((128, 64, 64), 255),
    "ParkingBlock": ((64, 192, 128), 1),
    "Pedestrian": ((64, 64, 0), 11),
    "Road": ((128, 64, 128), 0),
    "RoadShoulder": ((128, 128, 192), 255),
    "Sidewalk": ((0, 0, 192), 1),
    "SignSymbol": ((192, 128, 128), 7),
    "Sky": ((128, 128, 128), 10),
    "SUVPickupTruck": ((64, 128, 192), 13),
    "TrafficCone": ((0, 0, 64), 255),
    "TrafficLight": ((0, 64, 64), 6),
    "Train": ((192, 64, 128), 16),
    "Tree": ((128, 128, 0), 8),
    "Truck_Bus": ((192, 128, 192), 255),
    "Tunnel": ((64, 0, 64), 255),
    "VegetationMisc": ((192, 192, 0), 8),
    "Void": ((0, 0, 0), 255),
    "Wall": ((64, 192, 0), 3),
}
CAMVID_COLOR_TO_TRAIN_ID = dict(CAMVID_32.values())
"""RGB of the 32-colour files to train id."""


def colors_to_labels(image: np.ndarray, table: Mapping[tuple[int, int, int], int]) -> np.ndarray:
    """Reads a colour-coded label image.

    Args:
        image: uint8 [H, W, 3], RGB.
        table: colour to label value.

    Returns:
        uint8 [H, W]; 255 where the colour is not in the table.
    """
    weights = np.array([1 << 16, 1 << 8, 1])
    codes = np.array(list(table), np.int64) @ weights
    order = np.argsort(codes)
    values = np.array(list(table.values()), np.uint8)[order]
    codes = codes[order]
    pixels = image.astype(np.int64) @ weights
    place = np.minimum(np.searchsorted(codes, pixels), len(codes) - 1)
    return np.where(codes[place] == pixels, values[place], IGNORE).astype(np.uint8)


def colorize(label: np.ndarray) -> np.ndarray:
    """Train ids, integer [...], to their colours, uint8 [..., 3]; 255 is black."""
    return PALETTE[label]


@dataclasses.dataclass(frozen=True)
class ClassMerge:
    """Scores a 19-class model on a data set that tells fewer classes apart.

    Attributes:
        name: how results tables call it.
        classes: names of the merged classes.
        groups: the train ids that make up each of them. A train id in no group has no counterpart:
        truth is
            ignored there, and predicting it is an error.
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
        member = np.zeros((NUM_CLASSES, self.num_classes + 1), np.int64)
        merged = self.table[:NUM_CLASSES]
        member[np.arange(NUM_CLASSES), np.where(merged == IGNORE, self.num_classes, merged)] = 1
        result = member.T @ np.asarray(counts, np.int64) @ member
        result[-1] = 0
        return result


def _subset(name: str, train_ids: Sequence[int]) -> ClassMerge:
    names = tuple(CITYSCAPES_CLASSES[train_id] for train_id in train_ids)
    return ClassMerge(name, names, tuple((train_id,) for train_id in train_ids))


CITYSCAPES_19 = _subset("cityscapes_19", range(NUM_CLASSES))
CAMVID_11 = ClassMerge(
    "camvid_11",
    CAMVID_CLASSES,
    ((10,), (2, 3), (5,), (0,), (1,), (8, 9), (6, 7), (4,), (13, 14, 15, 16), (11,), (12, 17, 18)),
)
SYNTHIA_16 = _subset("synthia_16", [c for c in range(NUM_CLASSES) if c not in (9, 14, 16)])
SYNTHIA_13 = _subset("synthia_13", [c for c in range(NUM_CLASSES) if c not in (3, 4, 5, 9, 14, 16)])
CLASS_MERGES = {merge.name: merge for merge in (CITYSCAPES_19, CAMVID_11, SYNTHIA_16, SYNTHIA_13)}


def histogram(label: np.ndarray) -> np.ndarray:
    """int64[256]: how often each value occurs in a uint8 label image."""
    return np.bincount(np.asarray(label, np.uint8).ravel(), minlength=256)


def class_pixels(label: np.ndarray) -> np.ndarray:
    """int32[19]: pixels of each train id in a uint8 label image (the `class_pixels` feature)."""
    return histogram(label)[:NUM_CLASSES].astype(np.int32)


def unexpected_values(counts: np.ndarray, encoding: Encoding) -> tuple[int, ...]:
    """Values that an encoding does not know.

    Args:
        counts: int[256] histogram of one file or of many.
        encoding: what the values should be. Both allow 255, which several releases of label ids use
        for void.
    """
    allowed = range(NUM_CLASSES) if encoding == "train_ids" else LABEL_IDS
    present = np.flatnonzero(counts).tolist()
    return tuple(value for value in present if value != IGNORE and value not in allowed)


def suspicious_encoding(counts: np.ndarray, encoding: Encoding) -> str | None:
    """Says why a histogram does not look like the encoding it should have, or None.

    The sets of train ids and label ids overlap, so a single file can be undecidable: judge by the
    file's suffix first and treat this as a warning, best on the histogram of a whole folder.

    Args:
        counts: int[256] histogram of one file or of many.
        encoding: what the values should be.
    """
    present = set(np.flatnonzero(counts).tolist()) - {IGNORE}
    if not present:
        return None
    if encoding == "train_ids" and present & set(range(NUM_CLASSES, 34)) and present <= set(LABEL_IDS):
        return "values 19..33 occur: these are label ids, not train ids"
    if encoding == "label_ids" and present <= set(range(NUM_CLASSES)) and present - set(range(7)):
        return "no value of 19..33 occurs: these look like train ids, not label ids"
    return None
