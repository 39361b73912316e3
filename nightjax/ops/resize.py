# SPDX-License-Identifier: Apache-2.0
"""Resizing with torch's conventions: explicit corner rule, antialiasing only on request.

Interpolation is two products with constant matrices, one for rows and one for columns, built with
numpy while tracing. The gradient is the two transposed products, and nothing crosses the batch
axis. Growing by a whole factor has a second form, a blend of neighbors, which is several times faster on
CPU; the target chooses (`core.targets`).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nightjax.core import targets
from nightjax.core.types import Size


def resize(
    x: jax.Array,
    size: Size,
    *,
    method: str = "bilinear",
    align_corners: bool,
    antialias: bool = False,
) -> jax.Array:
    """Resizes images or features.

    Args:
        x: [B, H, W, C], floating point.
        size: target (h, w).
        method: ``"bilinear"``, or ``"area"`` for the mean over each target cell's overlapping
            source cells (torch's adaptive average pooling: cell i covers floor(i * H / h) up to,
            not including, ceil((i + 1) * H / h)).
        align_corners: True maps corner pixel centers onto each other, False maps the image borders
            (half-pixel centers, clamped at the border). DANNet uses True, the DAFormer family
            False. Without effect on "area".
        antialias: widens the bilinear filter by the shrinking factor (Pillow's and torch's
            antialiasing). Needs ``align_corners=False``.

    Returns:
        [B, h, w, C] of x's dtype.

    Raises:
        ValueError: for an unknown method or an antialiased resize with aligned corners.
    """
    if method not in ("bilinear", "area"):
        raise ValueError(f"resize method must be 'bilinear' or 'area', got {method!r}")
    if antialias and (align_corners or method == "area"):
        raise ValueError("antialias=True is defined for method='bilinear' with align_corners=False only")
    if method == "area":
        build = _area_matrix
    elif antialias:
        build = _triangle_matrix
    else:
        build = functools.partial(_bilinear_matrix, align_corners=align_corners)
    _, height, width, _ = x.shape
    steps = [(1, height, size[0]), (2, width, size[1])]
    blend = method == "bilinear" and not align_corners and targets.forms().growing == "blend"
    steps.sort(key=lambda step: step[2] / step[1])  # shrink first, grow last
    for axis, before, after in steps:
        if before == after:
            continue
        if blend and after % before == 0:
            x = _blend(x, after // before, axis)
        else:
            x = _apply(build(before, after), x, axis)
    return x


def resize_nearest(x: jax.Array, size: Size) -> jax.Array:
    """Nearest neighbor by torch's rule: row i shows source row floor(i * H / h), in float32.

    Args:
        x: [B, H, W] labels or [B, H, W, C], any dtype.
        size: target (h, w).

    Returns:
        [B, h, w] or [B, h, w, C] of x's dtype.
    """
    for axis, after in zip((1, 2), size, strict=True):
        x = _take(x, nearest_index(x.shape[axis], after), axis)
    return x


def _apply(matrix: np.ndarray, x: jax.Array, axis: int) -> jax.Array:
    """Product of a constant [after, before] matrix with one spatial axis of x [B, H, W, C]."""
    if len(matrix) == 1:  # TFLite's converter fails at a product with one row.
        shape = [1, 1, 1, 1]
        shape[axis] = -1
        weighted = x.astype(jnp.float32) * jnp.asarray(matrix, jnp.float32).reshape(shape)
        return weighted.sum(axis, keepdims=True).astype(x.dtype)
    weights = jnp.asarray(matrix, x.dtype)
    batch, height, width, channels = x.shape
    if axis == 1:
        y = jnp.matmul(weights, x.reshape(batch, height, width * channels), precision=lax.Precision.HIGHEST)
        return y.reshape(batch, -1, width, channels)
    return jnp.matmul(weights, x, precision=lax.Precision.HIGHEST)


def _blend(x: jax.Array, factor: int, axis: int) -> jax.Array:
    """Grows one axis by a whole factor: each phase mixes a cell with its nearer neighbor."""
    n = x.shape[axis]
    cell = functools.partial(lax.slice_in_dim, x, axis=axis)
    before = jnp.concatenate([cell(0, 1), cell(0, n - 1)], axis)
    after = jnp.concatenate([cell(1, n), cell(n - 1, n)], axis)
    phases = []
    for phase in range(factor):
        offset = (phase + 0.5) / factor - 0.5
        neighbor = before if offset < 0 else after
        phases.append(x * (1 - abs(offset)) + neighbor * abs(offset))
    return jnp.stack(phases, axis + 1).reshape(*x.shape[:axis], n * factor, *x.shape[axis + 1 :])


def _bilinear_matrix(before: int, after: int, align_corners: bool) -> np.ndarray:
    position = np.arange(after, dtype=np.float64)
    if align_corners:
        source = position * ((before - 1) / (after - 1) if after > 1 else 0.0)
    else:
        source = np.clip((position + 0.5) * before / after - 0.5, 0.0, before - 1)
    distance = np.abs(source[:, None] - np.arange(before))
    return np.maximum(1.0 - distance, 0.0)


def _triangle_matrix(before: int, after: int) -> np.ndarray:
    stretch = max(before / after, 1.0)
    source = (np.arange(after) + 0.5) * before / after - 0.5
    weights = np.maximum(1.0 - np.abs(source[:, None] - np.arange(before)) / stretch, 0.0)
    return weights / weights.sum(axis=1, keepdims=True)


def _area_matrix(before: int, after: int) -> np.ndarray:
    cell = np.arange(after)[:, None]
    first, last = cell * before // after, -(-(cell + 1) * before // after)
    inside = (np.arange(before) >= first) & (np.arange(before) < last)
    return inside / inside.sum(axis=1, keepdims=True)


def nearest_index(before: int, after: int) -> np.ndarray:
    """Input index of each output position in torch's nearest resize, whose scale is float32."""
    ratio = np.float32(before) / np.float32(after)
    index = np.floor(np.arange(after, dtype=np.float32) * ratio).astype(np.int64)
    return np.minimum(index, before - 1)


def _take(x: jax.Array, index: np.ndarray, axis: int) -> jax.Array:
    """``x[index]`` along an axis, as a slice or a broadcast where the index is that regular."""
    before, after = x.shape[axis], len(index)
    if before % after == 0 and np.array_equal(index, np.arange(after) * (before // after)):
        return lax.slice_in_dim(x, 0, before, before // after, axis)
    if after % before == 0 and np.array_equal(index, np.arange(after) // (after // before)):
        return jnp.repeat(x, after // before, axis=axis)
    return jnp.take(x, index, axis=axis)
