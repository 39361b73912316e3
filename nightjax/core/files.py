# SPDX-License-Identifier: Apache-2.0
"""Bytes, text and JSON of files that users name: regular files only, and text as editors of all systems write it."""

import codecs
import contextlib
import json
import os
import stat
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from etils import epath

from nightjax.core.errors import UserError, first_line

T = TypeVar("T")

SPECIAL = "a pipe, socket or device"
"""What `is_special` finds."""

PATIENCE = 60.0
"""Seconds within which a folder, wherever it is, must answer."""

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # Before UTF-16, whose mark it begins with.
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Byte order mark to the encoding that it announces."""


def is_special(path: str | os.PathLike) -> bool:
    """Whether a path is a pipe, socket or device, which must not be opened."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # ValueError: a path with a zero byte.
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def check_file(path: str | os.PathLike) -> None:
    """Raises UserError if a path is a pipe, socket or device, which would never end or never begin."""
    if is_special(path):
        raise UserError(f"{path} is {SPECIAL}, no file: copy its content into a file")


def read_bytes(path: str | os.PathLike, limit: int = -1) -> bytes:
    """The content of a file, or its first ``limit`` bytes.

    Args:
        path: on a local disk, or any that ``epath`` knows.
        limit: number of bytes; -1 for all.

    Raises:
        UserError: it cannot be read, is a folder, or is a pipe, socket or device, which is not opened.
    """
    check_file(path)
    try:
        with epath.Path(path).open("rb") if "://" in os.fspath(path) else open(path, "rb") as file:
            return file.read(limit)
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte.
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or first_line(error)}") from error


def read_json(path: str | os.PathLike, kind: type[T], remedy: str) -> T:
    """The value in a JSON file.

    Args:
        path: of the file.
        kind: ``dict`` or ``list``, which the value must be.
        remedy: end of the messages, what to do about a file that is damaged.

    Raises:
        UserError: it cannot be read (see `read_bytes`), is damaged or holds another kind of value.
    """
    data = read_bytes(path)
    try:
        value: Any = json.loads(data)
    except (ValueError, RecursionError) as error:  # Not UTF-8 is a ValueError too.
        raise UserError(f"{path} is not valid JSON ({first_line(error)}): {remedy}") from error
    if not isinstance(value, kind):
        wanted = {dict: "object", list: "list"}.get(kind, kind.__name__)
        raise UserError(f"{path} holds no JSON {wanted}, but {str(value)[:40]!r}: {remedy}")
    return value


def write_whole(path: str | os.PathLike, content: bytes | str) -> None:
    """Writes a file that appears under its name only when complete; makes its folder.

    Raises:
        UserError: a folder, pipe, socket or device is in its place, which root could replace by the draft.
        OSError: it cannot be written, the disk is full for example. What stood there stays, and no draft is left.
    """
    whole = epath.Path(path)
    if whole.is_dir():
        raise UserError(f"{path} is a folder, and a file is to be written there: name another path")
    if is_special(path):
        raise UserError(f"{path} is {SPECIAL}, and a file is to be written there: name another path")
    whole.parent.mkdir(parents=True, exist_ok=True)
    draft = whole.parent / f".{whole.name}.partial"
    try:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)
        draft.replace(whole)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        error.filename, error.filename2 = os.fspath(path), None
        raise


def below(folder: epath.Path) -> Iterator[epath.Path]:
    """Every file below a folder of any store, in the order of names; links to folders are not followed."""
    for path in sorted(folder.iterdir(), key=str):
        if path.is_dir() and not os.path.islink(path):
            yield from below(path)
        else:
            yield path


def check_answers(
    path: str | os.PathLike, seconds: float = PATIENCE, exists: Callable[[], object] | None = None
) -> None:
    """Raises UserError unless a path, which may be behind a network, says in time whether it is there.

    Args:
        path: on any disk or store.
        seconds: to wait.
        exists: asks; by default ``epath.Path(path).exists``.
    """
    failed: list[BaseException] = []

    def ask() -> None:
        try:
            (exists or epath.Path(path).exists)()
        except BaseException as error:  # Told by the thread that waits.
            failed.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise UserError(f"{path} does not answer within {seconds:g} s: check the network and the mount")
    if failed:
        raise failed[0]


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
