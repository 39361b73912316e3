# SPDX-License-Identifier: Apache-2.0
"""Scores of a dense matcher on NightStreet, where the true flow is known."""

from collections.abc import Callable
from typing import Any

import numpy as np

from nightjax.metrics import flow as scores
from nightjax.nightstreet import PRESETS, SPLITS
from nightjax.nightstreet.pairs import agreement, render_pair, warp_labels

BATCH = 4
WARPS = ("unmoved", "matched", "true flow")
"""How the day's labels are laid over the night: as they are, by the matcher, by the true flow."""

Match = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Nights and days, uint8 [B, H, W, 3], to flow float32 [B, H, W, 2] and its confidence float32 [B, H, W]."""


def score_matcher(match: Match, preset: str, first: int, count: int) -> dict[str, Any]:
    """Scores a matcher on pairs of one street by night and by day.

    Args:
        match: the matcher.
        preset: NightStreet's size.
        first: position of the first pair.
        count: number of pairs.

    Returns:
        `metrics.flow.summarize` of all pairs, and ``agreement``: for each of `WARPS`, the mean over pairs of the
        fraction of static points, seen by both cameras, whose night and warped day labels are of one class.
    """
    total: scores.Sums = {}
    agreements: list[list[float]] = []  # A pair of two streets has no point in common, and no agreement.
    for start in range(first, first + count, BATCH):
        indices = [min(i, first + count - 1) for i in range(start, start + BATCH)]  # One shape: the last pair again.
        pairs = [render_pair(SPLITS["target_pairs"].first_seed + i, size=PRESETS[preset].size) for i in indices]
        nights, days = (np.stack([pair[light]["image"] for pair in pairs]) for light in ("night", "day"))
        found = match(nights, days)
        for pair, flow, confidence in list(zip(pairs, *found, strict=True))[: first + count - start]:
            sums = scores.flow_sums(flow, pair["flow"], pair["flow_valid"], confidence)
            total = {name: total[name] + sums[name] for name in sums} if total else sums
            if pair["flow_valid"].any():
                agreements.append(agreement_by_warp(pair, flow))
    means = np.mean(agreements, axis=0).tolist() if agreements else [None] * len(WARPS)
    return scores.summarize(total) | {"agreement": dict(zip(WARPS, means, strict=True))}


def agreement_by_warp(pair: dict[str, Any], flow: np.ndarray) -> list[float]:
    """Fraction of the static points that both views see which have one class, for each of `WARPS`.

    Args:
        pair: of `nightstreet.pairs.render_pair`.
        flow: float32 [H, W, 2], the matcher's.
    """
    night, day = pair["night"]["label"], pair["day"]["label"]
    flows = (np.zeros_like(flow), flow, pair["flow"])
    return [agreement(night, warp_labels(day, f), pair["flow_valid"]) for f in flows]


def format_scores(results: dict[str, dict[str, Any]]) -> str:
    """The table of `metrics.flow` and a line of pair agreements for every set."""
    lines = [scores.format_flow(results)]
    for name, result in results.items():
        shares = (f"{warp} {'-' if x is None else f'{100 * x:.1f}'}" for warp, x in result["agreement"].items())
        lines.append(f"\n{name}, pair agreement in %: {'  '.join(shares)}")
    return "\n".join(lines)
