"""Image files of kinds that libraries do not write: any bit depth, white as zero, orientation, data behind the end."""

import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image


def gray_png(values: Sequence[Sequence[int]] | np.ndarray, bits: int) -> bytes:
    """A gray PNG of 1, 2, 4, 8 or 16 bits."""
    height, width = np.shape(values)
    rows = b"".join(b"\0" + packed(row, bits) for row in values)
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, content) for name, content in parts)


def gray_tiff(values: Sequence[Sequence[int]] | np.ndarray, bits: int, white_is_zero: bool = False) -> bytes:
    """A gray TIFF of 1, 2, 4 or 8 bits."""
    height, width = np.shape(values)
    rows = b"".join(packed(row, bits) for row in values)
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: 1 - white_is_zero, 273: 0, 277: 1, 278: height, 279: 0}
    tags |= {273: 8 + 2 + 12 * len(tags) + 4, 279: len(rows)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0) + rows


def packed(row: Sequence[int] | np.ndarray, bits: int) -> bytes:
    """Values of some bits each, from the high bit on, filled up to whole bytes."""
    text = "".join(format(int(value), f"0{bits}b") for value in row)
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


def chunk(name: bytes, content: bytes) -> bytes:
    """A chunk of a PNG with its checksum."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def encoded(pixels: np.ndarray, form: str = "PNG", orientation: int = 0, **options) -> bytes:
    """Pixels as a file that Pillow writes, with an EXIF orientation if one is given."""
    buffer = io.BytesIO()
    if orientation:
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = orientation
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


def palette_png(values: np.ndarray, colors: Sequence[int], bits: int = 8) -> bytes:
    """A palette PNG of 1, 2, 4 or 8 bits; colors are r, g, b, r, g, b, ..."""
    image = Image.fromarray(values.astype(np.uint8), "P")
    image.putpalette(list(colors))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", bits=bits)
    return buffer.getvalue()
