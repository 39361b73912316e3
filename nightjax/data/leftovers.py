# SPDX-License-Identifier: Apache-2.0
"""Which records the preparation of a data set left out, in words."""

from typing import Any

SHOWN = 5
"""How many names a printed line lists; the stored report has all of them."""


def left_out(part: dict[str, Any]) -> str:
    """How many records of a split were left out, with some of their names (Beam reports none); "" if none were."""
    count = part.get("left_out", len(part["broken"]))
    names = f": {some_names(part['broken'])}" if part["broken"] else ""
    return f"{count} left out{names}" if count else ""


def some_names(names: Any) -> str:
    """The first few names, each with what is wrong with it where that is known."""
    names = [f"{name} ({names[name]})" if isinstance(names, dict) else name for name in names]
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
