# SPDX-License-Identifier: Apache-2.0
"""What kind of image file some bytes are, whether they are all there, and what its header says.

Nothing is decoded here. Files are known by their content: a name may lie.
"""

import dataclasses
import io
import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from typing import IO

from PIL import Image, UnidentifiedImageError

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # 90 megapixels are a photo, no attack.

_STARTS = {
    b"\x89PNG\r\n\x1a\n": "png",
    b"\xff\xd8\xff": "jpeg",
    b"BM": "bmp",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"GIF8": "gif",
    b"P5": "pnm",
    b"P6": "pnm",
}
_PILLOW = {
    "png": ("PNG",),
    "jpeg": ("JPEG", "MPO"),
    "bmp": ("BMP",),
    "tiff": ("TIFF",),
    "gif": ("GIF",),
    "pnm": ("PPM",),
    "webp": ("WEBP",),
    "heic": ("HEIF",),
}
READ = "PNG, JPEG, BMP, TIFF, WebP, GIF, PGM or PPM"
"""The kinds that can be read everywhere, in words; HEIC needs the package pillow-heif."""

_ORIENTATION = 0x0112
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")


class BrokenFile(Exception):
    """A file of a data set cannot be used; the message says why, and its subject is the file."""


@dataclasses.dataclass(frozen=True)
class Header:
    """What an image file says of itself.

    Attributes:
        kind: ``"png"``, ``"jpeg"``, ``"bmp"``, ``"tiff"``, ``"webp"``, ``"gif"``, ``"pnm"`` or ``"heic"``.
        mode: Pillow's.
        stored: (height, width) of the pixels in the file.
        orientation: EXIF's, 1 to 8; 1 if the file names none.
    """

    kind: str
    mode: str
    stored: tuple[int, int]
    orientation: int = 1

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) as shown, with the orientation applied."""
        height, width = self.stored
        return (width, height) if self.orientation >= 5 else (height, width)


def kind_of(start: bytes) -> str:
    """The kind of file that begins with these bytes, 32 or more; "" if it is none that can be read."""
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "webp"
    if start[4:8] == b"ftyp" and start[8:12] in _HEIC_BRANDS:
        return "heic"
    return next((kind for mark, kind in _STARTS.items() if start.startswith(mark)), "")


def opened(file: IO[bytes], kind: str) -> Image.Image:
    """A file as Pillow opens it, its pixels not yet decoded.

    Raises:
        BrokenFile: its header is damaged, or its size is not sane.
    """
    if kind == "heic":
        _register_heic()
    file.seek(0)
    try:
        return Image.open(file, formats=_PILLOW[kind])
    except UnidentifiedImageError as error:
        raise BrokenFile("is damaged (its header cannot be read): replace the file") from error
    except Image.DecompressionBombError as error:
        raise BrokenFile(f"has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels: scale it down first") from error
    except Exception as error:  # Damaged headers make Pillow's plugins raise almost anything.
        raise BrokenFile(f"is damaged ({_words(error)}): replace the file") from error


def read_header(file: bytes | str | os.PathLike) -> Header:
    """The header of an image file, given as its bytes or a path; reads little of it.

    Raises:
        BrokenFile: empty, no image of a kind that can be read, or a damaged header.
    """
    if isinstance(file, bytes):
        return _header(io.BytesIO(file))
    with open(file, "rb") as inside:
        return _header(inside)


def header_of(image: Image.Image, kind: str, file: IO[bytes]) -> Header:
    """The header of what `opened` returned for a file."""
    width, height = image.size
    orientation = 1
    if kind == "tiff":  # Newer versions of Pillow turn TIFF themselves, and its size too.
        tags = getattr(image, "tag_v2", {})
        width, height, orientation = tags.get(256, width), tags.get(257, height), tags.get(_ORIENTATION, 1)
    elif kind in ("jpeg", "webp"):
        orientation = _from_exif(image.info.get("exif"))
    elif kind == "png":
        exif = image.info.get("exif")
        if exif is None:
            file.seek(0)
            exif = next((_take(file, length) for name, length in _chunks(file) if name == b"eXIf"), None)
        orientation = _from_exif(exif)
    valid = orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1
    return Header(kind, image.mode, (int(height), int(width)), valid)


def check_complete(data: bytes) -> str:
    """The kind of an image file, after a look at its end: some decoders return a half-empty image for half a file.

    What follows the end of a JPEG or PNG is no fault: phones put videos there.

    Raises:
        BrokenFile: empty, no image of a kind that can be read, truncated, or a PNG whose checksums are wrong.
    """
    kind = known_kind(data[:32])
    if kind == "jpeg" and not _jpeg_ends(data):
        raise BrokenFile(f"is damaged (truncated, {len(data)} bytes): copy the file again")
    if kind == "png":
        _check_png(data)
    return kind


def known_kind(start: bytes) -> str:
    """`kind_of`, or a `BrokenFile` that says what can be read."""
    if not start:
        raise BrokenFile("is empty (0 bytes): copy or download it again")
    kind = kind_of(start)
    if not kind:
        raise BrokenFile(f"is not an image that can be read: expected {READ}")
    return kind


def has_end(path: str | os.PathLike, kind: str) -> bool:
    """A cheap look for the end marker of a JPEG or PNG in a file's last bytes; other kinds pass.

    False means only that `check_complete` should look closer.
    """
    marker = {"jpeg": b"\xff\xd9", "png": b"IEND"}.get(kind)
    if marker is None:
        return True
    with open(path, "rb") as file:
        file.seek(max(os.fstat(file.fileno()).st_size - 64, 0))
        return marker in file.read()


def explained(error: Exception) -> BrokenFile:
    """What Pillow says while it decodes, as a `BrokenFile`."""
    words = _words(error)
    return BrokenFile(f"is damaged ({words}): copy the file again or replace it")


def _header(file: IO[bytes]) -> Header:
    kind = known_kind(file.read(32))
    return header_of(opened(file, kind), kind, file)


def _jpeg_ends(data: bytes) -> bool:
    """Whether a JPEG's end marker comes after its first scan; thumbnails in its header have ends of their own."""
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # Padding.
            place += 1
            continue
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == 0xDA:  # Start of scan: from here on no FF D9 but the end, since FF is stuffed with 00.
            return data.find(b"\xff\xd9", place) >= 0
    return False


