# SPDX-License-Identifier: Apache-2.0
"""Pictures of predictions: label files, colors over the image, captioned panels."""

import io
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from nightjax.core.classes import CITYSCAPES, ClassSet
from nightjax.core.types import IGNORE

JPEG_SIDE = 65_500
"""Most pixels of a side that JPEG holds."""


def encode_label(label: np.ndarray) -> bytes:
    """Train ids uint8 [H, W] as an 8-bit gray PNG: values are ids, nearly black to a viewer.

    It is packed fast rather than small: OpenCV's own choice takes a quarter of the time and a fifth more bytes.
    """
    return _encoded(".png", _as_label(label))


def encode_palette(label: np.ndarray, palette: np.ndarray = CITYSCAPES.colors) -> bytes:
    """Train ids uint8 [H, W] as a PNG with a palette: viewers show colors, indices are the ids."""
    image = Image.fromarray(_as_label(label))
    image.putpalette(palette.tobytes())
    return _png(image, compression=1)


def encode_image(image: np.ndarray, compression: int = 6) -> bytes:
    """uint8 [H, W, 3] RGB as PNG; a compression of 1 to 9, of which 1 is several times faster and somewhat larger."""
    return _png(Image.fromarray(image), compression)


def encode_photo(image: np.ndarray, *, overwrite: bool = False) -> bytes:
    """A photo as JPEG of quality 95, to be looked at; scaled down if a side is beyond `JPEG_SIDE`.

    Args:
        image: uint8 [H, W, 3] RGB.
        overwrite: whether the array may be used up, which saves a copy.
    """
    if (longest := max(image.shape)) > JPEG_SIDE:
        size = [max(side * JPEG_SIDE // longest, 1) for side in image.shape[1::-1]]
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return _encoded(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR, dst=image if overwrite else None))


def blend(
    image: np.ndarray, label: np.ndarray, opacity: float = 0.55, palette: np.ndarray = CITYSCAPES.colors
) -> np.ndarray:
    """Class colors over an image; the image alone where the label is 255.

    Args:
        image: uint8 [H, W, 3].
        label: uint8 [H, W].
        opacity: of the colors, 0..1.
        palette: uint8 [256, 3].

    Returns:
        uint8 [H, W, 3].
    """
    label, blended = _as_label(label), np.empty(image.shape, np.uint8)
    rows = max(2**20 // image.shape[1], 1)
    for top in range(0, len(image), rows):  # In bands, or the colors of a large photo would be there three times.
        part, classes, out = (array[top : top + rows] for array in (image, label, blended))
        out[:] = cv2.addWeighted(part, 1 - opacity, cv2.applyColorMap(classes, palette[:, None]), opacity, 0)
        ignored = classes == IGNORE
        if ignored.any():
            np.copyto(out, part, where=ignored[..., None])
    return blended


def to_rgb(values: np.ndarray, classes: ClassSet = CITYSCAPES) -> np.ndarray:
    """One panel as RGB: uint8 [H, W, 3] as it is, uint8 [H, W] as train ids of ``classes``, float as 0..1."""
    values = np.asarray(values)
    if values.dtype != np.uint8:
        values = np.round(np.clip(values.astype(np.float32), 0, 1) * 255).astype(np.uint8)
        return np.repeat(values[..., None], 3, axis=-1) if values.ndim == 2 else values
    return classes.colorize(values) if values.ndim == 2 else values


def panel_grid(
    panels: Mapping[str, Sequence[np.ndarray]],
    *,
    classes: ClassSet = CITYSCAPES,
    height: int | None = None,
    gap: int = 6,
) -> np.ndarray:
    """Lays out a method's panels: a column for each name, a row for each example, a caption over
    every column.

    Args:
        panels: caption to N pictures, each of any form that `to_rgb` takes; sizes may differ.
        classes: of the pictures that are labels.
        height: of each picture, its aspect kept; that of the first picture if None.
        gap: pixels between pictures.

    Returns:
        uint8 [H', W', 3] on white.
    """
    columns = {name: [to_rgb(picture, classes) for picture in pictures] for name, pictures in panels.items()}
    height = height or max(96, next(iter(columns.values()))[0].shape[0])
    columns = {name: [_scale_to(picture, height) for picture in pictures] for name, pictures in columns.items()}
    widths = {name: max(picture.shape[1] for picture in pictures) for name, pictures in columns.items()}
    size = max(11, min(18, height // 9))
    font = ImageFont.load_default(size)
    bar = round(size * 1.6)
    rows = max(map(len, columns.values()))
    canvas = Image.new(
        "RGB",
        (sum(widths.values()) + gap * (len(widths) + 1), bar + rows * (height + gap)),
        (255, 255, 255),
    )
    draw = ImageDraw.Draw(canvas)
    left = gap
    for name, pictures in columns.items():
        draw.text(
            (left, bar // 2),
            _fit(name, font, widths[name]),
            fill=(30, 30, 30),
            font=font,
            anchor="lm",
        )
        for row, picture in enumerate(pictures):
            canvas.paste(Image.fromarray(picture), (left, bar + row * (height + gap)))
        left += widths[name] + gap
    return np.asarray(canvas)


def legend(classes: ClassSet, *, rows: int = 32) -> np.ndarray:
    """The classes by train id, each beside its color, in columns of ``rows``; uint8 [H, W, 3] on white."""
    font, line = ImageFont.load_default(14), 22
    texts = [f"{k} {name}" for k, name in enumerate(classes.names)]
    width = 40 + round(max(font.getlength(text) for text in texts))
    size = (width * -(-len(texts) // rows), line * min(len(texts), rows) + 4)
    canvas = Image.new("RGB", size, (255, 255, 255))
    draw = ImageDraw.Draw(canvas)
    for k, text in enumerate(texts):
        left, top = width * (k // rows), line * (k % rows) + 3
        draw.rectangle((left + 4, top, left + 22, top + 17), classes.palette[k], (128, 128, 128))
        draw.text((left + 28, top + 8), text, fill=(30, 30, 30), font=font, anchor="lm")
    return np.asarray(canvas)


def _fit(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."


def _scale_to(picture: np.ndarray, height: int) -> np.ndarray:
    if picture.shape[0] == height:
        return picture
    width = max(1, round(picture.shape[1] * height / picture.shape[0]))
    method = cv2.INTER_AREA if picture.shape[0] > height else cv2.INTER_NEAREST
    return cv2.resize(picture, (width, height), interpolation=method)


def _as_label(label: np.ndarray) -> np.ndarray:
    label = np.asarray(label)
    if label.dtype != np.uint8 or label.ndim != 2:
        raise ValueError(f"a label image is uint8 [H, W], got {label.dtype} {list(label.shape)}")
    return label


def _encoded(suffix: str, pixels: np.ndarray) -> bytes:
    there, data = cv2.imencode(suffix, pixels)
    if not there:
        raise ValueError(f"OpenCV cannot write {pixels.dtype} {list(pixels.shape)} as {suffix}")
    return data.tobytes()


def _png(image: Image.Image, compression: int = 6) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=False, compress_level=compression)
    return buffer.getvalue()
