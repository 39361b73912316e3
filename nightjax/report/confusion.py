# SPDX-License-Identifier: Apache-2.0
"""The confusion matrix of an evaluation as a figure, and its largest confusions in words."""

import html
from collections.abc import Sequence

import numpy as np

CELL, LEFT, TOP = 20, 104, 104
LISTED = 8
LEAST_SHARE = 0.02
"""Share of a class's pixels from which a confusion is worth a line."""


def confusion_figure(name: str, matrix: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    """HTML of one matrix: rows are the truth, columns the prediction, shades the share of a row.

    Args:
        name: of the set.
        matrix: pixels [>= K, >= K].
        names: of the K classes.
    """
    k = len(names)
    counts = np.asarray(matrix, np.float64)[:k, :k]
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = CELL * k
    title = html.escape(f"{name}: which class is taken for which, share of each class's pixels")
    parts = [f'<svg class="matrix" viewBox="0 0 {LEFT + side + 22} {TOP + side + 22}" role="img" aria-label="{title}">']
    for i, label in enumerate(names):
        middle = CELL * i + CELL / 2 + 3.5
        text = html.escape(label)
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{TOP + middle:.1f}" text-anchor="end">{text}</text>')
        x, y = LEFT + middle, TOP - 6
        parts.append(f'<text class="tick" transform="translate({x:.1f} {y}) rotate(-90)">{text}</text>')
        y = TOP + CELL * i
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{LEFT + side}" y1="{y}" y2="{y}"/>')
        for j in range(k):
            if share[i, j] >= 0.005:
                parts.append(
                    f'<rect x="{LEFT + CELL * j + 1}" y="{TOP + CELL * i + 1}" width="{CELL - 2}" height="{CELL - 2}" '
                    f'fill="var(--series-{0 if i == j else 1})" opacity="{0.08 + 0.92 * share[i, j]:.2f}"/>'
                )
    parts.append(
        f'<text class="tick" x="{LEFT + side / 2}" y="{TOP + side + 16}" text-anchor="middle">prediction</text>'
        f'<text class="tick" transform="translate({LEFT + side + 16} {TOP + side / 2}) rotate(-90)" '
        'text-anchor="middle">truth</text></svg>'
    )
    caption = f"<figcaption>{html.escape(name)}</figcaption>"
    return f'<figure class="chart">{caption}{"".join(parts)}{_words(share, names)}</figure>'


def _words(share: np.ndarray, names: Sequence[str]) -> str:
    """The largest confusions as a list."""
    wrong = np.where(np.eye(len(names), dtype=bool), 0.0, share)
    order = np.argsort(wrong, axis=None)[::-1][:LISTED]
    items = []
    for place in order:
        true, taken = divmod(int(place), len(names))
        if wrong[true, taken] >= LEAST_SHARE:
            words = f"{names[true]} is called {names[taken]}"
            items.append(f"<li>{wrong[true, taken]:.0%} of {html.escape(words)}</li>")
    return f'<ul class="quiet">{"".join(items)}</ul>' if items else ""
