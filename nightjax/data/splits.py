# SPDX-License-Identifier: Apache-2.0
"""Split expressions of plain folders, in the form of TFDS: ``train``, ``train[:90%]``, ``all[100:200]``, ``a+b``."""

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from nightjax.core.errors import UserError

T = TypeVar("T")

_PART = re.compile(r"\s*(?P<name>[^\[\]]+?)\s*(?:\[(?P<start>[^:\]]*):(?P<stop>[^:\]]*)\])?\s*")
_BOUND = re.compile(r"-?\d+%?")


def select(expression: str, whole: Callable[[str], Sequence[T]]) -> list[T]:
    """The records of a split expression, in the order of its parts.

    Args:
        expression: names with slices, joined by ``+``. Bounds are numbers of records or percentages, which are rounded
            to the nearest record; negative ones count from the end.
        whole: the records of one name.

    Raises:
        UserError: the expression has another form.
    """
    found: list[T] = []
    for part in expression.split("+"):
        form = _PART.fullmatch(part)
        if form is None:
            raise UserError(f"split {expression!r} is no split: write train, train[:90%], train[10:20] or train+val")
        records = whole(form["name"])
        if form["start"] is not None:
            bounds = [_bound(form[side].strip(), len(records), expression) for side in ("start", "stop")]
            records = records[slice(*bounds)]
        found += records
    return found


def names(expression: str) -> list[str]:
    """The names of splits in an expression, without their slices."""
    return [part.partition("[")[0].strip() for part in expression.split("+")]


def _bound(text: str, count: int, expression: str) -> int | None:
    if not text:
        return None
    if not _BOUND.fullmatch(text) or (text.endswith("%") and abs(int(text[:-1])) > 100):
        raise UserError(f"split {expression!r}: {text!r} is no bound; write a number of records or a percentage")
    if text.endswith("%"):
        return round(int(text[:-1]) * count / 100)
    return int(text)
