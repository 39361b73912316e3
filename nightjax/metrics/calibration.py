# SPDX-License-Identifier: Apache-2.0
"""Whether labels are right as often as their confidence says: reliability, calibration error, risk and coverage.

Everything is computed from one histogram of pixels by confidence and by whether the label is right, so the counts of
batches add up as confusion counts do. **Every score in a summary is in percent; counts are pixels.**
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nightjax.metrics.confusion import Form, pair_counts

FINE = 256
"""Bins of equal width that confidences are counted in; a threshold is a border of two of them."""

BINS = 16
"""Bins of equal width of the calibration error and the reliability diagram."""

STEPS = 20
"""Points of the curve of risk over coverage."""

PRECISIONS = (0.8, 0.9, 0.95)
"""Shares of right pixels for which an evaluation says how thresholds do."""


def reliability_counts(
    label: jax.Array,
    prediction: jax.Array,
    confidence: jax.Array,
    num_classes: int,
    *,
    mask: jax.Array | None = None,
    form: Form | None = None,
) -> jax.Array:
    """Histogram of one batch.

    Args:
        label: integer [B, H, W]; values outside 0..K-1 (255 = ignore) are not counted.
        prediction: integer [B, H, W].
        confidence: float [B, H, W] in 0..1, of the prediction.
        num_classes: K.
        mask: [B], 0 for padded examples, which are not counted.
        form: see `nightjax.metrics.confusion.pair_counts`.

    Returns:
        int32 [FINE, 2]: pixels by bin of confidence, the wrong ones first.
    """
    valid = (label >= 0) & (label < num_classes)
    if mask is not None:
        valid &= (mask > 0)[:, None, None]
    place = jnp.clip((confidence.astype(jnp.float32) * FINE).astype(jnp.int32), 0, FINE - 1)
    # Two small indices count as one large one does, and are much cheaper as products of one-hot matrices.
    part = FINE // BINS
    row = place // part * 2 + (prediction == label)
    counts = pair_counts(row, place % part, valid, (2 * BINS, part), form)
    return counts.reshape(BINS, 2, part).swapaxes(1, 2).reshape(FINE, 2)


def calibration_error(counts: np.ndarray) -> float:
    """Expected calibration error in 0..1: mean distance of confidence and accuracy over `BINS` bins, by their pixels.

    Source: Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017). Within the `FINE` bins a confidence is
    taken for the bin's middle, so the error is exact to 0.002.

    Args:
        counts: integer [FINE, 2], see `reliability_counts`.
    """
    confidence, accuracy, pixels = _bins(counts)
    known = pixels > 0
    return float(np.abs(confidence - accuracy)[known] @ pixels[known] / max(pixels.sum(), 1))


def threshold(counts: np.ndarray, precision: float) -> float | None:
    """The lowest threshold at which the pixels whose confidence reaches it are right often enough.

    Args:
        counts: integer [FINE, 2].
        precision: the share of right pixels that is asked for, in 0..1.

    Returns:
        A multiple of 1 / FINE, or None if there is no such threshold.
    """
    from_here = np.asarray(counts, np.int64)[::-1].cumsum(axis=0)[::-1]
    reached = np.flatnonzero((from_here.sum(1) > 0) & (from_here[:, 1] >= precision * from_here.sum(1)))
    return float(reached[0]) / FINE if len(reached) else None


def kept(counts: np.ndarray, least: float) -> tuple[float, float]:
    """Precision and coverage in 0..1 of the pixels whose confidence reaches a multiple of 1 / FINE; NaN without any."""
    counts = np.asarray(counts, np.int64)
    chosen = counts[round(least * FINE) :].sum(axis=0)
    return _ratio(chosen[1], chosen.sum()), _ratio(chosen.sum(), counts.sum())


def summarize_calibration(counts: np.ndarray) -> dict[str, Any]:
    """All of one evaluation set, ready for JSON.

    Returns:
        ``{"unit": "percent", "ece": value, "reliability": {"confidence", "accuracy", "pixels"}, "risk_coverage":
        {"coverage", "risk"}, "aurc": value}``: by bin, mean confidence and accuracy, None for an empty bin; the share
        of wrong pixels among the most confident ones, by their share of all; and the mean of that curve.
    """
    counts = np.asarray(counts, np.int64)
    confidence, accuracy, pixels = _bins(counts)
    coverage = np.arange(1, STEPS + 1) / STEPS
    covered, wrong = (np.concatenate([[0], x[::-1].cumsum()]) for x in (counts.sum(axis=1), counts[:, 0]))
    total = max(int(covered[-1]), 1)
    risk = np.interp(coverage, covered / total, wrong / total) / coverage
    percent = lambda values: [None if np.isnan(value) else round(100 * float(value), 4) for value in values]
    return {
        "unit": "percent",
        "ece": 100 * calibration_error(counts),
        "reliability": {
            "confidence": percent(confidence),
            "accuracy": percent(accuracy),
            "pixels": pixels.tolist(),
        },
        "risk_coverage": {"coverage": percent(coverage), "risk": percent(risk)},
        "aurc": 100 * float(risk.mean()),
    }


def _bins(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean confidence and accuracy, NaN without pixels, and number of pixels of each of `BINS` bins."""
    counts = np.asarray(counts, np.int64).reshape(BINS, -1, 2)
    middles = ((np.arange(FINE) + 0.5) / FINE).reshape(BINS, -1)
    pixels = counts.sum(axis=(1, 2))
    mean = lambda total: np.where(pixels > 0, total / np.maximum(pixels, 1), np.nan)
    return mean((middles * counts.sum(axis=2)).sum(axis=1)), mean(counts[..., 1].sum(axis=1)), pixels


def _ratio(part: int, whole: int) -> float:
    return float(part) / float(whole) if whole else float("nan")
