# SPDX-License-Identifier: Apache-2.0
"""From a record to an example: decode, check, resize, crop, flip.

An *example* is a dict of arrays on one pixel grid, and every function here keeps them aligned::

    image, reference  uint8   [H, W, 3]  RGB
    label             uint8   [H, W]     train ids, 255 = ignore
    invalid           uint8   [H, W]     1 where a person could not tell the class (UIoU masks)
    flow              float32 [H, W, 2]  (dx, dy) pixels from ``image`` into ``reference``
    flow_valid        bool    [H, W]

Colors are augmented elsewhere, on the device and inside the step.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from PIL import Image

from nightjax.core.classes import CITYSCAPES
from nightjax.core.errors import UserError
from nightjax.core.types import IGNORE
from nightjax.data import containers, label_images, photos
from nightjax.data.containers import BrokenFile

Example = dict[str, np.ndarray]

FEATURES = ("image", "label", "reference", "invalid", "flow", "flow_valid")
"""Features of a record that become fields of an example, under the same name."""

PAD_VALUES = {"label": IGNORE, "invalid": 1}
"""Value outside the image, by field; 0 for every other field."""


def decode(record: Mapping[str, object], fields: Sequence[str], num_classes: int = len(CITYSCAPES)) -> Example:
    """Decodes and checks some fields of one record.

    Args:
        record: features by name, images as encoded bytes or as arrays; messages name its ``image_id``.
        fields: some of `FEATURES`.
        num_classes: K of the labels.

    Returns:
        The example; all fields have one height and width.

    Raises:
        UserError: a field is absent, cannot be decoded, differs in size from the image, or holds a wrong label value.
    """
    where = f"record {record.get('image_id', '?')!r}"
    example = {}
    for field in fields:
        if field not in record:
            raise UserError(f"{where} has no {field!r}: choose a data set or split that has one")
        example[field] = _DECODERS[field](record[field], f"{where}, {field}")
    if "label" in example:
        check_label(example["label"], where, num_classes)
    sizes = {field: value.shape[:2] for field, value in example.items()}
    for field, size in sizes.items():
        if size != sizes[fields[0]]:
            raise UserError(
                f"{where}: {field} is {_size(size)} pixels but {fields[0]} is {_size(sizes[fields[0]])}; "
                + (_turned(record, size) or "resize them to one size (labels: nearest neighbor)")
            )
    return example


def decode_image(data: bytes | np.ndarray, where: str = "image") -> np.ndarray:
    """Decodes a photo to uint8 [H, W, 3] RGB, as `photos.decode_photo` does; ``where`` is what errors call it."""
    if isinstance(data, np.ndarray):
        return data
    try:
        return photos.decode_photo(data)
    except BrokenFile as error:
        raise UserError(f"{where} {error}") from error


def image_size(record: Mapping[str, Any]) -> tuple[int, int]:
    """(height, width) of what `decode_image` returns for a record's image, read from the header of the file.

    A record that knows its ``image_size`` is not read.
    """
    try:
        if "image_size" in record:
            return record["image_size"]
        data = record["image"]
        if isinstance(data, np.ndarray):
            return data.shape[0], data.shape[1]
        return containers.read_header(data).size
    except BrokenFile as error:
        raise UserError(f"record {record.get('image_id', '?')!r}, image {error}") from error


def empty(fields: Sequence[str]) -> Example:
    """An example of height and width 0, to be padded."""
    channels = {"image": (3,), "reference": (3,), "flow": (2,)}
    dtypes = {"flow": np.float32, "flow_valid": bool}
    return {field: np.zeros((0, 0, *channels.get(field, ())), dtypes.get(field, np.uint8)) for field in fields}


def decode_label(data: bytes | np.ndarray, where: str = "label") -> np.ndarray:
    """Decodes the values of a label file to uint8 [H, W], as `label_images.decode_label` does."""
    if isinstance(data, np.ndarray):
        return data[..., 0] if data.ndim == 3 else data
    try:
        label = label_images.decode_label(data).values
    except BrokenFile as error:
        raise UserError(f"{where} {error}") from error
    if label.ndim != 2:
        raise UserError(f"{where} is a color image: labels are one-channel PNG files of train ids")
    if label.max(initial=0) > IGNORE:
        raise UserError(f"{where} holds {label.max()}: labels are 8-bit train ids, and {IGNORE} is no class")
    return label.astype(np.uint8)


def check_label(label: np.ndarray, where: str, num_classes: int) -> None:
    """Raises `UserError` unless all values of a uint8 label are train ids or 255."""
    wrong = np.flatnonzero(_histogram(label)[num_classes:IGNORE])
    if wrong.size:
        raise UserError(
            f"{where}: label id {num_classes + wrong[0]} is no train id (0..{num_classes - 1}, {IGNORE} = ignore); "
            "convert the labels, name the right table for the data set, or say in labels.json what the values mean"
        )


def resize(example: Example, size: tuple[int, int], *, bicubic: bool = False, antialias: bool = False) -> Example:
    """Resizes every field to ``size`` = (height, width).

    Images and flow are interpolated bilinearly without antialiasing, as mmsegmentation does with OpenCV; labels and
    masks take the nearest neighbor. Flow vectors are scaled with the pixel grid.

    Args:
        example: arrays on one grid.
        size: of the result.
        bicubic: resizes images with Pillow's bicubic filter, which is antialiased, and labels with Pillow's nearest
            neighbor (DANNet, AdaptSegNet).
        antialias: the same with Pillow's bilinear filter (UNIT, LTSP); has no effect with ``bicubic``.
    """
    height, width = example["image"].shape[:2]
    if (height, width) == tuple(size):
        return example
    pillow = Image.Resampling.BICUBIC if bicubic else Image.Resampling.BILINEAR if antialias else None
    return {field: _resize_field(field, value, size, pillow) for field, value in example.items()}


def pad(example: Example, size: tuple[int, int]) -> Example:
    """Pads at the bottom and right to at least ``size``: image 0, label 255, flow invalid."""
    height, width = example["image"].shape[:2]
    extra = max(size[0] - height, 0), max(size[1] - width, 0)
    if not any(extra):
        return example
    return {
        field: np.pad(
            value,
            ((0, extra[0]), (0, extra[1])) + ((0, 0),) * (value.ndim - 2),
            constant_values=PAD_VALUES.get(field, 0),
        )
        for field, value in example.items()
    }


def random_scale(
    example: Example,
    scale_range: tuple[float, float],
    rng: np.random.Generator,
    *,
    bicubic: bool = False,
    antialias: bool = False,
) -> Example:
    """Resizes by one factor drawn uniformly from ``scale_range``; see `resize`. Sides are rounded down."""
    scale = rng.uniform(*scale_range)
    height, width = example["image"].shape[:2]
    size = max(int(height * scale), 1), max(int(width * scale), 1)
    return resize(example, size, bicubic=bicubic, antialias=antialias)


def random_crop(
    example: Example,
    size: tuple[int, int],
    rng: np.random.Generator,
    *,
    accept: Callable[[np.ndarray], bool] | None = None,
    retries: int = 10,
) -> Example:
    """Cuts one window out of every field, padding first where the image is smaller.

    Args:
        example: arrays on one grid.
        size: (height, width) of the window.
        rng: draws the position of the window.
        accept: whether the label in the window will do. Up to ``retries`` more windows are drawn until it does; the
            last one is taken in any case.
        retries: see ``accept``.

    Returns:
        Views of ``size``.
    """
    example = pad(example, size)
    height, width = example["image"].shape[:2]
    for _ in range(retries + 1):
        top = int(rng.integers(height - size[0] + 1))
        left = int(rng.integers(width - size[1] + 1))
        window = slice(top, top + size[0]), slice(left, left + size[1])
        if accept is None or accept(example["label"][window]):
            break
    return {field: value[window] for field, value in example.items()}


def has_mixed_classes(label: np.ndarray, max_share: float = 0.75) -> bool:
    """Whether there are several classes and the largest covers less than ``max_share`` of the labeled pixels.

    The rule of DSR+FPA and DAFormer for source crops.
    """
    counts = _histogram(label)[:IGNORE]
    return bool(np.count_nonzero(counts) > 1 and counts.max() < max_share * counts.sum())


def shift_reference(example: Example, pixels: int) -> Example:
    """Moves the reference, and the flow that points into it, by whole ``pixels`` to the right; borders are repeated."""
    width = example["reference"].shape[1]
    columns = np.arange(width) - pixels
    moved = {"reference": example["reference"][:, np.clip(columns, 0, width - 1)]}
    if "flow" in example:
        moved["flow"] = example["flow"] + np.array([pixels, 0], np.float32)
    if "flow_valid" in example:
        target = np.arange(width) + (moved["flow"][..., 0] if "flow" in moved else pixels)
        moved["flow_valid"] = example["flow_valid"] & (target >= 0) & (target <= width - 1)
    return example | moved


def flip(example: Example) -> Example:
    """Mirrors every field left to right; the horizontal component of the flow changes sign."""
    mirrored = {field: _mirror(value) for field, value in example.items()}
    if "flow" in mirrored:
        mirrored["flow"] = mirrored["flow"] * np.array([-1, 1], np.float32)
    return mirrored


def random_flip(example: Example, rng: np.random.Generator) -> Example:
    """Mirrors with probability one half."""
    return flip(example) if rng.random() < 0.5 else example


def _decode_mask(data: bytes | np.ndarray, where: str) -> np.ndarray:
    return (decode_label(data, where) != 0).astype(np.uint8)


_DECODERS = {
    "image": decode_image,
    "label": decode_label,
    "reference": decode_image,
    "invalid": _decode_mask,
    "flow": lambda data, where: np.asarray(data, np.float32),
    "flow_valid": lambda data, where: _decode_mask(data, where) != 0,
}


def _histogram(label: np.ndarray) -> np.ndarray:
    """float32 [256]: pixels of each value, exact up to 16 million; several times faster than NumPy."""
    return cv2.calcHist([label], [0], None, [256], [0, 256]).ravel()


def _mirror(value: np.ndarray) -> np.ndarray:
    """``value[:, ::-1]`` as a new array; OpenCV, which has no bool, is 100 times faster with color images."""
    return cv2.flip(value.view(np.uint8), 1).view(bool) if value.dtype == bool else cv2.flip(value, 1)


def _resize_field(field: str, value: np.ndarray, size: tuple[int, int], pillow: Image.Resampling | None) -> np.ndarray:
    smooth = field in ("image", "reference", "flow")
    if pillow is not None and value.dtype == np.uint8:
        chosen = pillow if smooth else Image.Resampling.NEAREST
        return np.asarray(Image.fromarray(value).resize((size[1], size[0]), chosen))
    source = value.astype(np.uint8) if value.dtype == bool else value
    resized = cv2.resize(source, size[::-1], interpolation=cv2.INTER_LINEAR if smooth else cv2.INTER_NEAREST)
    if field == "flow":
        resized *= np.array([size[1] / value.shape[1], size[0] / value.shape[0]], np.float32)
    return resized.astype(value.dtype)


def _turned(record: Mapping[str, Any], size: tuple[int, int]) -> str:
    """What to do about a field that has the size of the image as it is stored, before EXIF turns it; else ""."""
    data = record.get("image")
    if not isinstance(data, bytes):
        return ""
    header = containers.read_header(data)
    if header.orientation == 1 or size != header.stored:
        return ""
    return (
        f"the photo's EXIF orientation {header.orientation} turns it, and the {_size(size)} one fits it unturned: turn "
        "that one as well, or remove the orientation from the photo"
    )


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"
