# SPDX-License-Identifier: Apache-2.0
"""``labels.json``: what the label files of a folder hold, and so the class set of that folder.

    {"1": "drivable", "2": {"name": "deer", "color": "#805020", "group": "dynamic"}, "#804080": "road", "0": "ignore"}

A key is a gray value or the index of a palette file, or a color: ``#rrggbb`` or ``r,g,b``. Its entry is the name of a
class, an object with ``name`` and what else is known of the class (`FIELDS`), or ``ignore``, ``void`` or null for
pixels that shall not count. Several keys may have one name. The order of first mention is the order of train ids,
unless classes have an ``id`` or the key ``classes`` says it:

    "classes": ["drivable", "deer"]     these classes in this order
    "classes": "cityscapes"             those of a set that has a name (`core.classes.CLASS_SETS`)
    "classes": "own"                    those that the file names, in the order of first mention

Without that key a file whose names are all Cityscapes' (whatever their case) is of Cityscapes' set, and any other file
of a set of its own.
"""

import dataclasses
import json
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from nightjax.core import files
from nightjax.core.classes import (
    CITYSCAPES,
    CLASS_SETS,
    ClassSet,
    Color,
    LabelCodes,
    companions_for,
    groups_by_name,
    palette_for,
    plain_name,
)
from nightjax.core.errors import UserError, suggestion
from nightjax.core.types import IGNORE

FILE = "labels.json"

VOID = ("ignore", "void", "null")
"""Names of pixels that belong to no class on purpose; null without quotation marks is one too."""

FIELDS = ("name", "color", "group", "id")
"""What an entry may say of its class: ``color`` ``#rrggbb`` of images, and of label files in color; ``group``, one
name or a list of them, such as ``dynamic``; ``id``, the train id."""

ORDER = "classes"
"""Key that is no value: the order of the classes, or the set that they are of."""

LARGEST = 65535
"""Largest gray value: label files have 16 bits at most."""

Code = int | Color


class Labels(NamedTuple):
    """What a ``labels.json`` says.

    Attributes:
        classes: the class set of the folder.
        codes: how its label files spell the classes.
    """

    classes: ClassSet
    codes: LabelCodes


@dataclasses.dataclass
class _Entry:
    """What is said of one class, over all its keys."""

    color: Color | None = None
    key_color: Color | None = None
    id: int | None = None
    groups: tuple[str, ...] = ()


def read(path: pathlib.Path) -> Labels:
    """Reads a ``labels.json`` of UTF-8, with or without byte-order mark, or UTF-16.

    Raises:
        UserError: the file is missing, no strict JSON object, or says something that cannot be; the one line names the
            file, the key and the remedy.
    """
    if not path.is_file():
        raise UserError(f'{path} is missing: write what the label values mean, such as {{"1": "road", "2": "car"}}')
    return parse(files.read_text(path), str(path))


def parse(text: str, where: str) -> Labels:
    """The contents of a ``labels.json``; ``where`` is its path, for messages. See `read`."""
    try:
        given = json.loads(text, object_pairs_hook=lambda pairs: _without_twins(pairs, where))
    except (ValueError, RecursionError) as error:
        raise UserError(f'{where} is no JSON ({error}): write an object such as {{"1": "road", "2": "car"}}') from None
    if not isinstance(given, dict):
        raise UserError(f'{where} holds a {type(given).__name__}: write an object such as {{"1": "road", "2": "car"}}')
    order = given.pop(ORDER, None)
    entries: dict[str, _Entry] = {}
    codes = {_code(key, where): _class_of(key, value, entries, where) for key, value in given.items()}
    if len(codes) < len(given):
        raise UserError(f"{where} names one value or color by two keys: leave one of them")
    if not entries and order is None:
        raise UserError(f'{where} names no class: write what the label values mean, such as {{"1": "road"}}')
    classes, ids = _class_set(entries, order, where)
    numbered = {code: IGNORE if name is None else ids[name] for code, name in codes.items()}
    values = {code: k for code, k in numbered.items() if isinstance(code, int)}
    colors = {code: k for code, k in numbered.items() if not isinstance(code, int)}
    for name, entry in entries.items():
        if entry.color is not None and colors.setdefault(entry.color, ids[name]) != ids[name]:
            _refuse(where, _hex(entry.color), "is the color of two classes", "give each its own")
    return Labels(classes, LabelCodes({IGNORE: IGNORE} | values, colors))


def _class_of(key: str, value: Any, entries: dict[str, _Entry], where: str) -> str | None:
    """The name of the class of a key, None for void; what else is said of it goes into ``entries``."""
    fields = value if isinstance(value, dict) else {"name": value}
    if unknown := sorted(fields.keys() - set(FIELDS)):
        _refuse(where, key, f"has the field {unknown[0]!r}", f"known fields are {', '.join(FIELDS)}")
    name = fields.get("name", "")
    if name is None or (isinstance(name, str) and plain_name(name) in VOID):
        return None
    if not isinstance(name, str) or not name.strip():
        _refuse(where, key, f"stands for {value!r}", 'write value and name in this order, such as {"1": "road"}')
    name = name.strip()
    entry = entries.setdefault(name, _Entry())
    for field, (read_field, remedy) in _READERS.items():
        if field in fields:
            found = read_field(fields[field])
            if found is None:
                _refuse(where, key, f"has the {field} {fields[field]!r}", remedy)
            if getattr(entry, field) not in (None, found):
                _refuse(where, name, f"has two different {field}s", "one class has one of them")
            setattr(entry, field, found)
    entry.key_color = entry.key_color or _color(key)
    groups = fields.get("group", ())
    groups = (groups,) if isinstance(groups, str) else groups
    if not isinstance(groups, (list, tuple)) or not all(isinstance(group, str) and group for group in groups):
        _refuse(where, key, f"has the group {groups!r}", 'write a name or a list of names, such as ["dynamic"]')
    entry.groups = tuple(dict.fromkeys((*entry.groups, *groups)))
    return name


