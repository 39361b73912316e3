# SPDX-License-Identifier: Apache-2.0
"""A table of the several predictions of one method, class by class."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nightjax.report.run_folder import Evaluations


def levels_tables(evaluations: Evaluations, captions: Mapping[str, str], hard: Sequence[str]) -> str:
    """HTML of one table for every set that was scored by several predictions; empty if none was.

    Args:
        evaluations: of a run.
        captions: name of a prediction (see `EvalSet.prediction`) to the head of its column, in the order of columns.
        hard: names of the classes whose mean is shown too.
    """
    groups: dict[str, dict[str, Mapping[str, Any]]] = {}
    for name, (_, summary) in evaluations.items():
        prediction = summary.get("protocol", {}).get("prediction", "")
        groups.setdefault(name.removesuffix(f"_{prediction}"), {})[prediction] = summary
    return "".join(_table(name, found, hard, captions) for name, found in groups.items() if len(found) > 1)


def _table(name: str, found: Mapping[str, Mapping[str, Any]], hard: Sequence[str], captions: Mapping[str, str]) -> str:
    order = [key for key in captions if key in found] + [key for key in found if key not in captions]
    first = order[0]
    head = "".join(
        f'<th scope="col">{html.escape(captions.get(key, key))}</th>' + '<th scope="col">gain</th>' * (key != first)
        for key in order
    )

    def row(label: str, values: Mapping[str, float | None], kind: str = "") -> str:
        cells = [html.escape(label)]
        for key in order:
            cells.append(_number(values[key]))
            if key != first:
                cells.append(_gain(values[key], values[first]))
        body = "".join(f"<td>{cell}</td>" for cell in cells[1:])
        return f'<tr class="{kind}"><th scope="row">{cells[0]}</th>{body}</tr>'

    rows = []
    for class_name in found[first]["iou"]:
        mark = f"{class_name} (hard)" if class_name in hard else class_name
        rows.append(row(mark, {key: found[key]["iou"][class_name] for key in order}))
    if hard:
        means = {key: _mean([found[key]["iou"].get(class_name) for class_name in hard]) for key in order}
        rows.append(row("mean of the hard classes", means, "total first"))
    rows.append(row("mIoU", {key: found[key]["miou"][found[key]["primary"]] for key in order}, "total"))
    differing = [
        f"{found[key]['differing']:.2f}% of the pixels are predicted otherwise by {captions.get(key, key)}"
        for key in order
        if "differing" in found[key]
    ]
    note = html.escape(" · ".join(["IoU, %", *differing]))
    return (
        f'<div class="card"><table><caption>{html.escape(name)}</caption>'
        f'<thead><tr><th scope="col">class</th>{head}</tr></thead>'
        f'<tbody>{"".join(rows)}</tbody></table><p class="quiet">{note}</p></div>'
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _gain(value: float | None, before: float | None) -> str:
    if value is None or before is None:
        return ""
    kind = "better" if value > before else "worse" if value < before else "quiet"
    return f'<small class="{kind}">{value - before:+.1f}</small>'
