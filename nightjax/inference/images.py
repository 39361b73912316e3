"""Reading the images users really have: rotated, gray, transparent, 16-bit, or damaged."""

import io
import os
from collections.abc import Sequence

import numpy as np
from etils import epath
from PIL import Image, ImageOps, UnidentifiedImageError

from nightjax.core.errors import UserError

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

    EXIF rotation is applied. Gray becomes three equal channels, palettes and CMYK become RGB, 16
    bits keep their high byte, transparent pixels are laid on black, and of an animation the first
    frame is taken.

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
    if not data:
        raise UserError(f"{name} is empty (0 bytes): copy or download it again")
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            image = ImageOps.exif_transpose(image)
            return _to_rgb(image, name)
    except UnidentifiedImageError:
        raise UserError(f"{name} is not an image: expected JPEG, PNG, WebP, TIFF or BMP") from None
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise UserError(f"{name} has more than {limit:,} pixels: scale it down first") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{name} is damaged ({reason}): copy or download it again") from None


def _to_rgb(image: Image.Image, name: str) -> np.ndarray:
    if image.mode.startswith("I"):  # 16-bit gray; 32-bit "I" is how some versions of Pillow open it
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise UserError(f"{name} holds 32-bit integers: save it with 8 or 16 bits a channel")
        return np.repeat((values >> 8).astype(np.uint8)[..., None], 3, axis=-1)
    if image.mode == "F":
        raise UserError(f"{name} holds floating-point values: save it with 8 or 16 bits a channel")
    if image.mode in ("LA", "PA", "RGBA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return np.array(image.convert("RGB"))
