# SPDX-License-Identifier: Apache-2.0
"""Charts as inline SVG, without any library; colors are CSS variables `--series-0..7`."""

import html
import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

WIDTH, HEIGHT = 420, 236
LEFT, RIGHT, TOP, BOTTOM = 66, 14, 10, 42
ROW = 16
MAX_POINTS = 400
NUM_COLORS = 8

Series = Mapping[str, tuple[Sequence[float], Sequence[float]]]
"""Name to (x, y). Values that are not finite are left out."""

Position = TypeVar("Position", float, np.ndarray)


def line_chart(title: str, series: Series, *, smooth: bool = False, x_name: str = "step") -> str:
    """One chart as an HTML figure.

    Args:
        title: caption.
        series: name to (steps, values); a single series may have the name "".
        smooth: draws noisy values faintly and a running mean over 1/20 of them on top.
        x_name: of the horizontal axis; the vertical one has the title.

    Returns:
        HTML text; with a line saying so where there is nothing to draw.
    """
    cleaned = {name: _clean(*values) for name, values in series.items()}
    cleaned = {name: values for name, values in cleaned.items() if len(values[0])}
    caption = f"<figcaption>{html.escape(title)}</figcaption>"
    if not cleaned:
        return f'<figure class="chart">{caption}<p class="quiet">no finite values</p></figure>'
    every_x = np.concatenate([x for x, _ in cleaned.values()])
    every_y = np.concatenate([y for _, y in cleaned.values()])
    x_ticks, y_ticks = (
        ticks(every_x.min(), every_x.max(), 5),
        ticks(every_y.min(), every_y.max(), 5),
    )
    x_range = (every_x.min(), every_x.max())
    y_range = (min(y_ticks[0], every_y.min()), max(y_ticks[-1], every_y.max()))

    def place_x(x: Position) -> Position:
        return LEFT + (x - x_range[0]) / (x_range[1] - x_range[0] or 1) * (WIDTH - LEFT - RIGHT)

    def place_y(y: Position) -> Position:
        return HEIGHT - BOTTOM - (y - y_range[0]) / (y_range[1] - y_range[0] or 1) * (HEIGHT - TOP - BOTTOM)

    name = html.escape(title, quote=True)
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">']
    for tick in y_ticks:
        y = place_y(tick)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="tick" x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">'
            f"{short(tick)}</text>"
        )
    for tick in x_ticks:
        if x_range[0] <= tick <= x_range[1]:
            x, y = place_x(tick), HEIGHT - BOTTOM + 16
            parts.append(f'<text class="tick" x="{x:.1f}" y="{y}" text-anchor="middle">{short(tick)}</text>')
    parts.append(_axis_names(x_name, title, (LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2, HEIGHT))
    for number, (x, y) in enumerate(cleaned.values()):
        color = f"var(--series-{number % NUM_COLORS})"
        if smooth and _is_noisy(y):
            parts.append(_path(place_x(x), place_y(y), color, "faint"))
            y = _running_mean(y, max(3, len(y) // 20))
        parts.append(_path(place_x(x), place_y(y), color, "line"))
        end_x, end_y = place_x(x[-1]), place_y(y[-1])
        parts.append(f'<circle cx="{end_x:.1f}" cy="{end_y:.1f}" r="2.8" fill="{color}"/>')
    parts.append("</svg>")
    return f'<figure class="chart">{caption}{"".join(parts)}{_legend(cleaned)}</figure>'


def change_chart(
    title: str, rows: Mapping[str, Sequence[tuple[float, float]]], series: Sequence[str], x_name: str = "cosine"
) -> str:
    """What values were and what they became, as an HTML figure: an open circle, a line, and a filled circle.

    Args:
        title: caption.
        rows: name to (before, after) of each series; all finite.
        series: names for the legend, which gives the means over rows.
        x_name: of the horizontal axis.

    Returns:
        HTML text.
    """
    pairs = np.array(list(rows.values()), np.float64)  # [rows, series, 2]
    marks = ticks(min(pairs.min(), 0.0), max(pairs.max(), 0.0), 5)
    left, height, name = 2 * LEFT, TOP + ROW * len(rows) + BOTTOM, html.escape(title, quote=True)

    def place(value: float) -> float:
        return left + (value - marks[0]) / (marks[-1] - marks[0]) * (WIDTH - left - RIGHT)

    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{name}">']
    for mark in marks:
        x = place(mark)
        parts.append(
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{height - BOTTOM}"/>'
            f'<text class="tick" x="{x:.1f}" y="{height - BOTTOM + 16}" text-anchor="middle">{short(mark)}</text>'
        )
    parts.append(_axis_names(x_name, "", (left + WIDTH - RIGHT) / 2, 0, height))
    for i, (row, values) in enumerate(rows.items()):
        middle = TOP + ROW * (i + 0.5)
        label = html.escape(row)
        parts.append(f'<text class="tick" x="{left - 8}" y="{middle + 3.5:.1f}" text-anchor="end">{label}</text>')
        for j, (before, after) in enumerate(values):
            y, color = middle + 4 * (j - (len(series) - 1) / 2), f"var(--series-{j % NUM_COLORS})"
            first, last = place(before), place(after)
            parts.append(
                f'<line x1="{first:.1f}" x2="{last:.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="{color}"/>'
                f'<circle cx="{first:.1f}" cy="{y:.1f}" r="2.4" fill="var(--card)" stroke="{color}"/>'
                f'<circle cx="{last:.1f}" cy="{y:.1f}" r="2.8" fill="{color}"/>'
            )
    legend = {one: (np.arange(2), pairs[:, j].mean(axis=0)) for j, one in enumerate(series)}
    caption = f"<figcaption>{html.escape(title)}</figcaption>"
    return f'<figure class="chart">{caption}{"".join(parts)}</svg>{_legend(legend)}</figure>'


def sparkline(values: Sequence[float | None]) -> str:
    """A line without axes of what a percentage became, for a cell of a table; "" for fewer than two values."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return ""
    top = max(*known, 1e-9)
    points = " ".join(f"{60 * i / (len(known) - 1):.1f},{15 - 14 * value / top:.1f}" for i, value in enumerate(known))
    label = f"from {known[0]:.1f} to {known[-1]:.1f}"
    return (
        f'<svg class="spark" viewBox="-1 0 62 16" role="img" aria-label="{label}">'
        f'<polyline class="line" points="{points}" stroke="var(--series-0)"/></svg>'
    )


def _axis_names(x_name: str, y_name: str, x: float, y: float, height: float) -> str:
    names = f'<text class="tick" x="{x:.1f}" y="{height - 6}" text-anchor="middle">{html.escape(x_name)}</text>'
    if y_name:
        names += (
            f'<text class="tick" transform="translate(14 {y:.1f}) rotate(-90)" text-anchor="middle">'
            f"{html.escape(y_name)}</text>"
        )
    return names


def ticks(low: float, high: float, number: int) -> list[float]:
    """About `number` round values from at or below `low` to at or above `high`."""
    if high <= low:
        margin = abs(low) * 0.1 or 1.0
        low, high = low - margin, high + margin
    raw = (high - low) / number
    magnitude = 10.0 ** math.floor(math.log10(raw))
    steps = (factor * magnitude for factor in (1, 2, 2.5, 5, 10))
    step = next(step for step in steps if step >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def short(value: float) -> str:
    """A number for an axis or a legend: 3 digits, thousands as k, millions as M."""
    if abs(value) < 1e-12:
        return "0"
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}" if abs(value) >= 1e-3 else f"{value:.0e}"


def _clean(every_x: Sequence[float], every_y: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(every_x, np.float64), np.asarray(every_y, np.float64)
    kept = np.isfinite(x) & np.isfinite(y)
    x, y = x[kept], y[kept]
    if len(x) > MAX_POINTS:  # draw means of equal stretches
        bins = np.arange(len(x)) * MAX_POINTS // len(x)
        number = np.bincount(bins)
        x, y = np.bincount(bins, x) / number, np.bincount(bins, y) / number
    return x, y


def _is_noisy(values: np.ndarray) -> bool:
    """Whether a curve goes up and down so often that its way is long against its height."""
    return len(values) >= 20 and np.abs(np.diff(values)).sum() > 3 * np.ptp(values)


def _running_mean(values: np.ndarray, span: int) -> np.ndarray:
    total = np.concatenate([[0.0], np.cumsum(values)])
    low = np.maximum(np.arange(len(values)) - span // 2, 0)
    high = np.minimum(np.arange(len(values)) + span // 2 + 1, len(values))
    return (total[high] - total[low]) / (high - low)


def _path(x: np.ndarray, y: np.ndarray, color: str, kind: str) -> str:
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    return f'<polyline class="{kind}" points="{points}" stroke="{color}"/>'


def _legend(series: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> str:
    if list(series) == [""]:
        now = short(float(series[""][1][-1]))
        return f'<div class="legend"><span>now <b>{now}</b></span></div>'
    items = []
    for number, (name, (_, y)) in enumerate(series.items()):
        key = f'<i style="background:var(--series-{number % NUM_COLORS})"></i>'
        items.append(f"<span>{key}{html.escape(name)} <b>{short(float(y[-1]))}</b></span>")
    return f'<div class="legend">{"".join(items)}</div>'
