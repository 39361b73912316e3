# SPDX-License-Identifier: Apache-2.0
"""Scores of flows with a confidence: end-point error, correct pixels, and calibration of the confidence."""

from collections.abc import Mapping
from typing import Any

import numpy as np

RADII = (1.0, 3.0, 5.0)
"""Largest error, in pixels, of a correct pixel (PCK). The confidence is that of an error within the first."""

BINS = 10
"""Number of equally wide bins of the confidence."""

Sums = dict[str, Any]


def flow_sums(flow: np.ndarray, truth: np.ndarray, valid: np.ndarray, confidence: np.ndarray) -> Sums:
    """What one image contributes; sums of several images add.

    Args:
        flow, truth: [H, W, 2] (dx, dy) in pixels.
        valid: [H, W] bool, where the truth is known.
        confidence: [H, W] in [0, 1], probability of an error within the first of `RADII`.

    Returns:
        float64 ``images`` and ``image_error`` (an image without a valid pixel is not counted), ``correct`` [3],
        ``unmoved`` (the error of zero flow, summed over pixels), and for each bin of the confidence ``pixels``,
        ``error``, ``confidence`` and ``within`` [10].
    """
    error = np.linalg.norm(flow - truth, axis=-1)[valid].astype(np.float64)
    promised = confidence[valid].astype(np.float64)
    bins = np.minimum((promised * BINS).astype(int), BINS - 1)
    by_bin = lambda weights=None: np.bincount(bins, weights, BINS).astype(np.float64)
    return {
        "images": np.float64(len(error) > 0),
        "image_error": np.float64(error.mean() if len(error) else 0.0),
        "correct": np.array([(error <= radius).sum() for radius in RADII], np.float64),
        "unmoved": np.linalg.norm(truth, axis=-1)[valid].sum(dtype=np.float64),
        "pixels": by_bin(),
        "error": by_bin(error),
        "confidence": by_bin(promised),
        "within": by_bin(error <= RADII[0]),
    }


def summarize(sums: Sums) -> dict[str, Any]:
    """Scores of summed `flow_sums`.

    Returns:
        ``aepe``, the mean over images of their mean end-point error (as Refign's SparseEPE), ``aepe_pixels`` over
        pixels and ``aepe_unmoved`` over pixels for zero flow; ``pck`` by radius; ``calibration_error``, the mean
        distance of confidence and share of correct pixels over the bins, weighted by their pixels; and ``bins``, each
        with ``from``, ``pixels``, ``confidence``, ``within`` and ``error``. None where nothing was measured.
    """
    pixels = sums["pixels"].sum()
    known = sums["pixels"] > 0

    def mean(total, count):
        return float(total / count) if count else None

    bins = [
        {
            "from": i / BINS,
            "pixels": int(sums["pixels"][i]),
            **{name: mean(sums[name][i], sums["pixels"][i]) for name in ("confidence", "within", "error")},
        }
        for i in range(BINS)
    ]
    gap = np.abs(sums["confidence"] - sums["within"])[known].sum()
    return {
        "images": int(sums["images"]),
        "pixels": int(pixels),
        "aepe": mean(sums["image_error"], sums["images"]),
        "aepe_pixels": mean(sums["error"].sum(), pixels),
        "aepe_unmoved": mean(sums["unmoved"], pixels),
        "pck": {f"{radius:g}": mean(count, pixels) for radius, count in zip(RADII, sums["correct"], strict=True)},
        "calibration_error": mean(gap, pixels),
        "bins": bins,
    }


def format_flow(results: Mapping[str, Mapping[str, Any]]) -> str:
    """A readable table of `summarize`'s results by set name."""
    width = max(map(len, results))
    number = lambda value, unit=1.0: "     -" if value is None else f"{value * unit:6.2f}"
    head = (
        f"{'':{width}}    AEPE  unmoved  "
        + "  ".join(f"PCK-{radius:g} %" for radius in RADII)
        + "  calibration error %"
    )
    lines = [head]
    for name, result in results.items():
        correct = "   ".join(number(result["pck"][f"{radius:g}"], 100) for radius in RADII)
        errors = f"{number(result['aepe'])}   {number(result['aepe_unmoved'])}"
        lines.append(f"{name:{width}}  {errors}   {correct}   {number(result['calibration_error'], 100)}")
    for name, result in results.items():
        lines.append(
            f"\n{name}, by confidence: share of pixels, mean confidence and share within {RADII[0]:g} px in %, error "
            "in px"
        )
        for row in result["bins"]:
            share = number(row["pixels"] / max(result["pixels"], 1), 100)
            cells = number(row["confidence"], 100), number(row["within"], 100), number(row["error"])
            lines.append(f"  {row['from']:.1f} - {row['from'] + 1 / BINS:.1f}  {share}  " + "  ".join(cells))
    return "\n".join(lines)
