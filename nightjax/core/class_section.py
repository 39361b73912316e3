# SPDX-License-Identifier: Apache-2.0
"""The section ``classes`` of a config: its schema, and how it becomes a class set and back. Everything goes by name."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from nightjax.core.classes import (
    CITYSCAPES,
    CLASS_SETS,
    KINDS,
    ROLES,
    ClassSet,
    companions_for,
    groups_by_name,
    palette_for,
)
from nightjax.core.errors import UserError, suggestion
from nightjax.core.ranges import Range, Share

Byte = Annotated[int, Range(0, 255)]

IGNORED = "ignore"
"""In a merge, the name of what counts as no class."""


@dataclasses.dataclass(frozen=True)
class Classes:
    """The section ``classes``.

    Attributes:
        name: of the set: a key of `CLASS_SETS`, or of the set that the other fields describe; "" for the classes of the
            labeled source, which are looked up when a run starts and are here from then on.
        names: in train-id order; () for those of the set that ``name`` says.
        palette: RGB of each class; () for the set's own, or by name.
        groups: names of the classes of this group; None for the set's own, or by name and size. See `KINDS`, `ROLES`.
        companions: pairs of names of classes: where one of the first is pasted, the second come along; None for the
            set's own, or by name.
        pixel_share: share of each class in the labeled pixels of the source; () until it is measured.
        merges: name of another class set to what becomes of its classes here: a class of this set, or ``ignore``, to
            names of the other's. For data sets whose classes are not this run's.
    """

    name: str = ""
    names: tuple[str, ...] = ()
    palette: tuple[tuple[Byte, Byte, Byte], ...] = ()
    groups: dict[str, tuple[str, ...] | str | None] = dataclasses.field(default_factory=dict)
    companions: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] | None = None
    pixel_share: tuple[Share, ...] = ()
    merges: dict[str, dict[str, tuple[str, ...] | str]] = dataclasses.field(default_factory=dict)


def with_all_groups(groups: Mapping[str, Any] | None) -> dict[str, Any]:
    """The setting ``groups`` with every group that has a meaning, so that each is a flag."""
    return dict.fromkeys((*KINDS, *ROLES)) | dict(groups or {})


def of_section(section: Mapping[str, Any] | None) -> ClassSet:
    """The class set of a section; Cityscapes' where it names none.

    Raises:
        UserError: an unknown name, or a group or pair of companions with a class that is not in the set.
    """
    given: dict[str, Any] = dict(section or {})
    names, name = tuple(given.get("names") or ()), given.get("name") or ""
    if names:
        base = CLASS_SETS.get(name)
        if base is None or base.names != names:
            groups, companions = groups_by_name(names), companions_for(names)
            base = ClassSet(names, palette_for(names), groups=groups, companions=companions, name=name or "own")
    else:
        if name not in ("", *CLASS_SETS):
            raise UserError(f"classes.name={name!r} needs classes.names beside it{suggestion(name, CLASS_SETS)}")
        base = CLASS_SETS[name] if name else CITYSCAPES
    return changed(base, given)


def changed(base: ClassSet, given: Mapping[str, Any]) -> ClassSet:
    """A class set with what a section says of palette, groups, companions and shares."""
    ids = {name: k for k, name in enumerate(base.names)}

    def found(names: Sequence[str] | str, where: str) -> tuple[int, ...]:
        listed = [word.strip() for word in names.split(",")] if isinstance(names, str) else names
        if wrong := [name for name in listed if name not in ids]:
            raise UserError(f"{where}: {wrong[0]!r} is no class of this run{suggestion(wrong[0], ids)}")
        return tuple(ids[name] for name in listed)

    groups = dict(base.groups)
    for group, names in dict(given.get("groups") or {}).items():
        if names is not None:
            groups[group] = tuple(sorted(found(names, f"classes.groups.{group}")))
    changes: dict[str, Any] = {"groups": groups} if groups != base.groups else {}
    if given.get("palette"):
        changes["palette"] = tuple(tuple(color) for color in given["palette"])
    if given.get("companions") is not None:
        where = "classes.companions"
        changes["companions"] = tuple((found(a, where), found(b, where)) for a, b in given["companions"])
    if given.get("pixel_share"):
        changes["pixel_share"] = tuple(given["pixel_share"])
    return dataclasses.replace(base, **changes) if changes else base


def section_of(classes: ClassSet) -> dict[str, Any]:
    """The section that says everything about a class set but its merges."""
    named = lambda ids: tuple(classes.names[k] for k in ids)
    return {
        "name": classes.name,
        "names": classes.names,
        "palette": classes.palette,
        "groups": with_all_groups({group: named(ids) for group, ids in classes.groups.items()}),
        "companions": tuple((named(causes), named(added)) for causes, added in classes.companions),
        "pixel_share": classes.pixel_share,
    }


def described(classes: ClassSet) -> list[dict[str, str]]:
    """Name and color, ``#rrggbb``, of each class in train-id order, as files for other programs have them."""
    colors = ("#{:02x}{:02x}{:02x}".format(*color) for color in classes.palette)
    return [{"name": name, "color": color} for name, color in zip(classes.names, colors, strict=True)]


def with_one_more(classes: ClassSet) -> ClassSet:
    """A class set with another class at its end, to see what depends on their number."""
    extra = next(name for name in ("more", "one more") if name not in classes.names)
    share = (*classes.pixel_share, 0.0) if classes.pixel_share else ()
    return dataclasses.replace(
        classes,
        names=(*classes.names, extra),
        palette=(*classes.palette, (0, 0, 0)),
        ids=(),
        pixel_share=share,
        name="one more",
    )
