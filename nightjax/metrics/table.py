# SPDX-License-Identifier: Apache-2.0
"""Evaluation results as a plain-text table: one column for each set or run, seeds as mean ± spread."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nightjax.metrics.calibration import PRECISIONS

Summary = Mapping[str, Any]
"""What `nightjax.metrics.confusion.summarize` returns."""

Results = Mapping[str, Summary | Sequence[Summary]]
"""Column title to one summary, or to one summary for each seed."""

_SCORES = (
    ("mIoU, absent classes skipped", ("miou", "skip")),
    ("mIoU, absent classes as 0", ("miou", "zero")),
    ("mIoU, classes of the truth", ("miou", "gt_only")),
    ("pixel accuracy (PA)", ("pa",)),
    ("mean class accuracy (CA)", ("ca",)),
    ("frequency-weighted IoU", ("fwiou",)),
)
_IF_THERE = (
    ("average UIoU", ("uiou", "average")),
    ("calibration error (ECE)", ("calibration", "ece")),
    ("  of calibrated confidences", ("calibrated", "ece")),
    *(
        row
        for asked in map("{:g}".format, PRECISIONS)
        for row in (
            (f"right, {asked} asked for", ("calibrated", "abstain", asked, "precision")),
            ("  of so many kept pixels", ("calibrated", "abstain", asked, "coverage")),
            ("  UIoU", ("calibrated", "abstain", asked, "uiou")),
        )
    ),
)
"""Rows that are there if a summary has them."""


def mean_and_spread(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation (n - 1) of the values that are not None.

    The mean is None if there is no value, the standard deviation if there are fewer than two.
    """
    known = np.array([value for value in values if value is not None], np.float64)
    mean = float(known.mean()) if len(known) else None
    return mean, float(known.std(ddof=1)) if len(known) > 1 else None


def format_value(values: Sequence[float | None]) -> str:
    """ "63.4" for one seed, "63.4 ± 1.2" for several, "-" where nothing was measured."""
    mean, spread = mean_and_spread(values)
    if mean is None:
        return "-"
    return f"{mean:.1f}" if spread is None else f"{mean:.1f} ± {spread:.1f}"


def format_results(results: Results) -> str:
    """A readable table of scores in percent.

    Args:
        results: column title to a summary, or to a list of summaries, one for each seed.

    Returns:
        IoU by class with its support (pixels of truth in the first seed), then group means, then totals with an
        asterisk at the primary policy, label versions and notes.
    """
    columns = {title: [value] if isinstance(value, Mapping) else list(value) for title, value in results.items()}
    first = [summaries[0] for summaries in columns.values()]

    def row(label: str, *path: str, pixels: str = "") -> list[str]:
        cells = [label]
        for summaries in columns.values():
            support = summaries[0]["support"].get(pixels, 0)
            cells += [
                format_value([_lookup(s, path) for s in summaries]),
                _short(support) if pixels else "",
            ]
        return cells

    def facts(label: str, values: Sequence[str]) -> list[str]:
        return [label, *(cell for value in values for cell in (value, ""))]

    classes = [row(name, "iou", name, pixels=name) for name in _union(summary["iou"] for summary in first)]
    groups = [row(f"mean of {name}", "groups", name) for name in _union(summary["groups"] for summary in first)]
    policies = {summary["primary"] for summary in first}
    totals = [row(label + (" *" if path[-1] in policies else ""), *path) for label, path in _SCORES]
    totals += [row(label, *path) for label, path in _IF_THERE if any(_lookup(s, path) is not None for s in first)]
    if len(policies) > 1:
        totals.append(facts("primary", [f"{summary['primary']} *" for summary in first]))
    totals.append(facts("classes averaged", [str(summary["classes_averaged"]) for summary in first]))
    totals.append(facts("pixels", [_short(summary["pixels"]) for summary in first]))
    if any(len(summaries) > 1 for summaries in columns.values()):
        totals.append(facts("seeds", [str(len(summaries)) for summaries in columns.values()]))
    if any("label_version" in summary for summary in first):
        totals.append(facts("labels", [summary.get("label_version", "") for summary in first]))
    notes = [
        f"! {title}: {note}" for title, summary in zip(columns, first, strict=True) for note in summary.get("notes", ())
    ]
    head = ["IoU in %", *(cell for title in columns for cell in (title, "pixels"))]
    return "\n".join([_layout(head, [classes, groups, totals]), "* primary score", *notes])


def _layout(head: Sequence[str], blocks: Sequence[Sequence[Sequence[str]]]) -> str:
    rows = [head, *(row for block in blocks for row in block)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        numbers = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
        return "  ".join([cells[0].ljust(widths[0]), *numbers]).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join([line(head)] + [part for block in blocks if block for part in (rule, *map(line, block))])


def _lookup(summary: Summary, path: Sequence[str]) -> float | None:
    found: Any = summary
    for key in path:
        found = found.get(key) if found is not None else None
    return found


def _union(mappings: Any) -> list[str]:
    return list(dict.fromkeys(name for mapping in mappings for name in mapping))


def _short(pixels: int) -> str:
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if pixels >= size:
            return f"{pixels / size:.1f}{unit}"
    return str(pixels)
