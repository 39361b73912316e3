# SPDX-License-Identifier: Apache-2.0
"""The one decoder of photos: whatever the file, uint8 RGB as a viewer shows it.

The rules, everywhere the same: EXIF orientation is applied; transparent pixels are laid on black; gray, palette and
CMYK files become RGB; colors of 16 bits keep their high byte; of an animation the first frame is taken.
"""

import io

import cv2
import numpy as np
from PIL import Image

from nightjax.data import containers
from nightjax.data.containers import BrokenFile, Header

_ALPHA = ("LA", "PA", "La", "RGBA", "RGBa")
_DEPTHS = (8, 10, 12, 14, 16)


def decode_photo(data: bytes) -> np.ndarray:
    """Decodes a photo to uint8 [H, W, 3] RGB.

    Gray files of 16 bits, such as those of thermal cameras, are scaled by the depth of the sensor: the smallest of 8,
    10, 12, 14 and 16 bits that holds the largest value. Otherwise 14 bits in 16 would be nearly black.

    Raises:
        BrokenFile: the bytes are no image, truncated or damaged, or hold floats or integers of 32 bits.
    """
    kind = containers.check_complete(data)
    file = io.BytesIO(data)
    image = containers.opened(file, kind)
    header = containers.header_of(image, kind, file)
    plain = image.mode not in _ALPHA and "transparency" not in image.info
    if plain and kind in ("jpeg", "png") and not image.mode.startswith("I"):
        return turn(_by_opencv(data), header.orientation)
    load(image)
    return turn(_to_rgb(image, plain), left_to_turn(image, header))


def turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels [H, W, ...] as EXIF's orientation, 1 to 8, says that they are shown."""
    if orientation == 1:
        return pixels
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def load(image: Image.Image) -> None:
    """Decodes what `containers.opened` returned.

    Raises:
        BrokenFile: truncated or damaged.
    """
    try:
        image.load()
    except Exception as error:  # Decoders raise almost anything for damaged files.
        raise containers.explained(error) from error


def left_to_turn(image: Image.Image, header: Header) -> int:
    """The orientation that still has to be applied after `load`: newer versions of Pillow turn TIFF themselves."""
    turned = header.kind == "tiff" and 0x0112 not in getattr(image, "tag_v2", {})
    return 1 if turned else header.orientation


def _by_opencv(data: bytes) -> np.ndarray:
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise BrokenFile(f"is damaged and cannot be decoded ({error.err}): replace the file") from error
    if image is None:
        raise BrokenFile("is damaged and cannot be decoded: replace the file")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def _to_rgb(image: Image.Image, plain: bool) -> np.ndarray:
    if image.mode == "F":
        raise BrokenFile("holds floating-point values: save it with 8 or 16 bits a channel")
    if image.mode.startswith("I"):
        return np.repeat(_to_8_bits(np.asarray(image))[..., None], 3, axis=-1)
    if not plain:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return np.array(image.convert("RGB"))


def _to_8_bits(values: np.ndarray) -> np.ndarray:
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    if low < 0 or high > 65535:
        raise BrokenFile("holds 32-bit integers: save it with 8 or 16 bits a channel")
    depth = next(depth for depth in _DEPTHS if high < 1 << depth)
    return (values.astype(np.uint16) >> (depth - 8)).astype(np.uint8)
