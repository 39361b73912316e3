# SPDX-License-Identifier: Apache-2.0
"""Image files: strict reading, and encoding without TensorFlow."""

import os
from typing import cast

import cv2
import numpy as np

from nightjax.core.errors import UserError
from nightjax.core.files import read_bytes
from nightjax.data import containers, label_images, labels, photos
from nightjax.data.containers import BrokenFile as BrokenFile

JPEG_QUALITY = 95


def read_image(file: str | bytes) -> np.ndarray:
    """Decodes a photo, given as a path or as bytes, to uint8 [H, W, 3] RGB; see `photos.decode_photo`.

    Raises:
        BrokenFile: the file is missing, damaged, truncated or no image.
    """
    return photos.decode_photo(_content(file))


def read_indexed(file: str | bytes) -> np.ndarray:
    """Reads a label whose values are ids, as uint8 [H, W]; see `label_images.decode_label`.

    Args:
        file: path, or the bytes themselves.

    Raises:
        BrokenFile: the file is missing or damaged, a color image, of a format that changes values, or holds values
            above 255.
    """
    values = label_images.decode_label(_content(file)).values
    if values.ndim != 2:
        raise BrokenFile("is a color image, and its values should be ids: save one channel")
    return _eight_bits(values)


def read_first_channel(path: str) -> np.ndarray:
    """Reads SYNTHIA's 16-bit label of several channels as uint8 [H, W]; the ids are in the first (red) channel.

    OpenCV reverses the channels, so the red one comes last. Pillow cannot read these files.
    """
    data = _content(path)
    containers.check_complete(data)
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None:
        raise BrokenFile("cannot be decoded")
    return _eight_bits(values[:, :, 2] if values.ndim == 3 else values)


def read_camvid_colors(path: str) -> np.ndarray:
    """Reads CamVid's 32-color label as train ids, uint8 [H, W]."""
    label = label_images.decode_label(_content(path))
    return labels.colors_to_labels(label.colors, labels.CAMVID_COLOR_TO_TRAIN_ID)


def is_plain_rgb(path: str) -> bool:
    """Whether a file can be stored as it is, being 8-bit RGB in PNG or JPEG."""
    header = containers.read_header(path)
    return header.mode == "RGB" and header.kind in ("png", "jpeg")


def encode_png(image: np.ndarray) -> bytes:
    """uint8 [H, W] (mode L) or [H, W, 3] (RGB) to PNG bytes."""
    return _encode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 3])


def encode_jpeg(image: np.ndarray, quality: int = JPEG_QUALITY) -> bytes:
    """uint8 [H, W, 3] RGB to JPEG bytes."""
    return _encode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])


def shrink_label(label: np.ndarray, divide_by: int) -> np.ndarray:
    """Nearest-neighbor resize of uint8 [H, W] to [H // n, W // n]."""
    height, width = (side // divide_by for side in label.shape)
    return label if divide_by == 1 else resize_label(label, (height, width))


def resize_label(label: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Nearest-neighbor resize: row ``i`` of ``h`` is row ``floor(i * H / h)`` of ``H``; columns likewise."""
    rows = np.arange(size[0]) * label.shape[0] // size[0]
    columns = np.arange(size[1]) * label.shape[1] // size[1]
    return np.ascontiguousarray(label[rows[:, None], columns])


def _content(file: str | bytes) -> bytes:
    try:
        return file if isinstance(file, bytes) else read_bytes(file)
    except UserError as error:
        raise BrokenFile("is missing" if not os.path.exists(cast(str, file)) else "cannot be read") from error


def _eight_bits(values: np.ndarray) -> np.ndarray:
    if values.max(initial=0) > 255 or values.min(initial=0) < 0:
        raise BrokenFile(f"holds values up to {values.max()}, ids end at 255")
    return values.astype(np.uint8)


def _encode(suffix: str, image: np.ndarray, options: list[int]) -> bytes:
    pixels = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(suffix, pixels, options)[1].tobytes()
