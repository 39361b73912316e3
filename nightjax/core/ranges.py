# SPDX-License-Identifier: Apache-2.0
"""Which numbers a setting takes, written beside it: ``decay: Annotated[float, Range(0, 1)]``.

All numbers of a config are finite, not below 0 and at most `LARGEST`; see `check_values`.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from nightjax.core.errors import UserError

LARGEST = {int: 2**31 - 1, float: 1e12}
"""By type, what no setting exceeds: steps and sizes are counted in 32 bits."""


@dataclasses.dataclass(frozen=True)
class Range:
    """A range of numbers.

    Attributes:
        least: the smallest, or with ``above`` what all are above of.
        most: the largest, or with ``below`` what all are below of; None for `LARGEST`.
        above, below: leave an end out.
    """

    least: float = 0
    most: float | None = None
    above: bool = False
    below: bool = False

    def check(self, value: int | float, where: str) -> None:
        """Raises UserError, with the name of the setting, unless the number is in the range."""
        if problem := self.problem(value):
            raise UserError(f"{where}={_short(value)} {problem}")

    def problem(self, value: int | float) -> str:
        """What a number must be that it is not, ``"must be 1 or more"``; "" if it is in the range."""
        most = LARGEST[type(value)] if self.most is None else self.most
        if isinstance(value, float) and not math.isfinite(value):
            return "must be a finite number"
        if value < self.least or (self.above and value == self.least) or (value == 0 and str(value)[0] == "-"):
            words = f"be {self.least:g} or more" if isinstance(value, int) else f"not be below {self.least:g}"
            return f"must {f'be above {self.least:g}' if self.above else words}"
        if value > most or (self.below and value == most):
            return f"must be {'below' if self.below else 'at most'} {most:g}"
        return ""


def _short(value: Any) -> str:
    """A value in a message."""
    text = str(value).replace("\0", "\\0")
    return text if len(text) <= 100 else f"{text[:12]}.."


def check_values(values: Mapping[str, Any], where: str = "") -> None:
    """Checks nested values: every number is finite, not below 0 and not absurdly large, and no text has a zero byte.

    No setting of nightjax means anything below 0; `Range` says what a setting takes besides.

    Args:
        values: sections and settings.
        where: their name, with a dot at its end, for messages.

    Raises:
        UserError: names the first that is not so.
    """
    for name, value in values.items():
        for one in _single(value):
            if problem := text_problem(one) if isinstance(one, str) else Range().problem(one):
                which = f": {_short(one)}" if isinstance(value, (tuple, list)) else ""
                raise UserError(f"{where}{name}={_short(value)}{which} {problem}")
        sections = {"": value} if isinstance(value, Mapping) else {}
        if isinstance(value, (tuple, list)):
            sections = {f"[{i}]": item for i, item in enumerate(value) if isinstance(item, Mapping)}
        for place, section in sections.items():
            check_values(section, f"{where}{name}{place}.")


def check_flag(name: str, value: Any) -> None:
    """Raises UserError for the value of a flag that is not finite, absurdly large, or a text with a zero byte."""
    for one in _single(value):
        if problem := text_problem(one) if isinstance(one, str) else Range(-LARGEST[type(one)]).problem(one):
            raise UserError(f"--{name}={_short(one)} {problem}")


def text_problem(value: str) -> str:
    """What a text must not have that it has; "" for most."""
    return "must not contain a zero byte" if "\0" in value else ""


def _single(value: Any) -> Iterator[int | float | str]:
    """The numbers and texts of a value."""
    if isinstance(value, (tuple, list)):
        for item in value:
            yield from _single(item)
    elif isinstance(value, (int, float, str)) and not isinstance(value, bool):
        yield value


Positive = Annotated[float, Range(0, above=True)]
"""A number above 0."""

Share = Annotated[float, Range(0, 1)]
"""A share, probability or confidence."""

Decay = Annotated[float, Range(0, 1, below=True)]
"""What is kept of an average at each step."""

Count = Annotated[int, Range(1)]
"""How many, of what there has to be one."""

Side = Annotated[int, Range(1, 65_536)]
"""Pixels of one side of an image."""

Seed = Annotated[int, Range(0, 2**32 - 1)]
"""What random numbers start from."""
