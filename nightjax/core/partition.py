# SPDX-License-Identifier: Apache-2.0
"""Parameters in two trees, those that are trained and those that no step changes, and back in one."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from flax import traverse_util

from nightjax.core.types import PyTree

BASE = "base"
"""Entry of ``TrainState.frozen`` for the parameters that no step changes, by network."""


def split(params: PyTree, chosen: Callable[[str], bool]) -> tuple[PyTree, PyTree]:
    """Two trees: the parameters whose path (``backbone/norm/scale``) is not chosen, and those whose path is."""
    flat: dict[str, Any] = dict(traverse_util.flatten_dict(params, sep="/"))
    apart = ({}, {})
    for path, value in flat.items():
        apart[chosen(path)][path] = value
    rest, found = (traverse_util.unflatten_dict(part, sep="/") for part in apart)
    return rest, found


def joined(first: PyTree, second: PyTree) -> PyTree:
    """One tree of the entries of both; where both have an array, that of ``second``."""
    if not (isinstance(first, Mapping) and isinstance(second, Mapping)):
        return second
    common = {name: joined(first[name], second[name]) for name in first.keys() & second.keys()}
    whole = {**first, **second, **common}
    return {name: whole[name] for name in sorted(whole)}


def paths(params: PyTree) -> set[str]:
    """Paths of all parameters of a tree."""
    return set(traverse_util.flatten_dict(params, sep="/"))


def without(tree: PyTree, dropped: Collection[str], prefix: str = "") -> PyTree:
    """A tree of dicts without the leaves at some paths, and without dicts that are empty then."""
    found = {}
    for name, child in tree.items():
        if isinstance(child, Mapping):
            child = without(child, dropped, f"{prefix}{name}/")
            if child or not dropped:
                found[name] = child
        elif f"{prefix}{name}" not in dropped:
            found[name] = child
    return found
