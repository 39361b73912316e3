# SPDX-License-Identifier: Apache-2.0
"""Reading the images users really have: rotated, gray, transparent, 16-bit, or damaged."""

import io
import os
from typing import IO

import numpy as np
from etils import epath
from PIL import Image, ImageOps

from nightjax.core.errors import UserError
from nightjax.core.files import check_file
from nightjax.data import photos
from nightjax.data.containers import BrokenFile


def read_image(path: str | epath.PathLike | IO[bytes] | Image.Image) -> np.ndarray:
    """Reads any image as RGB.

    It is decoded as in training, see `nightjax.data.photos`.

    Args:
        path: local or remote file, an open binary file, which is read from where it stands, or an image of Pillow.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        UserError: if the file is missing, empty, truncated, no image, or holds floating-point
            values.
    """
    if isinstance(path, Image.Image):
        return decode_image(_encoded(path), "the image")
    if not isinstance(path, str | os.PathLike):
        data = path.read() if hasattr(path, "read") else None
        if not isinstance(data, bytes):
            raise UserError(
                f"{path!r} is no image: give uint8 [H, W, 3], the path of an image file, a binary file or a PIL image"
            )
        return decode_image(data, str(getattr(path, "name", "the file")))
    check_file(path)
    path = epath.Path(path)
    try:
        data = path.read_bytes()
    except IsADirectoryError:
        raise UserError(f"{path} is a folder: expected an image file") from None
    except OSError as error:
        reason = error.strerror or "no such file"
        raise UserError(f"cannot read {path}: {reason}; check path and permissions") from None
    return decode_image(data, str(path))


def decode_image(data: bytes, name: str = "image") -> np.ndarray:
    """Decodes an encoded image as `read_image` does; `name` is what errors call it."""
    try:
        return photos.decode_photo(data)
    except BrokenFile as error:
        raise UserError(f"{name} {error}") from error


def _encoded(image: Image.Image) -> bytes:
    """An image of Pillow as a PNG, upright, so that it is decoded by the same rules as a file."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16"):
        upright = upright.convert("RGB")
    written = io.BytesIO()
    upright.save(written, "png", compress_level=0)
    return written.getvalue()
