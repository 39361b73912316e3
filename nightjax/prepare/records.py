# SPDX-License-Identifier: Apache-2.0
"""The files of one record, and how they become one uniform example.

Builders encode with this module, `nightjax.prepare.check` inspects with it, and worker processes run it. It does not
know TFDS.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal

import cv2
import numpy as np

from nightjax.core.classes import CITYSCAPES
from nightjax.data import imagefiles, labels
from nightjax.data.imagefiles import (
    BrokenFile,
    encode_jpeg,
    encode_png,
    read_image,
    read_indexed,
    resize_label,
    shrink_label,
)

NO_GPS = (math.nan, math.nan)


@dataclasses.dataclass(frozen=True)
class ExampleFiles:
    """The files of one example and what is known about it, before any file is opened.

    Attributes:
        key: unique in its split, without a user's paths.
        image: path of the image.
        image_id: stem of the image, or another name.
        label: path of the label.
        label_encoding: how the label is read: key of `LABEL_ENCODINGS`, or an encoding.
        reference, reference_id: path and id of the paired reference image.
        invalid: path of the mask whose nonzero pixels are invalid.
        sequence, frame: drive, and number in the drive; "" and -1 if unknown.
        condition: one of `builder.CONDITIONS`, or "" if unknown.
        gps: latitude and longitude in degrees, or nan.
    """

    key: str
    image: str
    image_id: str
    label: str | None = None
    label_encoding: "str | LabelEncoding" = "train_ids"
    reference: str | None = None
    reference_id: str = ""
    invalid: str | None = None
    sequence: str = ""
    frame: int = -1
    condition: str = ""
    gps: tuple[float, float] = NO_GPS

    @property
    def encoding(self) -> "LabelEncoding":
        """How the label is read."""
        known = self.label_encoding
        return LABEL_ENCODINGS[known] if isinstance(known, str) else known


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How files become stored bytes.

    Attributes:
        divide_by: 1 keeps the size, and the original bytes of the images; 2 halves both sides.
        image_format: format of images that are encoded anew, lossless PNG or JPEG of quality 95, which decodes faster.
        mismatch: what to do if a label differs from its image in size: ``"refuse"``, ``"resize_label"`` by nearest
            neighbor, or ``"crop"`` both to their common rectangle.
        drop_uniform: leaves out images of a single color.
        keep_file_values: also stores the values of the label as they are on disk.
    """

    divide_by: int = 1
    image_format: Literal["png", "jpeg"] = "png"
    mismatch: Literal["refuse", "resize_label", "crop"] = "refuse"
    drop_uniform: bool = False
    keep_file_values: bool = False


@dataclasses.dataclass(frozen=True)
class LabelEncoding:
    """How one kind of label file is read: ``table[read(path)]`` gives train ids."""

    read: Callable[[str], np.ndarray]
    table: np.ndarray
    values: labels.Encoding | None = None


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of the files of a record: an example, or the reason why there is none.

    Attributes:
        key: of the files.
        example: a TFDS example; None if the record is broken.
        fault: which file is broken and why; "" if none is.
        size: (height, width) of the image file.
        values: int64[256] histogram of the label file as it is on disk.
    """

    key: str
    example: dict[str, Any] | None = None
    fault: str = ""
    size: tuple[int, int] = (0, 0)
    values: np.ndarray | None = None


LABEL_ENCODINGS = {
    "train_ids": LabelEncoding(read_indexed, labels.IDENTITY, "train_ids"),
    "label_ids": LabelEncoding(read_indexed, CITYSCAPES.from_ids, "label_ids"),
    "synthia_ids": LabelEncoding(imagefiles.read_first_channel, labels.SYNTHIA_ID_TO_TRAIN_ID),
    "camvid_ids": LabelEncoding(read_indexed, labels.CAMVID_ID_TO_TRAIN_ID),
    "camvid_colors": LabelEncoding(imagefiles.read_camvid_colors, labels.IDENTITY),
}
"""Name to reader and table. The indices of a palette file are ``label_ids`` or ``train_ids``."""


def encode_record(record: ExampleFiles, recipe: Recipe) -> Outcome:
    """Converts the files of one record. A broken file is reported in the outcome and raises nothing."""
    role, size, values = "image", (0, 0), None
    try:
        image = read_image(record.image)
        size = image.shape[:2]
        if recipe.drop_uniform and image.min() == image.max():
            raise BrokenFile("is of one color")
        example: dict[str, Any] = _facts(record)
        crop = size
        if record.label is not None:
            role = "label"
            encoding = record.encoding
            raw = encoding.read(record.label)
            values = labels.histogram(raw)
            label = encoding.table[raw]
            if label.shape != size:
                label, crop = _match(label, size, recipe)
            label = shrink_label(label, recipe.divide_by)
            example["label"] = encode_png(label)
            if recipe.keep_file_values:
                example["file_label"] = encode_png(shrink_label(raw, recipe.divide_by))
            example["class_pixels"] = labels.class_pixels(label)
        if record.invalid is not None:
            role = "invalid mask"
            invalid = read_indexed(record.invalid)
            if invalid.shape != size:
                raise BrokenFile(_sizes(invalid.shape, size))
            example["invalid"] = encode_png(shrink_label((invalid != 0).astype(np.uint8), recipe.divide_by))
        example["image"] = _stored(record.image, image[: crop[0], : crop[1]], recipe, crop == size)
        if record.reference is not None:
            role = "reference"
            example["reference"] = _stored(record.reference, read_image(record.reference), recipe, True)
            example["reference_id"] = record.reference_id
    except BrokenFile as error:
        return Outcome(record.key, None, f"{role} {error}", size, values)
    return Outcome(record.key, example, "", size, values)


def _facts(record: ExampleFiles) -> dict[str, Any]:
    return {
        "image_id": record.image_id,
        "sequence": record.sequence,
        "frame": record.frame,
        "condition": record.condition or -1,
        "gps": np.array(record.gps, np.float64),
    }


def _match(label: np.ndarray, size: tuple[int, int], recipe: Recipe) -> tuple[np.ndarray, tuple[int, int]]:
    """Fits a label to its image. Returns the label and the (height, width) of the image to keep."""
    if recipe.mismatch == "refuse":
        raise BrokenFile(_sizes(label.shape, size))
    if recipe.mismatch == "resize_label":
        return resize_label(label, size), size
    height, width = min(label.shape[0], size[0]), min(label.shape[1], size[1])
    return np.ascontiguousarray(label[:height, :width]), (height, width)


def _sizes(found: tuple[int, ...], size: tuple[int, int]) -> str:
    return f"is {found[1]}x{found[0]}, its image {size[1]}x{size[0]}"


def _stored(path: str, image: np.ndarray, recipe: Recipe, whole: bool) -> str | bytes:
    """The path of a file that can be stored as it is, or else the bytes of the newly encoded image."""
    if recipe.divide_by == 1 and whole and imagefiles.is_plain_rgb(path):
        return path
    if recipe.divide_by > 1:
        height, width = (side // recipe.divide_by for side in image.shape[:2])
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return encode_jpeg(image) if recipe.image_format == "jpeg" else encode_png(image)
