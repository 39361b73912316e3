# SPDX-License-Identifier: Apache-2.0
"""Charts of what confidences are worth: reliability, and risk over coverage, for every evaluation set."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from nightjax.report.charts import line_chart
from nightjax.report.run_folder import Evaluations

KINDS = {"calibration": "network", "calibrated": "corrected"}
"""Part of an evaluation to how its curve is called."""


def confidence_charts(evaluations: Evaluations) -> str:
    """HTML of two charts a set; a curve that is not there or damaged is left out.

    Args:
        evaluations: of a run.
    """
    figures = []
    for name, (_, summary) in evaluations.items():
        reliable = _curves(summary, "reliability", "confidence", "accuracy")
        if reliable:
            spread = [value for x, _ in reliable.values() for value in x]
            ends = [min(spread), max(spread)]
            title = f"{name}: right over confidence, %{_errors(summary)}"
            figures.append(
                line_chart(title, reliable | {"as right as confident": (ends, ends)}, x_name="confidence, %")
            )
        risky = _curves(summary, "risk_coverage", "coverage", "risk")
        if risky:
            figures.append(
                line_chart(f"{name}: wrong over the share of most confident pixels, %", risky, x_name="share, %")
            )
    return "".join(figures)


def _curves(summary: Mapping[str, Any], kind: str, x: str, y: str) -> dict[str, tuple[list[float], list[float]]]:
    """The curve of each of `KINDS` that is there."""
    found = {}
    for part, title in KINDS.items():
        try:
            points = np.array([summary[part][kind][x], summary[part][kind][y]], np.float64)  # None becomes NaN.
        except (KeyError, TypeError, ValueError):
            continue
        if points.ndim == 2 and np.isfinite(points).all(axis=0).any():
            found[title] = points[:, np.isfinite(points).all(axis=0)]
    return {title: (points[0].tolist(), points[1].tolist()) for title, points in found.items()}


def _errors(summary: Mapping[str, Any]) -> str:
    """The calibration errors, in words."""
    words = []
    for part, title in KINDS.items():
        error = summary[part].get("ece") if isinstance(summary.get(part), Mapping) else None
        if isinstance(error, int | float):
            words.append(f"{title} {error:.1f}")
    return f" (calibration error: {', '.join(words)})" if words else ""
