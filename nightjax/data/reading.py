"""Bytes and text of files that users name: regular files only, and text as editors of all systems write it."""

import codecs
import os

from nightjax.core.errors import UserError
from nightjax.data import walking

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # Before UTF-16, whose mark it begins with.
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Byte order mark to the encoding that it announces."""


def read_bytes(path: str | os.PathLike, limit: int = -1) -> bytes:
    """The content of a file on a local disk, or its first ``limit`` bytes.

    Raises:
        UserError: it cannot be read, is a folder, or is a pipe, socket or device, which is not opened.
    """
    if walking.is_special(path):
        raise UserError(f"{path} is {walking.SPECIAL}, no file: copy its content into a file")
    try:
        with open(path, "rb") as file:
            return file.read(limit)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def read_text(path: str | os.PathLike) -> str:
    """The text of a file in UTF-8, UTF-16 or UTF-32, with or without a byte order mark; lines end in ``\\n``.

    Raises:
        UserError: it cannot be read (see `read_bytes`) or is in another encoding.
    """
    data = read_bytes(path)
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), None) or _unmarked(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is neither UTF-8 nor UTF-16 text ({error.reason}): save it again as UTF-8") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _unmarked(data: bytes) -> str:
    """The encoding of text without a mark: the letters of UTF-16 have a zero byte each, at one side."""
    pairs = data[: len(data) // 2 * 2]
    if pairs and len(pairs) == len(data):
        if pairs[1::2].count(0) > len(pairs) // 4 and not pairs[::2].count(0):
            return "utf-16-le"
        if pairs[::2].count(0) > len(pairs) // 4 and not pairs[1::2].count(0):
            return "utf-16-be"
    return "utf-8"
