# SPDX-License-Identifier: Apache-2.0
"""Labels of one class set read as those of another: by name, or by a merge that the config names."""

import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from nightjax.core.class_section import IGNORED
from nightjax.core.classes import ClassSet, lookup_table, plain_name
from nightjax.core.errors import UserError, suggestion
from nightjax.core.types import IGNORE
from nightjax.data import transforms
from nightjax.data.folders import LazyRecord

Merges = Mapping[str, Mapping[str, Sequence[str]]]
"""Name of another class set to what becomes of its classes: a class of the run, or ``ignore``, to names of the other's;
``classes.merges`` of a config."""


class ConvertedSource:
    """A source whose labels are in the train ids of another class set.

    Args:
        source: any `Source`.
        table: uint8[256] from its train ids to the others.
        classes: the other class set.
    """

    def __init__(self, source: Any, table: np.ndarray, classes: ClassSet):
        self.stored, self._table = source, table
        self.classes = classes
        self.name, self.split = source.name, source.split
        self.label_version = source.label_version

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        record = self.stored[index]
        if "label" not in record:
            return record
        parts = {name: functools.partial(record.__getitem__, name) for name in record}
        return LazyRecord(parts | {"label": lambda: self._label(record)})

    def _label(self, record: Mapping[str, Any]) -> np.ndarray:
        where = f"record {record.get('image_id', '?')!r}"
        label = transforms.decode_label(record["label"], f"{where}, label")
        transforms.check_label(label, where, len(self.stored.classes))
        return self._table[label]

    def class_pixels(self) -> np.ndarray:
        """Pixels of each class in every record, int32 [N, K]."""
        counts = self.stored.class_pixels()
        merged = np.zeros((len(counts), len(self.classes)), np.int32)
        for train_id in range(counts.shape[1]):
            if (new := self._table[train_id]) != IGNORE:
                merged[:, new] += counts[:, train_id]
        return merged


def converted(source: Any, classes: ClassSet, merges: Merges) -> Any:
    """The source with labels of these classes.

    Raises:
        UserError: its classes do not fit them; see `table_between`.
    """
    if source.classes.same_classes(classes):
        return source
    return ConvertedSource(source, table_between(source.classes, classes, merges, source.name), classes)


def table_between(
    found: ClassSet, wanted: ClassSet, merges: Merges, where: str, used: Collection[int] | None = None
) -> np.ndarray:
    """uint8[256] from the train ids of one class set to those of another.

    A merge of the set's name says what becomes of every class. Without one every class must be in the other set under
    its name.

    Args:
        found, wanted: the class sets.
        merges: of the config.
        where: the data set, for messages.
        used: train ids of the first set that labels can hold, which alone have to fit; None for all.

    Raises:
        UserError: a class is in neither, or in a merge twice.
    """
    if found.name in merges:
        return _merged(found, wanted, merges[found.name], f"classes.merges.{found.name}", used)
    ids = {plain_name(name): k for k, name in enumerate(wanted.names)}
    kept = [k for k in range(len(found)) if used is None or k in used]
    lost = [found.names[k] for k in kept if plain_name(found.names[k]) not in ids]
    if lost:
        more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
        raise UserError(
            f"{where}: its classes {', '.join(lost[:3])}{more} are not among those of this run ({_some(wanted)}): say "
            f"what becomes of each by --config.classes.merges=\"{{'{found.name}': {{'{wanted.names[0]}': [...], "
            f"'{IGNORED}': [...]}}}}\", or in a plain folder by its labels.json"
        )
    return lookup_table({k: ids[plain_name(found.names[k])] for k in kept})


def _merged(
    found: ClassSet, wanted: ClassSet, merge: Mapping[str, Sequence[str]], where: str, used: Collection[int] | None
) -> np.ndarray:
    table: dict[int, int] = {}
    new = {name: k for k, name in enumerate(wanted.names)} | {IGNORED: IGNORE}
    old = {name: k for k, name in enumerate(found.names)}
    for name, others in merge.items():
        if name not in new:
            raise UserError(f"{where}: {name!r} is no class of this run{suggestion(name, new)}")
        for other in [others] if isinstance(others, str) else others:
            if other not in old:
                raise UserError(f"{where}.{name}: {other!r} is no class of {found.name}{suggestion(other, old)}")
            if table.setdefault(old[other], new[name]) != new[name]:
                raise UserError(f"{where}: {other!r} stands in two classes: leave one")
    if left := [name for name, k in old.items() if k not in table and (used is None or k in used)]:
        raise UserError(f"{where} says nothing of {left[0]!r}: name it in a class or in {IGNORED!r}")
    return lookup_table(table)


def _some(classes: ClassSet) -> str:
    shown = ", ".join(classes.names[:5])
    return f"{shown}, ..." if len(classes) > 5 else shown
