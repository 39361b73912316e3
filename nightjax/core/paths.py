# SPDX-License-Identifier: Apache-2.0
"""Paths inside texts whose separators may occur in a path as well."""

import os


def cut(text: str, separator: str, mark: str = "") -> list[str]:
    """A text cut at every separator but those in paths that exist.

    >>> cut("folder:/tmp/day+dusk+camvid", "+", ":")     # where there is a folder /tmp/day+dusk
    ['folder:/tmp/day+dusk', 'camvid']

    Args:
        text: to cut.
        separator: between its items.
        mark: what stands before the path in an item, such as ``":"``; "" if an item is a path.
    """
    joined: list[str] = []
    rest = text.split(separator)
    while rest:
        start = rest[0].find(mark) + len(mark) if mark in rest[0] else None
        for count in range(len(rest), 1, -1):
            text = separator.join(rest[:count])
            if start is not None and os.path.exists(os.path.expanduser(text[start:])):
                break
        else:
            count, text = 1, rest[0]
        joined.append(text)
        rest = rest[count:]
    return joined
