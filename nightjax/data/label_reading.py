# SPDX-License-Identifier: Apache-2.0
"""From a label file to train ids, by the codes of its folder, with a count of what nobody named."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from nightjax.core.classes import LabelCodes
from nightjax.core.types import IGNORE
from nightjax.data.containers import BrokenFile
from nightjax.data.label_images import LabelImage, decode_label

_UNNAMED = 254
"""In the tables here: a value that nobody named. No train id is as large."""


@dataclasses.dataclass(frozen=True)
class ReadLabel:
    """A label as train ids.

    Attributes:
        train_ids: uint8 [H, W]; 255 for no class.
        unnamed: value (``"17"``) or color (``"#112233"``) that nobody named, to its pixels, which are 255.
        stored: what the file holds.
    """

    train_ids: np.ndarray
    unnamed: Mapping[str, int]
    stored: LabelImage


@dataclasses.dataclass(frozen=True)
class LabelReader:
    """Reads label files by `LabelCodes`. Picklable.

    Gray values and palette indices are looked up among the values. Where the codes name colors only, a palette file
    gives the colors of its palette, and a gray file those with three equal channels. A color file is looked up among
    the colors; three equal channels are a value first and a color second.

    Attributes:
        codes: what the values and colors mean.
    """

    codes: LabelCodes

    def read(self, data: bytes) -> ReadLabel:
        """Decodes a label file and converts it.

        Raises:
            BrokenFile: see `label_images.decode_label`; or colors where none are named.
        """
        label = decode_label(data)
        low, high = label.values.min(initial=0), label.values.max(initial=0)
        if low < 0 or high > 65535:
            raise BrokenFile(f"holds the value {low if low < 0 else high}: labels hold 0 to 65535")
        return self._of_colors(label) if self._has_colors(label) else self._of_values(label)

    def _has_colors(self, label: LabelImage) -> bool:
        if label.values.ndim == 3 and not self.codes.colors:
            raise BrokenFile(
                "is a color image, and no color has a meaning here: name colors in labels.json "
                '({"#804080": "road"}), or save one channel of values'
            )
        return bool(self.codes.colors) and (label.form == "color" or not self._names_values)

    @property
    def _names_values(self) -> bool:
        return bool(self.codes.values.keys() - {IGNORE})

    def _of_values(self, label: LabelImage) -> ReadLabel:
        train_ids = self._values[label.values]
        return _counted(train_ids, label, label.values, lambda value: str(int(value)))

    def _of_colors(self, label: LabelImage) -> ReadLabel:
        red, green, blue = (label.colors[..., i].astype(np.int32) for i in range(3))
        packed = (red << 16) | (green << 8) | blue
        train_ids = self._colors[packed]
        if label.values.ndim == 2 and self._names_values:  # Three equal channels.
            of_values = self._values[label.values]
            named = (of_values != _UNNAMED) & ((of_values != IGNORE) | (train_ids == _UNNAMED))
            train_ids = np.where(named, of_values, train_ids)
        return _counted(train_ids, label, packed, lambda value: f"#{int(value):06x}")

    @functools.cached_property
    def _values(self) -> np.ndarray:
        table = np.full(1 << 16, _UNNAMED, np.uint8)
        for value, train_id in self.codes.values.items():
            table[value] = train_id
        return table

    @functools.cached_property
    def _colors(self) -> np.ndarray:
        table = np.full(1 << 24, _UNNAMED, np.uint8)
        for (red, green, blue), train_id in self.codes.colors.items():
            table[red << 16 | green << 8 | blue] = train_id
        return table

    def __getstate__(self) -> dict[str, Any]:
        return {"codes": self.codes}  # Not the tables.

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def _counted(train_ids: np.ndarray, stored: LabelImage, codes: np.ndarray, name: Callable[[int], str]) -> ReadLabel:
    """Makes 255 of what nobody named, and counts it."""
    unnamed = train_ids == _UNNAMED
    if not unnamed.any():
        return ReadLabel(train_ids, {}, stored)
    values, counts = np.unique(codes[unnamed], return_counts=True)
    train_ids[unnamed] = IGNORE
    found = {name(value): int(count) for value, count in zip(values, counts, strict=True)}
    return ReadLabel(train_ids, found, stored)
