# SPDX-License-Identifier: Apache-2.0
"""Report sections that methods ask for, each kind of `core.method.ReportSection`, and the one on pseudo-labels."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nightjax.core.class_section import of_section
from nightjax.core.method import ClassCurves, PredictionTable, ReportSection
from nightjax.report.charts import change_chart, line_chart
from nightjax.report.levels import levels_tables
from nightjax.report.run_folder import Evaluations

Metrics = Mapping[str, tuple[list, list]]
"""Name of a logged scalar to its steps and values."""

PSEUDO_LABELS = {
    "pseudo_label_weight": "mean weight of pseudo-labels in the loss",
    "confident_fraction": "fraction of pixels whose confidence reaches the threshold",
}
"""Logged scalar to its title in the section on pseudo-labels."""


def draw(
    sections: Sequence[ReportSection], metrics: Metrics, evaluations: Evaluations, config: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """Title and HTML of each section; no HTML where the run has nothing to show in it."""
    return [RENDERERS[type(section)](section, metrics, evaluations, config) for section in sections]


def prefixes(sections: Sequence[ReportSection]) -> tuple[str, ...]:
    """Beginnings of the names of scalars that sections draw, which are therefore no training curves."""
    return tuple(section.prefix for section in sections if isinstance(section, ClassCurves))


def pseudo_labels(metrics: Metrics) -> str:
    """How sure the teacher was of the target over the steps; no training reads the truth of the target."""
    charts = [
        line_chart(PSEUDO_LABELS[name], {"": metrics[name]}, smooth=True) for name in PSEUDO_LABELS if name in metrics
    ]
    note = (
        '<p class="quiet">How sure the teacher is of the target images, between 0 and 1. How often it is right is not '
        "known here, because training reads no labels of the target: compare with the scores of the evaluation.</p>"
    )
    return "".join([*charts, note]) if charts else ""


def _class_curves(
    section: ClassCurves, metrics: Metrics, evaluations: Evaluations, config: Mapping[str, Any]
) -> tuple[str, str]:
    """Two scalars of each class, at the first and the last log step that know them."""
    del evaluations
    rows = {}
    for k, name in enumerate(of_section(config.get("classes")).names):
        keys = [f"{section.prefix}{kind}/{k:02d}" for kind in ("own", "other")]
        known = [[value for value in metrics[key][1] if value] for key in keys if key in metrics]
        if len(known) == len(keys) and all(known):
            rows[name] = [(values[0], values[-1]) for values in known]
    caption = f"{section.caption} Open: the first log step; filled: the last."
    return section.title, change_chart(caption, rows, ("own class", "other classes")) if rows else ""


def _prediction_table(
    section: PredictionTable, metrics: Metrics, evaluations: Evaluations, config: Mapping[str, Any]
) -> tuple[str, str]:
    del metrics
    hard: Any = config
    for name in filter(None, section.hard_classes.split(".")):
        hard = hard.get(name, ()) if isinstance(hard, Mapping) else ()
    names = of_section(config.get("classes")).names
    hard_names = [names[k] for k in hard or ()]
    return "Predictions of the two levels", levels_tables(evaluations, dict(section.captions), hard_names)


RENDERERS: dict[type, Callable[..., tuple[str, str]]] = {
    ClassCurves: _class_curves,
    PredictionTable: _prediction_table,
}
