"""Image files: strict reading, and encoding without TensorFlow."""

import io
import pathlib

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from nightjax.data import labels

JPEG_QUALITY = 95


class BrokenFile(Exception):
    """A file of a data set cannot be used; the message says why."""


def read_image(file: str | bytes) -> np.ndarray:
    """Decodes a photo, given as a path or as bytes, to uint8 [H, W, 3] RGB.

    Raises:
        BrokenFile: the file is damaged, truncated, missing or not an 8-bit image.
    """
    return np.asarray(_open(file, ("RGB", "RGBA", "L", "P")).convert("RGB"))


def read_indexed(file: str | bytes) -> np.ndarray:
    """Reads a label whose pixel values are ids, grayscale or the indices of a palette file, as uint8 [H, W].

    Args:
        file: path, or the bytes themselves.

    Raises:
        BrokenFile: the file is damaged or a color image.
    """
    image = _open(file, ("L", "P", "1", "I;16", "I"))
    values = np.asarray(image)
    if values.max(initial=0) > 255:
        raise BrokenFile(f"holds values up to {values.max()}, ids end at 255")
    return values.astype(np.uint8)


def read_first_channel(path: str) -> np.ndarray:
    """Reads SYNTHIA's 16-bit label of several channels as uint8 [H, W]; the ids are in the first (red) channel.

    OpenCV reverses the channels, so the red one comes last. Pillow cannot read these files.
    """
    values = cv2.imread(path, cv2.IMREAD_UNCHANGED)
    if values is None:
        raise BrokenFile("cannot be decoded")
    if values.ndim == 3:
        values = values[:, :, 2]
    if values.max(initial=0) > 255:
        raise BrokenFile(f"holds values up to {values.max()}, ids end at 255")
    return values.astype(np.uint8)


def read_camvid_colors(path: str) -> np.ndarray:
    """Reads CamVid's 32-color label as train ids, uint8 [H, W]."""
    image = np.asarray(_open(path, ("RGB", "P")).convert("RGB"))
    return labels.colors_to_labels(image, labels.CAMVID_COLOR_TO_TRAIN_ID)


def is_plain_rgb(path: str) -> bool:
    """Whether a file can be stored as it is, being 8-bit RGB in PNG or JPEG."""
    with Image.open(path) as image:
        return image.mode == "RGB" and image.format in ("PNG", "JPEG")


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


def _open(file: str | bytes, modes: tuple[str, ...]) -> Image.Image:
    """Opens and fully decodes a PNG or JPEG of one of the modes."""
    try:
        content = file if isinstance(file, bytes) else pathlib.Path(file).read_bytes()
        image = Image.open(io.BytesIO(content), formats=("PNG", "JPEG"))
        image.load()
    except FileNotFoundError as error:
        raise BrokenFile("is missing") from error
    except UnidentifiedImageError as error:
        raise BrokenFile("cannot be decoded (neither PNG nor JPEG)") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BrokenFile(f"cannot be decoded ({error})") from error
    if image.mode not in modes:
        raise BrokenFile(f"is a {image.mode} image, expected one of {', '.join(modes)}")
    return image


def _encode(suffix: str, image: np.ndarray, options: list[int]) -> bytes:
    pixels = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(suffix, pixels, options)[1].tobytes()
