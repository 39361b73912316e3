# SPDX-License-Identifier: Apache-2.0
"""The one exception for mistakes a user can make, and the suggestions that go into its message."""

import difflib
import errno
import os
import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


class UserError(Exception):
    """A mistake of the user's, told in one line: what is wrong, where, and how to fix it.

    Command-line entry points print it without a traceback and exit with code 2.
    """


class Interrupted(KeyboardInterrupt):
    """The user stopped a command, and nothing was lost; the message says where it goes on."""


class NotFinite(UserError):
    """A number of a run is not finite; the message lacks how to go on, which depends on what is saved."""


class Absent(UserError):
    """The files of a data set are not there."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"``, or the known names when nothing is close."""
    known = sorted(known)
    if not known:
        return "; there are none here"
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"


def choose(table: Mapping[str, T], name: str, what: str) -> T:
    """``table[name]``, or a UserError with a suggestion."""
    if not isinstance(name, str):
        raise UserError(f"{what}={name!r} must be a name; known: {', '.join(sorted(table))}")
    if name not in table:
        raise UserError(f"{what}={name!r} is unknown{suggestion(name, table)}")
    return table[name]


def first_line(error: BaseException) -> str:
    """The first line of an error's message, at most 300 characters, or its type if the message is empty."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line if len(line) <= 300 else f"{line[:298]}.."


def disk_trouble(error: BaseException | None) -> str | None:
    """``"No space left on device"`` if that, or another refusal of a disk, is behind an error, however wrapped."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in DISK:
            return os.strerror(error.errno)
        text = str(error)
        if found := next((os.strerror(code) for code in DISK if os.strerror(code) in text), None):
            return found
        error = error.__cause__ or error.__context__
    return None


DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE)
"""What a disk answers that does not take a file."""


def memory_shortage(error: BaseException) -> str | None:
    """``"memory ran out (88.5 GB were asked for at once)"`` if that is what an error says, or None."""
    text = str(error)
    if not isinstance(error, MemoryError) and not re.search("RESOURCE_EXHAUSTED|Insufficient memory", text):
        return None
    asked = re.search(r"(?:allocating|allocate) (\d+) bytes", text)
    return "memory ran out" + (f" ({int(asked[1]) / 1e9:.3g} GB were asked for at once)" if asked else "")
