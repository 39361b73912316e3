"""Paths inside texts whose separators may occur in a path as well."""

import os
from collections.abc import Callable, Sequence


def rejoined(pieces: Sequence[str], separator: str, path_of: Callable[[str], str] = str) -> list[str]:
    """The pieces of a text that was cut at every separator, joined again where a path that exists was cut.

    >>> rejoined("/tmp/day+dusk+night".split("+"), "+")     # where there is a folder /tmp/day+dusk
    ['/tmp/day+dusk', 'night']

    Args:
        pieces: of the text.
        separator: they were cut at.
        path_of: the path in a piece, "" if it holds none.
    """
    joined: list[str] = []
    rest = list(pieces)
    while rest:
        for count in range(len(rest), 1, -1):
            text = separator.join(rest[:count])
            if (path := path_of(text)) and os.path.exists(os.path.expanduser(path)):
                break
        else:
            count, text = 1, rest[0]
        joined.append(text)
        rest = rest[count:]
    return joined
