# SPDX-License-Identifier: Apache-2.0
"""The integrity report of a prepared data set: what it holds, what was left out, and why."""

import collections
import dataclasses
from typing import Any

import numpy as np

from nightjax.data import labels
from nightjax.data.leftovers import SHOWN, left_out, some_names
from nightjax.prepare.records import ExampleFiles, Outcome


@dataclasses.dataclass
class Scan:
    """The records that a builder found, before any file is opened.

    Attributes:
        splits: split to its records, in the order of their keys.
        expected: split to the official number of its records.
        label_version: release of the labels.
        unmatched: one text for each file that fits the layout but belongs to no record, such as an image without a
            label; it starts with the id of the file.
        doubtful: one text for each record that was kept but may be wrong.
        notes: anything else that a user should know.
        exhaustive: whether every file in the folders of the records should belong to a record.
    """

    splits: dict[str, list[ExampleFiles]]
    expected: dict[str, int]
    label_version: str = "none"
    unmatched: list[str] = dataclasses.field(default_factory=list)
    doubtful: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    exhaustive: bool = True

    @property
    def missing_splits(self) -> list[str]:
        return [split for split in self.expected if not self.splits.get(split)]


class SplitReport:
    """Counts of one split, made while its records are written."""

    def __init__(self, expected: int | None):
        self.expected = expected
        self.images = 0
        self.labels = 0
        self.left_out = 0
        self.sizes: collections.Counter[str] = collections.Counter()
        self.values = np.zeros(256, np.int64)
        self.broken: dict[str, str] = {}

    def add(self, outcome: Outcome) -> None:
        """Counts one record."""
        if outcome.example is None:
            self.left_out += 1
            self.broken[outcome.key] = outcome.fault
            return
        self.images += 1
        self.labels += "label" in outcome.example
        self.sizes[f"{outcome.size[1]}x{outcome.size[0]}"] += 1
        if outcome.values is not None:
            self.values += outcome.values

    def as_json(self) -> dict[str, Any]:
        """The counts as plain types, for the metadata of the data set."""
        return {
            "images": self.images,
            "labels": self.labels,
            "expected": self.expected,
            "left_out": self.left_out,
            "sizes": dict(self.sizes),
            "file_values": {str(v): int(self.values[v]) for v in np.flatnonzero(self.values)},
            "broken": dict(sorted(self.broken.items())),
        }


def lines(report: dict[str, Any]) -> list[str]:
    """The report in words, one line each."""
    result = [f"labels: {report['label_version']}"]
    for split, part in report["splits"].items():
        sizes = ", ".join(f"{count} of {size}" for size, count in sorted(part["sizes"].items())[:SHOWN])
        result.append(f"{split}: {part['images']} images ({sizes}), {part['labels']} labels")
        if part["expected"] not in (None, part["images"]):
            result.append(f"  warning: the official number of {split} is {part['expected']}")
        if text := left_out(part):
            result.append(f"  warning: {text}")
        if part["file_values"]:
            result.append(f"  values in the label files: {' '.join(part['file_values'])}")
    if report["missing_splits"]:
        result.append(f"not in this copy: {', '.join(report['missing_splits'])}")
    if report["unmatched"]:
        result.append(f"warning: {len(report['unmatched'])} files without a partner: {some_names(report['unmatched'])}")
    if report["doubtful"]:
        result.append(f"warning: {len(report['doubtful'])} doubtful records: {some_names(report['doubtful'])}")
    return result + [f"note: {note}" for note in report["notes"]]


def warnings_on_values(values: np.ndarray, encoding: labels.Encoding | None) -> list[str]:
    """What is wrong with the label values of a file or a folder, given the encoding they should have."""
    if encoding is None:
        return []
    found = []
    if unknown := labels.unexpected_values(values, encoding):
        found.append(f"values {', '.join(map(str, unknown))} are no {encoding.replace('_', ' ')}")
    if reason := labels.suspicious_encoding(values, encoding):
        found.append(reason)
    return found