def _class_set(entries: Mapping[str, _Entry], order: Any, where: str) -> tuple[ClassSet, dict[str, int]]:
    """The class set, and the train id of every name in the file."""
    named = {plain_name(name) for name in entries}
    if order is None and named <= set(CITYSCAPES.names):
        order = "cityscapes"
    if isinstance(order, str) and order != "own":
        if order not in CLASS_SETS:
            _refuse(where, ORDER, f"is {order!r}", f"it may be own, {', '.join(CLASS_SETS)} or a list of names")
        classes = CLASS_SETS[order]
        known = {plain_name(name): k for k, name in enumerate(classes.names)}
        _check_known(entries, known, where, order)
        return classes, {name: known[plain_name(name)] for name in entries}
    names = _ordered(entries, order, where)
    colors = {name: entry.color or entry.key_color for name, entry in entries.items()}
    given = {name: color for name, color in colors.items() if color is not None}
    by_name = groups_by_name(names)

    def groups_of(k: int, name: str) -> tuple[str, ...]:  # What the file says of a class replaces what its name says.
        said = entries[name].groups if name in entries else ()
        return said or tuple(group for group, members in by_name.items() if k in members)

    own = [groups_of(k, name) for k, name in enumerate(names)]
    every = dict.fromkeys((*by_name, *(group for groups in own for group in groups)))
    groups = {group: tuple(k for k, of_class in enumerate(own) if group in of_class) for group in every}
    folder = pathlib.Path(where).resolve().parent.name or "own"
    classes = ClassSet(
        tuple(names), palette_for(names, given), (), groups, companions=companions_for(names), name=folder
    )
    return classes, {name: k for k, name in enumerate(names)}


def _ordered(entries: Mapping[str, _Entry], order: Any, where: str) -> list[str]:
    """The names of an own set in the order of train ids."""
    given = {name: entry.id for name, entry in entries.items() if entry.id is not None}
    if isinstance(order, list):
        if given:
            _refuse(where, ORDER, "lists the classes, and some have an id", "say the order once")
        if not order or not all(isinstance(name, str) and name.strip() for name in order):
            _refuse(where, ORDER, "must be a list of names", 'such as ["drivable", "deer"]')
        _check_known(entries, {name: k for k, name in enumerate(order)}, where, f"the list {ORDER!r}", exact=True)
        return order
    if order not in (None, "own"):
        _refuse(where, ORDER, f"is {order!r}", f"it may be own, {', '.join(CLASS_SETS)} or a list of names")
    if len(set(given.values())) < len(given) or not all(0 <= k < len(entries) for k in given.values()):
        _refuse(where, ", ".join(given), "have ids that leave gaps", f"use each of 0..{len(entries) - 1} at most once")
    by_id = {train_id: name for name, train_id in given.items()}
    rest = iter(name for name in entries if name not in given)
    return [by_id[k] if k in by_id else next(rest) for k in range(len(entries))]


def _check_known(
    entries: Mapping[str, _Entry], known: Mapping[str, int], where: str, what: str, exact: bool = False
) -> None:
    for name, entry in entries.items():
        if (name if exact else plain_name(name)) not in known:
            raise UserError(f"{where}: {name!r} is no class of {what}{suggestion(name, known)}")
        if entry.id is not None and not exact and entry.id != known[plain_name(name)]:
            _refuse(where, name, f"has the id {entry.id}", f"in {what} it has {known[plain_name(name)]}")


def _code(key: str, where: str) -> Code:
    if re.fullmatch(r"\s*\d+\s*", key):
        if int(key) > LARGEST:
            _refuse(where, key, "is no value of a label file", f"use 0 to {LARGEST}, or a color such as #804080")
        return int(key)
    color = _color(key)
    if color is None:
        _refuse(where, key, "is no value and no color", 'write value and name in this order, such as {"1": "road"}')
    return color


def _color(text: str) -> Color | None:
    if found := re.fullmatch(r"\s*#([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})\s*", text):
        red, green, blue = (int(part, 16) for part in found.groups())
    elif found := re.fullmatch(r"\s*\(?\s*(\d{1,3})\s*,\s*(\d{1,3})\s*,\s*(\d{1,3})\s*\)?\s*", text):
        red, green, blue = (int(part) for part in found.groups())
    else:
        return None
    return (red, green, blue) if max(red, green, blue) < 256 else None


def _color_field(value: Any) -> Color | None:
    return _color(value) if isinstance(value, str) else None


def _id_field(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


_READERS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "color": (_color_field, "write #rrggbb or r,g,b"),
    "id": (_id_field, "a train id is a number, the first one is 0"),
}


def _hex(color: Color) -> str:
    return "#" + "".join(f"{part:02x}" for part in color)


def _without_twins(pairs: Sequence[tuple[str, Any]], where: str) -> dict[str, Any]:
    """A JSON object whose keys are all different; Python's own would keep the last of two."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i]))
        _refuse(where, twice, "stands there twice", "leave one of them")
    return found


def _refuse(where: str, key: str, what: str, remedy: str) -> NoReturn:
    raise UserError(f"{where}: {key!r} {what}: {remedy}")
