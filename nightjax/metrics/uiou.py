# SPDX-License-Identifier: Apache-2.0
"""Uncertainty-aware IoU (Sakaridis et al., "Guided Curriculum Model Adaptation ...", ICCV 2019).

Night ground truth may label a pixel with a class *and* mark it invalid: the class is known only from a day image. A
prediction may decline, which it does where its confidence is below a threshold theta (equality does not decline). For
each class c:

    TP  truth c, predicted c                     FN  truth c, predicted another class
    FP  truth another class, predicted c
    TI  truth c, invalid, prediction declined    FI  truth c, not invalid, prediction declined

    UIoU = (TP + TI) / (TP + TI + FP + FN + FI)

If nothing is declined, this is the ordinary IoU. All thresholds are scored from one histogram over (threshold bin,
invalid, truth, prediction), so the counts of batches add up as confusion counts do.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nightjax.core.errors import UserError
from nightjax.core.types import IGNORE
from nightjax.metrics.confusion import Form, pair_counts


def default_thresholds(num_classes: int, number: int = 10) -> np.ndarray:
    """Evenly spaced thresholds, float32 [number], from 1/K (nothing declines) to 1."""
    return np.linspace(1 / num_classes, 1, number).astype(np.float32)


def uiou_counts(
    label: jax.Array,
    prediction: jax.Array,
    confidence: jax.Array,
    invalid: jax.Array,
    thresholds: np.ndarray,
    num_classes: int,
    *,
    mask: jax.Array | None = None,
    form: Form | None = None,
) -> jax.Array:
    """Histogram of one batch.

    Args:
        label: integer [B, H, W], also inside the invalid mask; values outside 0..K-1 (255 = void)
            are not counted.
        prediction: integer [B, H, W] in 0..K-1, or 255 to decline at every threshold.
        confidence: float [B, H, W] in 0..1.
        invalid: bool [B, H, W], the ground truth's invalid mask.
        thresholds: float32 [T], ascending.
        num_classes: K.
        mask: [B], 0 for padded examples.
        form: see `nightjax.metrics.confusion.pair_counts`.

    Returns:
        int32 [T + 1, 2, K, K]: axis 0 is the number of thresholds that the confidence reaches, axis
        1 whether the truth is invalid, then truth and prediction.

    Raises:
        UserError: if the thresholds do not ascend.
    """
    thresholds = np.asarray(thresholds, np.float32)
    if np.any(np.diff(thresholds) <= 0):
        raise UserError(f"UIoU thresholds must ascend, got {thresholds.tolist()}: sort them")
    valid = (label >= 0) & (label < num_classes)
    if mask is not None:
        valid &= (mask > 0)[:, None, None]
    declined = prediction == IGNORE
    reached = jnp.searchsorted(thresholds, confidence.astype(jnp.float32), side="right")
    reached = jnp.where(declined, 0, reached)
    predicted = jnp.where(declined, 0, prediction).astype(jnp.int32)
    column = (reached * 2 + invalid.astype(jnp.int32)) * num_classes + predicted
    bins = len(thresholds) + 1
    counts = pair_counts(label, column, valid, (num_classes, bins * 2 * num_classes), form)
    return counts.reshape(num_classes, bins, 2, num_classes).transpose(1, 2, 0, 3)


def uiou_terms(counts: np.ndarray) -> dict[str, np.ndarray]:
    """The five counts at each threshold.

    Args:
        counts: integer [T + 1, 2, K, K], merged over batches.

    Returns:
        `{"TP", "FP", "FN", "TI", "FI"}`, each int64 [T, K].
    """
    counts = np.asarray(counts, np.int64)
    up_to = counts.cumsum(axis=0)
    declined = up_to[:-1].sum(axis=3)  # [T, 2, K]: bins 0..t do not reach threshold t.
    answered = (up_to[-1:] - up_to[:-1]).sum(axis=1)  # [T, K, K]
    hit = np.diagonal(answered, axis1=1, axis2=2)
    return {
        "TP": hit,
        "FP": answered.sum(axis=1) - hit,
        "FN": answered.sum(axis=2) - hit,
        "TI": declined[:, 1],
        "FI": declined[:, 0],
    }


def uiou_per_class(counts: np.ndarray) -> np.ndarray:
    """UIoU at each threshold, float64 [T, K] in 0..1; NaN for absent classes."""
    terms = uiou_terms(counts)
    good = terms["TP"] + terms["TI"]
    union = good + terms["FP"] + terms["FN"] + terms["FI"]
    return np.where(union > 0, good / np.maximum(union, 1), np.nan)


def mean_uiou(counts: np.ndarray) -> np.ndarray:
    """Mean UIoU over the classes present, float64 [T] in 0..1; NaN without a pixel."""
    per_class = uiou_per_class(counts)
    present = ~np.isnan(per_class)
    number = present.sum(axis=1)
    return np.where(number > 0, np.nansum(per_class, axis=1) / np.maximum(number, 1), np.nan)


def summarize_uiou(counts: np.ndarray, thresholds: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
    """All UIoU scores of one evaluation set in percent, ready for JSON.

    ``average`` is the plain mean of ``mean`` over the given thresholds. This definition is our own: a benchmark server
    may space its thresholds differently.
    """
    per_class, mean = uiou_per_class(counts), mean_uiou(counts)

    def percent(values: Iterable[float]) -> list[float | None]:
        return [None if np.isnan(value) else 100.0 * float(value) for value in values]

    return {
        "unit": "percent",
        "thresholds": [float(value) for value in thresholds],
        "mean": percent(mean),
        "average": percent([mean.mean()])[0],
        "uiou": {name: percent(per_class[:, i]) for i, name in enumerate(class_names)},
    }
