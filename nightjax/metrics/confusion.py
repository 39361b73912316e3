# SPDX-License-Identifier: Apache-2.0
"""Confusion counts on the device, scores on the host.

Counts are integers that add up: int32 for one batch on the device, int64 once merged on the host.
Ratios are taken only at the end, in `summarize`, which also fixes the form of the evaluation JSON.
Rows are the truth, columns the prediction.

**Every score in a summary is in percent (0..100); counts are pixels.**
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from nightjax.core import targets
from nightjax.core.types import IGNORE

Form = Literal["scatter", "onehot"]

POLICIES = ("skip", "zero", "gt_only")
"""What a class absent from truth or prediction does to the mean; see `present_classes`."""


def pair_counts(
    rows: jax.Array,
    columns: jax.Array,
    valid: jax.Array,
    shape: tuple[int, int],
    form: Form | None = None,
) -> jax.Array:
    """Counts how often each (row, column) pair occurs.

    Args:
        rows: integer [B, H, W] in 0..R-1 wherever `valid`.
        columns: integer [B, H, W] in 0..C-1 wherever `valid`.
        valid: bool [B, H, W]; other pixels are not counted.
        shape: (R, C).
        form: "scatter" adds ones into a small table; "onehot" multiplies one-hot matrices, image
            row by image row, which suits a matrix unit. None takes the target's (`core.targets`). Both are exact.

    Returns:
        int32 [R, C].
    """
    form = form or targets.forms().counting
    num_rows, num_columns = shape
    rows, columns = rows.astype(jnp.int32), columns.astype(jnp.int32)
    if form == "scatter":
        index = jnp.where(valid, rows * num_columns + columns, num_rows * num_columns)
        table = jnp.zeros(num_rows * num_columns, jnp.int32)
        return table.at[index.ravel()].add(1, mode="drop").reshape(shape)
    # float32 sums of ones are exact up to 2^24, and no image row is that wide.
    row_hot = jax.nn.one_hot(jnp.where(valid, rows, -1), num_rows, dtype=jnp.bfloat16)
    column_hot = jax.nn.one_hot(jnp.where(valid, columns, -1), num_columns, dtype=jnp.bfloat16)
    partial = jnp.einsum("bhwr,bhwc->bhrc", row_hot, column_hot, preferred_element_type=jnp.float32)
    return partial.astype(jnp.int32).sum(axis=(0, 1))


def confusion_counts(
    label: ArrayLike,
    prediction: ArrayLike,
    num_classes: int,
    *,
    mask: jax.Array | None = None,
    form: Form | None = None,
) -> jax.Array:
    """Confusion matrix of one batch; jit it together with the forward pass.

    Args:
        label: integer [B, H, W]. Values outside 0..K-1 (255 = ignore) are not counted.
        prediction: integer [B, H, W] of the same size, each in 0..K-1 (an arg-max).
        num_classes: K.
        mask: [B], 0 for padded examples, which are not counted.
        form: see `pair_counts`.

    Returns:
        int32 [K, K], rows truth and columns prediction.
    """
    label, prediction = jnp.asarray(label), jnp.asarray(prediction)
    valid = (label >= 0) & (label < num_classes) & (label != IGNORE)
    if mask is not None:
        valid &= (mask > 0)[:, None, None]
    return pair_counts(label, prediction, valid, (num_classes, num_classes), form)


def iou_per_class(counts: np.ndarray, num_classes: int | None = None) -> np.ndarray:
    """Intersection over union, float64 [K] in 0..1; NaN for a class absent from truth and prediction.

    Args:
        counts: integer [>= K, >= K]; rows from K on are not truth, columns from K on are
            predictions of no class.
        num_classes: K; the number of rows if None.
    """
    k = num_classes or len(counts)
    hit = np.diagonal(counts)[:k].astype(np.float64)
    union = counts[:k].sum(axis=1) + counts[:k, :k].sum(axis=0) - hit
    return _ratio(hit, union)


def present_classes(counts: np.ndarray, policy: str, num_classes: int | None = None) -> np.ndarray:
    """Which classes a mean runs over, bool [K].

    "skip" leaves out classes absent from truth *and* prediction (mmseg's nan-mean, benchmark
    servers); "zero" keeps every class and counts absent ones as 0 (official DSR code,
    helpers/metrics.py); "gt_only" keeps the classes of the truth (the same file's
    `over_present_classes`).
    """
    k = num_classes or len(counts)
    truth, predicted = counts[:k].sum(axis=1), counts[:k, :k].sum(axis=0)
    return {"skip": truth + predicted > 0, "zero": np.ones(k, bool), "gt_only": truth > 0}[policy]


def mean_iou(counts: np.ndarray, policy: str = "skip", num_classes: int | None = None) -> float:
    """Mean IoU in 0..1 under one of `POLICIES`; NaN if no class takes part."""
    iou = np.nan_to_num(iou_per_class(counts, num_classes))
    return _mean(iou[present_classes(counts, policy, num_classes)])


def summarize(
    counts: np.ndarray,
    class_names: Sequence[str],
    groups: Mapping[str, Sequence[int]] | None = None,
    absent_classes: str = "skip",
) -> dict[str, Any]:
    """All scores of one evaluation set, ready for JSON.

    Args:
        counts: integer [>= K, >= K], rows truth; see `iou_per_class` for what lies outside the
            first K.
        class_names: K names.
        groups: name to class indices, for means over static, small and dynamic classes.
        absent_classes: the policy of the one number to quote, of the group means and of
            `classes_averaged`.

    Returns:
        `{"unit": "percent", "miou": {policy: value}, "primary": policy, "classes_averaged": n,
        "iou": {class: value}, "acc": {class: value}, "support": {class: pixels of truth}, "pa":
        value, "ca": value, "fwiou": value, "groups": {name: value}, "pixels": n}`. pa is pixel
        accuracy, ca mean class accuracy over the classes of the truth, fwiou IoU weighted by the
        truth's frequency. A value is None where nothing was there to measure.
    """
    k = len(class_names)
    counts = np.asarray(counts, np.int64)
    hit, support = np.diagonal(counts)[:k], counts[:k].sum(axis=1)
    iou, accuracy = iou_per_class(counts, k), _ratio(hit, support)
    averaged = present_classes(counts, absent_classes, k)
    pixels = int(support.sum())
    scored = np.nan_to_num(iou)

    def group_mean(members: Sequence[int]) -> float | None:
        return _percent(_mean(np.array([scored[i] for i in members if averaged[i]])))

    return {
        "unit": "percent",
        "miou": {policy: _percent(mean_iou(counts, policy, k)) for policy in POLICIES},
        "primary": absent_classes,
        "classes_averaged": int(averaged.sum()),
        "iou": dict(zip(class_names, map(_percent, iou), strict=True)),
        "acc": dict(zip(class_names, map(_percent, accuracy), strict=True)),
        "support": dict(zip(class_names, support.tolist(), strict=True)),
        "pa": _percent(hit.sum() / pixels if pixels else np.nan),
        "ca": _percent(_mean(accuracy[support > 0])),
        "fwiou": _percent((support * scored).sum() / pixels if pixels else np.nan),
        "groups": {name: group_mean(members) for name, members in (groups or {}).items()},
        "pixels": pixels,
    }


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _percent(value: float) -> float | None:
    return None if np.isnan(value) else 100.0 * float(value)
