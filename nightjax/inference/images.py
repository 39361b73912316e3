"""Reading the images users really have: rotated, gray, transparent, 16-bit, or damaged."""

import os
from collections.abc import Sequence

import numpy as np
from etils import epath

from nightjax.core.errors import UserError
from nightjax.data import photos
from nightjax.data.containers import BrokenFile

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
"""What `find_images` takes for an image, in any case."""


def find_images(inputs: str | epath.PathLike | Sequence[str | epath.PathLike]) -> list[epath.Path]:
    """Lists the images that a user means.

    Args:
        inputs: files and folders, local or remote (`gs://`). Folders are searched with all their
            sub-folders; hidden files and files of other types are passed over. A file named
            explicitly is kept whatever it is called.

    Returns:
        Paths, sorted within each folder, each once.

    Raises:
        UserError: for a path that does not exist, or if nothing was found.
    """
    paths = [inputs] if isinstance(inputs, (str, os.PathLike)) else list(inputs)
    found: list[epath.Path] = []
    for path in map(epath.Path, paths):
        if path.is_dir():
            found += sorted(_walk(path), key=str)
        elif path.exists():
            found.append(path)
        else:
            raise UserError(f"input {path} does not exist: give image files or a folder of images")
    if not found:
        where = ", ".join(map(str, paths)) or "an empty list"
        raise UserError(f"no image found in {where}: expected files ending in {' '.join(SUFFIXES)}")
    return list(dict.fromkeys(found))


def _walk(folder: epath.Path) -> list[epath.Path]:
    found = []
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            found += _walk(path)
        elif path.suffix.lower() in SUFFIXES:
            found.append(path)
    return found


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
