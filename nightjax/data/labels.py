# SPDX-License-Identifier: Apache-2.0
"""Label encodings of published data sets: Cityscapes train ids, what each set stores instead, and how to convert it.

Three terms are kept apart everywhere:

* A *train id* is the position of a class in its set, or 255 for "no class". It is the only encoding inside nightjax.
* A *label id* is one of the 0..33 of Cityscapes, where 0 is "unlabeled" and road is 7.
* A *color* is what a viewer shows. Colors are read only where a data set has nothing else, because in Cityscapes
  "pole" and "polegroup" share one color.

Every lookup table is uint8[256] and covers all values, so ``table[label]`` never fails. Unknown values become 255.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np

from nightjax.core.classes import CITYSCAPES, lookup_table
from nightjax.core.types import IGNORE

Encoding = Literal["train_ids", "label_ids"]


LABEL_IDS = tuple(range(34))
"""Every id that occurs in a Cityscapes ``labelIds`` file."""

IDENTITY = lookup_table({train_id: train_id for train_id in range(len(CITYSCAPES))})
"""uint8[256]: keeps train ids and turns everything else into 255."""

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


CAMVID_ID_TO_TRAIN_ID = lookup_table({0: 10, 1: 2, 2: 5, 3: 0, 4: 1, 5: 8, 6: 7, 7: 4, 8: 13, 9: 11, 10: 18})
"""uint8[256]: CamVid 11-class id to the one train id that represents it. Building includes walls, Car includes trucks
and buses, Bicyclist includes the rider, so merge both sides with `CAMVID_11` before comparing."""

# CamVid's 32 classes: name -> (RGB, train id). The train id is 255 where Cityscapes calls the class void, and where a
# CamVid class spans several train ids none of which represents it fairly (Bicyclist, Truck_Bus).
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
CAMVID_COLOR_TO_TRAIN_ID: Mapping[tuple[int, int, int], int] = dict(CAMVID_32.values())
"""RGB in the 32-color files to train id."""


def colors_to_labels(image: np.ndarray, table: Mapping[tuple[int, int, int], int]) -> np.ndarray:
    """Reads a color-coded label image.

    Args:
        image: uint8 [H, W, 3], RGB.
        table: color to label value.

    Returns:
        uint8 [H, W]; 255 where a color is not in the table.
    """
    weights = np.array([1 << 16, 1 << 8, 1])
    codes = np.array(list(table), np.int64) @ weights
    order = np.argsort(codes)
    values = np.array(list(table.values()), np.uint8)[order]
    codes = codes[order]
    pixels = image.astype(np.int64) @ weights
    place = np.minimum(np.searchsorted(codes, pixels), len(codes) - 1)
    return np.where(codes[place] == pixels, values[place], IGNORE).astype(np.uint8)


def histogram(label: np.ndarray) -> np.ndarray:
    """int64[256]: how often each value occurs in a uint8 label image."""
    values = np.asarray(label, np.uint8).ravel()
    counts = np.zeros(256, np.int64)
    for first in range(0, len(values), 2**20):  # NumPy counts 8 bytes for each that it is given.
        counts += np.bincount(values[first : first + 2**20], minlength=256)
    return counts


def class_pixels(label: np.ndarray, num_classes: int = len(CITYSCAPES)) -> np.ndarray:
    """int32[K]: pixels of each train id in a uint8 label image (the `class_pixels` feature)."""
    return histogram(label)[:num_classes].astype(np.int32)


def unexpected_values(counts: np.ndarray, encoding: Encoding) -> tuple[int, ...]:
    """Values that an encoding does not define.

    Args:
        counts: int[256] histogram of one file or of many.
        encoding: what the values should be. Both encodings allow 255, which several releases of label ids use for void.
    """
    allowed = range(len(CITYSCAPES)) if encoding == "train_ids" else LABEL_IDS
    present = np.flatnonzero(counts).tolist()
    return tuple(value for value in present if value != IGNORE and value not in allowed)


def suspicious_encoding(counts: np.ndarray, encoding: Encoding) -> str | None:
    """Why a histogram does not look like the encoding it should have, or None.

    Train ids and label ids overlap, so one file may not decide it. Trust the suffix of the file first, treat this as a
    warning, and prefer the histogram of a whole folder.

    Args:
        counts: int[256] histogram of one file or of many.
        encoding: what the values should be.
    """
    present = set(np.flatnonzero(counts).tolist()) - {IGNORE}
    if not present:
        return None
    train_ids = set(range(len(CITYSCAPES)))
    if encoding == "train_ids" and present & set(range(len(CITYSCAPES), 34)) and present <= set(LABEL_IDS):
        return "values 19..33 occur: these are label ids, not train ids"
    if encoding == "label_ids" and present <= train_ids and present - set(range(7)):
        return "no value of 19..33 occurs: these look like train ids, not label ids"
    return None
