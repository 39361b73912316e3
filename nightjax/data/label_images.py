# SPDX-License-Identifier: Apache-2.0
"""The one decoder of label files: the values that a file stores, whatever their depth, and nothing else.

A label is read as it is or refused. Formats that change values to save space (JPEG, lossy WebP, HEIC) are known by
their content and refused under any name.
"""

import dataclasses
import io
import os
from typing import IO

import cv2
import numpy as np
from PIL import Image

from nightjax.data import containers, photos
from nightjax.data.containers import BrokenFile, Header

_LOSSY = {
    "jpeg": "a JPEG",
    "heic": "a HEIC",
    "webp": "a lossy WebP",
    "tiff": "a TIFF with JPEG compression",
}
_JPEG_IN_TIFF = (6, 7, 34712)
_BITS_PER_SAMPLE, _COMPRESSION, _PHOTOMETRIC = 258, 259, 262


@dataclasses.dataclass(frozen=True)
class LabelImage:
    """What a label file stores.

    Attributes:
        values: uint8, uint16 or int32 [H, W]: gray values at the file's own depth (Pillow and OpenCV scale 2 and 4 bits
            to 8), indices of a palette file, or the one value of three equal channels; uint8 [H, W, 3], RGB, if the
            channels differ.
        form: ``"gray"``, ``"palette"`` or ``"color"``, which three equal channels are too.
        palette: uint8 [256, 3], the colors of a palette file.
    """

    values: np.ndarray
    form: str
    palette: np.ndarray | None = None

    @property
    def colors(self) -> np.ndarray:
        """uint8 [H, W, 3]: the RGB colors that a viewer shows."""
        if self.palette is not None:
            return self.palette[self.values]
        return self.values if self.values.ndim == 3 else np.repeat(self.values.astype(np.uint8)[..., None], 3, axis=-1)


def decode_label(data: bytes) -> LabelImage:
    """Decodes a label file. EXIF orientation is applied, as to photos.

    Raises:
        BrokenFile: no image, truncated, damaged, of a format that changes values, with transparent pixels, or with
            several pages.
    """
    kind = containers.check_complete(data)
    file = io.BytesIO(data)
    image = _opened(file, kind, data[:4096])
    header = containers.header_of(image, kind, file)
    deep_colors = kind == "png" and data[24] == 16 and data[25] != 0
    if deep_colors or (kind == "bmp" and image.mode == "L" and _bits_of_bmp(data) == 4):
        values = _by_opencv(data)  # Pillow halves the depth of the one and fails with the other.
        form, palette, left = "color" if deep_colors else "gray", None, header.orientation
    else:
        photos.load(image)
        values = _stored(image, kind, data)
        form = {"P": "palette", "RGB": "color", "RGBA": "color", "RGBX": "color"}.get(image.mode, "gray")
        palette = _palette(image) if form == "palette" else None
        left = photos.left_to_turn(image, header)
    if values.ndim == 3 and (values == values[..., :1]).all():
        values = values[..., 0]
    if values.ndim == 3 and values.dtype != np.uint8:
        raise BrokenFile("is a color image of 16 bits a channel: save gray values, or colors of 8 bits")
    return LabelImage(np.ascontiguousarray(photos.turn(values, left)), form, palette)


def read_header(path: str | os.PathLike) -> Header:
    """The header of a label file; reads little of it.

    Raises:
        BrokenFile: no image, a damaged header, or a kind of file that `decode_label` refuses.
    """
    with open(path, "rb") as file:
        start = file.read(4096)
        kind = containers.known_kind(start)
        return containers.header_of(_opened(file, kind, start), kind, file)


def _opened(file: IO[bytes], kind: str, start: bytes) -> Image.Image:
    """A label file as Pillow opens it, if it is of a kind that keeps values."""
    if kind in ("jpeg", "heic") or (kind == "webp" and b"VP8L" not in start):
        _refuse_lossy(kind)
    if kind == "pnm":
        raise BrokenFile("is a PGM or PPM: save labels as PNG")
    image = containers.opened(file, kind)
    if kind == "tiff" and _tag(image, _COMPRESSION, 1) in _JPEG_IN_TIFF:
        _refuse_lossy(kind)
    if (pages := getattr(image, "n_frames", 1)) > 1:
        raise BrokenFile(f"has {pages} pages: save the label alone")
    return image


def _stored(image: Image.Image, kind: str, data: bytes) -> np.ndarray:
    """The values of a decoded file, in uint8 or more, gray [H, W] or RGB [H, W, 3]."""
    if image.mode not in ("1", "L", "P", "LA", "RGB", "RGBA", "RGBX", "I") and not image.mode.startswith("I;16"):
        raise BrokenFile(f"holds values of the kind {image.mode}: save labels as gray PNG, palette PNG or colors")
    values = np.asarray(image)
    if image.mode in ("LA", "RGBA"):
        values = _without_alpha(values)
        return values[..., 0] if image.mode == "LA" else values
    if image.mode == "RGBX":
        return values[..., :3]
    if image.mode == "1":
        return _inverted(values.astype(np.uint8), 1, image, kind)
    if image.mode == "L":
        bits = int(data[24]) if kind == "png" else _first(_tag(image, _BITS_PER_SAMPLE, 8)) if kind == "tiff" else 8
        return _inverted(values // {2: 85, 4: 17}.get(bits, 1), bits, image, kind)
    return values


def _palette(image: Image.Image) -> np.ndarray:
    colors = np.zeros((256, 3), np.uint8)
    given = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)[:256]
    colors[: len(given)] = given
    return colors


def _inverted(values: np.ndarray, bits: int, image: Image.Image, kind: str) -> np.ndarray:
    """TIFF files whose value 0 is white are inverted by Pillow; this takes it back."""
    white_is_zero = kind == "tiff" and _tag(image, _PHOTOMETRIC, 1) == 0
    return (2**bits - 1 - values).astype(np.uint8) if white_is_zero else values


def _by_opencv(data: bytes) -> np.ndarray:
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    if values is None:
        raise BrokenFile("is damaged and cannot be decoded: replace the file")
    if values.ndim == 3 and values.shape[-1] in (2, 4):
        values = _without_alpha(values)
    return values[..., ::-1] if values.ndim == 3 else values


def _without_alpha(values: np.ndarray) -> np.ndarray:
    if values[..., -1].min(initial=np.iinfo(values.dtype).max) < np.iinfo(values.dtype).max:
        raise BrokenFile("has transparent pixels, and no rule says what they mean: save the label without alpha")
    return values[..., :-1]


def _refuse_lossy(kind: str) -> None:
    raise BrokenFile(f"is {_LOSSY[kind]}, whose compression changes label values: save labels as PNG from the original")


def _bits_of_bmp(data: bytes) -> int:
    return int.from_bytes(data[28:30], "little")


def _tag(image: Image.Image, tag: int, default: int) -> int:
    return _first(getattr(image, "tag_v2", {}).get(tag, default))


def _first(value: int | tuple[int, ...]) -> int:
    return value[0] if isinstance(value, tuple) else value