def _check_png(data: bytes) -> None:
    file = io.BytesIO(data)
    for name, length in _chunks(file):
        start = file.tell()
        stored = data[start + length : start + length + 4]
        if len(stored) < 4:
            break
        if name[:1].isupper() and zlib.crc32(data[start - 4 : start + length]) != int.from_bytes(stored, "big"):
            raise BrokenFile("is damaged (a checksum is wrong): replace the file")
        if name == b"IEND":
            return
    raise BrokenFile(f"is damaged (truncated, {len(data)} bytes): copy the file again")


def _chunks(file: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    """Yields (name, length) of a PNG's chunks, the file at the content of each."""
    place = 8
    while True:
        file.seek(place)
        head = file.read(8)
        if len(head) < 8:
            return
        length, name = struct.unpack(">I4s", head)
        yield name, length
        place += 12 + length


def _take(file: IO[bytes], length: int) -> bytes:
    return file.read(min(length, 1 << 16))


def _from_exif(content: bytes | None) -> int:
    if not content:
        return 1
    exif = Image.Exif()
    try:
        exif.load(content)
        return exif.get(_ORIENTATION, 1)
    except Exception:  # Damaged EXIF is no reason to refuse a photo, and every viewer shows it unturned.
        return 1


def _register_heic() -> None:
    try:
        import pillow_heif  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise BrokenFile("is a HEIC photo: pip install pillow-heif to read these, or convert it to JPEG") from None
    pillow_heif.register_heif_opener()


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
