# SPDX-License-Identifier: Apache-2.0
"""Names of official checkpoints to ours and back: the mechanism, and tables of single networks.

A table maps the prefix of an official name to the prefix of ours; the rest of the name is the
same. Both end between two parts of a name, ``*`` stands for one part, and an empty official
prefix for every name. The first entry that fits counts.
"""

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from nightjax.core.errors import UserError
from nightjax.interop.wrappers import without_foreign_parts

Value = TypeVar("Value")

WRAPPERS = ("module.", "Scale.")
"""Dropped from the front of official names: data-parallel training, AdaptSegNet's initial checkpoint."""


_STAGES = {f"layer{i}": f"backbone.layer{i}" for i in (1, 2, 3, 4)}
_STEM = {"conv1": "backbone.conv1", "bn1": "backbone.bn1"}
_DEEP_STEM = {
    f"{kind}{i + 1}": f"backbone.stem.{3 * i + offset}" for i in range(3) for offset, kind in enumerate(("conv", "bn"))
}

DANNET = {
    "pspnet": {**_DEEP_STEM, **_STAGES, "head": "head", "dsn": "auxiliary"},
    "deeplab": {**_STEM, **_STAGES, "layer5": "auxiliary", "layer6": "head"},
    "refinenet": {**_STEM, **_STAGES, "": "head"},
}
"""By name of DANNet's network. AdaptSegNet's network has the second's names."""

LTSP = {"back_bone": "backbone", "": "head"}
"""Of ``resnet101`` with ``panoptic_fpn_shared``: the Label Transfer Scene Parser. Its checkpoints hold a second trunk
that no step
uses: ``head.layer*``, ``head.conv1.*`` and ``head.bn1.*`` here, to be named in ``allow_surplus``."""

VGG16_CAFFE = {
    f"conv{group}_{number}": f"features.{index}"
    for (group, number), index in zip(
        ((group, number) for group, size in enumerate((2, 2, 3, 3, 3), start=1) for number in range(1, size + 1)),
        (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
        strict=True,
    )
}
"""Caffe's layers of VGG-16 (as in UNIT's perceptual loss) to torchvision's, which are ours."""


class LayoutChange(NamedTuple):
    """Arrays that are laid out in another way, such as one matrix for two.

    Attributes:
        official: prefixes of the official names, as in a table.
        ours: the same of ours.
        to_ours: official arrays, one argument a name, to a tuple of ours.
        to_official: the inverse.
    """

    official: tuple[str, ...]
    ours: tuple[str, ...]
    to_ours: Callable[..., tuple[Any, ...]]
    to_official: Callable[..., tuple[Any, ...]]


def from_official(
    state: Mapping[str, Value], table: Mapping[str, str], changes: Sequence[LayoutChange] = ()
) -> dict[str, Value]:
    """A state dict under our names.

    Args:
        state: official names to arrays. `WRAPPERS` in front of them are dropped.
        table: official prefixes to ours.
        changes: arrays with another layout; tried before the table.

    Returns:
        Our torch-style names to arrays; a name that fits nowhere stays.

    Raises:
        UserError: two official names stand for one of ours.
    """
    rules = [(change.official, change.ours, change.to_ours) for change in changes]
    state = {_unwrapped(name): value for name, value in state.items()}
    return _renamed(state, list(table.items()), rules)


def to_official(
    state: Mapping[str, Value], table: Mapping[str, str], changes: Sequence[LayoutChange] = ()
) -> dict[str, Value]:
    """The inverse of ``from_official``, for names of ours."""
    rules = [(change.ours, change.official, change.to_official) for change in changes]
    return _renamed(state, [(ours, official) for official, ours in table.items()], rules)


def renameable(names: Iterable[str], table: Mapping[str, str], changes: Sequence[LayoutChange] = ()) -> list[str]:
    """Those of our names that have an official one."""
    prefixes = [*table.values(), *(ours for change in changes for ours in change.ours)]
    return [name for name in names if any(_match(name, prefix) for prefix in prefixes)]


def _renamed(state, table, rules):
    left, found = dict(state), []
    for before, after, change in rules:
        for name in state:
            wildcards = _match(name, before[0])
            names = [_fill(prefix, wildcards) for prefix in before] if wildcards is not None else []
            if wildcards is not None and all(name in left for name in names):
                values = change(*(left.pop(name) for name in names))
                found += zip((_fill(prefix, wildcards) for prefix in after), values, strict=True)
    found += [(_rename(name, table), value) for name, value in left.items()]
    renamed = dict(found)
    if len(renamed) < len(found):
        names = [name for name, _ in found]
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"two entries of the checkpoint stand for {twice!r}; convert its networks one by one")
    return renamed


def _rename(name: str, table: Sequence[tuple[str, str]]) -> str:
    for before, after in table:
        if wildcards := _match(name, before):
            return _fill(after, wildcards)
    return name


def _match(name: str, prefix: str) -> tuple[str, ...] | None:
    """What the wildcards stand for and, last, the rest of the name from its dot on."""
    match = _pattern(prefix).fullmatch(f".{name}")
    return match.groups() if match else None


def _fill(prefix: str, wildcards: tuple[str, ...]) -> str:
    pieces = f".{prefix}".rstrip(".").split("*")
    return "".join(piece + star for piece, star in zip(pieces, wildcards, strict=True)).removeprefix(".")


@functools.cache
def _pattern(prefix: str) -> re.Pattern[str]:
    pieces = f".{prefix}".rstrip(".").split("*")
    return re.compile("([^.]+)".join(map(re.escape, pieces)) + r"((?:\..*)?)")


def _unwrapped(name: str) -> str:
    name = without_foreign_parts(name)
    for wrapper in WRAPPERS:
        while name.startswith(wrapper):
            name = name.removeprefix(wrapper)
    return name
