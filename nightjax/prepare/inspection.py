# SPDX-License-Identifier: Apache-2.0
"""Inspects single records for `nightjax.prepare.check`, and compares those of two splits."""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import cast

import cv2
import numpy as np
import tensorflow_datasets as tfds

from nightjax.core.errors import first_line
from nightjax.data import labels
from nightjax.data.imagefiles import BrokenFile, read_image, read_indexed
from nightjax.data.tfds_source import RENAMED, open_builder
from nightjax.prepare import alignment, integrity
from nightjax.prepare.records import ExampleFiles, Recipe

THUMBNAIL = 16
SAME_FRAME = 0.5
"""Two photos whose gray thumbnails differ by less than this (root mean square) are one frame."""


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What one record looks like: its faults, and what is needed to compare it with others."""

    key: str
    faults: tuple[str, ...] = ()
    thumbnail: np.ndarray | None = None
    views: tuple[np.ndarray, np.ndarray] | None = None
    reference_id: str = ""


def inspect_record(record: ExampleFiles, recipe: Recipe) -> Inspection:
    """Inspects the files of a record as they are on disk."""
    encoding = record.encoding
    readers = {
        "image": (record.image, read_image),
        "label": (record.label, encoding.read),
        "reference": (record.reference, read_image),
        "invalid mask": (record.invalid, read_indexed),
    }
    content: dict[str, np.ndarray] = {}
    faults = []
    for role, (path, read) in readers.items():
        if path is not None:
            try:
                content[role] = read(path)
            except BrokenFile as error:
                faults.append(f"broken: {role} {error}")
    image, label = content.get("image"), content.get("label")
    if image is not None:
        faults += [
            f"size: {role} is {_size(array)}, its image {_size(image)}"
            for role, array in content.items()
            if not _sizes_fit(role, array.shape[:2], image.shape[:2], recipe)
        ]
    if label is not None:
        faults += [f"values: {text}" for text in integrity.warnings_on_values(labels.histogram(label), encoding.values)]
        if (encoding.table[label] == labels.IGNORE).all():
            faults.append("values: the label marks no class at all")
    return inspection_of(record.key, faults, image, content.get("reference"), record.reference_id)


def inspect_prepared(folder: str, split: str, index: int) -> Inspection:
    """Inspects one record of a prepared data set."""
    faults, key, reference_id = [], f"record {index}", ""
    image = reference = None
    try:
        record = open_prepared(folder, split)[index]
        example = {RENAMED.get(name, name): value for name, value in record.items()}
        key = example["image_id"].decode()
        image = read_image(example["image"])
        for role in ("label", "invalid"):
            if role in example and (mask := read_indexed(example[role])).shape != image.shape[:2]:
                faults.append(f"size: {role} is {_size(mask)}, its image {_size(image)}")
        if "label" in example:
            label = read_indexed(example["label"])
            values = integrity.warnings_on_values(labels.histogram(label), "train_ids")
            faults += [f"values: {text}" for text in values]
            if not np.array_equal(labels.class_pixels(label), example["class_pixels"]):
                faults.append("values: class_pixels does not count the label")
        if "reference" in example:
            reference, reference_id = read_image(example["reference"]), example["reference_id"].decode()
    except BrokenFile as error:
        faults.append(f"broken: {error}")
    except Exception as error:  # array_record raises a bare Exception on damaged files
        faults.append(f"broken: cannot be read ({first_line(error)})")
    return inspection_of(key, faults, image, reference, reference_id)


@functools.lru_cache(maxsize=4)
def open_prepared(folder: str, split: str) -> Sequence[dict]:
    """Opens a split of a prepared data set; images stay encoded."""
    builder = open_builder(folder)
    images = [name for name, feature in builder.info.features.items() if isinstance(feature, tfds.features.Image)]
    return builder.as_data_source(split=split, decoders=dict.fromkeys(images, tfds.decode.SkipDecoding()))


def inspection_of(
    key: str,
    faults: Iterable[str],
    image: np.ndarray | None,
    reference: np.ndarray | None,
    reference_id: str,
) -> Inspection:
    """An inspection with the thumbnail of an image, uint8 [H, W, 3], and the edges of it and its reference."""
    thumbnail = views = None
    if image is not None:
        gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
        thumbnail = cv2.resize(gray, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
        if reference is not None:
            views = (
                alignment.edges(image).astype(np.float16),
                alignment.edges(reference).astype(np.float16),
            )
    return Inspection(key, tuple(faults), thumbnail, views, reference_id)


def duplicates(first: Sequence[Inspection], second: Sequence[Inspection]) -> list[tuple[str, str]]:
    """Pairs of keys of frames that are in both lists, even if encoded anew; images of one color do not count."""
    first, second = (
        [i for i in items if i.thumbnail is not None and i.thumbnail.std() > 2] for items in (first, second)
    )
    if not first or not second:
        return []
    a, b = (
        np.stack([np.ravel(cast(np.ndarray, item.thumbnail)) for item in items]).astype(np.float64)
        for items in (first, second)
    )
    found = []
    for start in range(0, len(a), 1024):
        block = a[start : start + 1024]
        squares = (block**2).mean(1)[:, None] + (b**2).mean(1)[None] - 2 * block @ b.T / b.shape[1]
        found += [(first[start + i].key, second[j].key) for i, j in np.argwhere(squares < SAME_FRAME**2)]
    return found


def _sizes_fit(role: str, size: tuple[int, int], image: tuple[int, int], recipe: Recipe) -> bool:
    if role == "label" and recipe.mismatch == "resize_label":
        return size[0] * image[1] == size[1] * image[0]  # NightCity+ stores labels at twice the size.
    return size == image or (role == "label" and recipe.mismatch == "crop")


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
