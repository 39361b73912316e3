# SPDX-License-Identifier: Apache-2.0
"""Lines of ``metrics.jsonl``, one JSON object a step; read without trust, since a crash can leave anything there."""

import json
import math
from collections.abc import Sequence
from typing import Any

from etils import epath

from nightjax.core import files

Record = dict[str, Any]


def read(path: epath.Path) -> tuple[list[Record], int]:
    """The records of a file, and how many lines are none.

    A record is an object whose ``step`` is a whole number of at least 0. Of its other values, those that are no numbers
    are dropped.
    """
    records, damaged = [], 0
    for line in files.read_bytes(path).splitlines() if path.exists() else ():
        record = _record(line)
        if record is not None:
            records.append(record)
        elif line.strip():
            damaged += 1
    return records, damaged


def replace(path: epath.Path, records: Sequence[Record]) -> None:
    """Writes a file anew: a crash leaves the old one or the new one."""
    files.write_whole(path, "".join(to_line(record) for record in records))


def append(path: epath.Path, record: Record) -> None:
    """Adds a record to a file on a local disk."""
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(to_line(record))
    except OSError as error:
        error.filename = str(path)
        raise


def to_line(record: Record) -> str:
    """A record as a line."""
    return json.dumps(record) + "\n"


def _record(line: bytes) -> Record | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):  # Not UTF-8 is a ValueError too.
        return None
    if not isinstance(record, dict) or not _is_number(record.get("step")):
        return None
    step = record["step"]
    if not math.isfinite(step) or step < 0 or step != int(step):
        return None
    numbers = {name: value for name, value in record.items() if name != "step" and _is_number(value)}
    return {"step": int(step), **numbers}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
