"""Reading the images users really have: rotated, gray, transparent, 16-bit, or damaged."""

import os

import numpy as np
from etils import epath

from nightjax.core.errors import UserError
from nightjax.core.files import check_file
from nightjax.data import photos
from nightjax.data.containers import BrokenFile


def read_image(path: str | epath.PathLike) -> np.ndarray:
    """Reads any image file as RGB.

    It is decoded as in training, see `nightjax.data.photos`.

    Args:
        path: local or remote file.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        UserError: if the file is missing, empty, truncated, no image, or holds floating-point
            values.
    """
    if not isinstance(path, str | os.PathLike):
        raise UserError(f"{path!r} is no image: give uint8 [H, W, 3] or the path of an image file")
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
