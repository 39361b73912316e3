"""The one exception for mistakes a user can make, and the suggestions that go into its message."""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


class UserError(Exception):
    """A mistake of the user's, told in one line: what is wrong, where, and how to fix it.

    Command-line entry points print it without a traceback and exit with code 2.
    """


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
    if name not in table:
        raise UserError(f"{what}={name!r} is unknown{suggestion(name, table)}")
    return table[name]


def first_line(error: BaseException) -> str:
    """The first line of an error's message, at most 200 characters, or its type if the message is empty."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


def memory_shortage(error: BaseException) -> str | None:
    """``"memory ran out (88.5 GB were asked for at once)"`` if that is what an error says, or None."""
    text = str(error)
    if not isinstance(error, MemoryError) and not re.search("RESOURCE_EXHAUSTED|Insufficient memory", text):
        return None
    asked = re.search(r"(?:allocating|allocate) (\d+) bytes", text)
    return "memory ran out" + (f" ({int(asked[1]) / 1e9:.3g} GB were asked for at once)" if asked else "")
