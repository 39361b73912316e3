# SPDX-License-Identifier: Apache-2.0
"""Overlapping windows over an image: where they lie, cutting them out, and blending their results.

One rule places the windows of mmseg's sliding inference, of HRDA's 1080-pixel windows and of HRDA's
detail crops inside them: a row-major grid with the given stride, whose last row and column are
moved back so that no window leaves the image.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from nightjax.core.errors import UserError
from nightjax.core.types import Size


def window_size(size: Size, window: Size) -> tuple[int, int]:
    """The window that is really used: `window`, cut to an image of `size` where that is smaller."""
    return min(size[0], window[0]), min(size[1], window[1])


def window_grid(size: Size, window: Size, stride: tuple[int, int]) -> np.ndarray:
    """Top-left corners of the windows that cover an image.

    Source: mmseg `EncoderDecoder.slide_inference`; the same in HRDA `hr_slide` and in DSR/Refign.
    1080x1920 with window 1080 and stride 420 gives 3 windows, 1024x1024 gives 1.

    Args:
        size: (H, W) of the image.
        window: (height, width) of a window; cut to the image where it is larger.
        stride: (rows, columns) between windows.

    Returns:
        int32 [N, 2] of (y, x), row by row.

    Raises:
        UserError: if a stride is not positive or leaves gaps between windows.
    """
    axes = []
    for length, span, step in zip(size, window, stride, strict=True):
        if not 0 < step <= span:
            raise UserError(f"window stride {step} must be 1 to {span}, the window: else gaps remain")
        number = max(length - span + step - 1, 0) // step + 1
        axes.append(np.minimum(np.arange(number) * step, max(length - span, 0)))
    rows, columns = np.meshgrid(*axes, indexing="ij")
    return np.stack([rows.ravel(), columns.ravel()], axis=-1).astype(np.int32)


def gather_windows(x: jax.Array, offsets: np.ndarray, window: Size) -> jax.Array:
    """Cuts windows out of a batch.

    Args:
        x: [B, H, W, C].
        offsets: int32 [N, 2] of (y, x).
        window: (height, width); must fit into the image at every offset.

    Returns:
        [B, N, height, width, C]. The batch axis stays first, so reshaping to [B * N, ...] does not
        move examples between devices.
    """

    def cut(offset: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(x, (0, offset[0], offset[1], 0), (x.shape[0], *window, x.shape[3]))

    return jax.vmap(cut, out_axes=1)(jnp.asarray(offsets))


def window_cover(offsets: np.ndarray, window: Size, size: Size) -> np.ndarray:
    """How many windows cover each pixel, float32 [H, W]."""
    cover = np.zeros(size, np.float32)
    for y, x in offsets:
        cover[y : y + window[0], x : x + window[1]] += 1
    return cover


def blend_windows(windows: jax.Array, offsets: np.ndarray, size: Size) -> jax.Array:
    """Puts windows back and averages where they overlap.

    Args:
        windows: float [B, N, height, width, C].
        offsets: int32 [N, 2] of (y, x); together the windows must cover the image.
        size: (H, W).

    Returns:
        [B, H, W, C], each pixel the mean of the windows over it.
    """
    canvas = jnp.zeros((windows.shape[0], *size, windows.shape[-1]), windows.dtype)

    def add(canvas: jax.Array, item: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        return _add_window(canvas, *item), None

    canvas, _ = jax.lax.scan(add, canvas, (windows.swapaxes(0, 1), jnp.asarray(offsets)))
    cover = window_cover(offsets, windows.shape[2:4], size)
    return canvas / cover[None, :, :, None].astype(windows.dtype)


def slide(
    fn: Callable[[jax.Array], jax.Array],
    x: jax.Array,
    window: tuple[int, int],
    stride: tuple[int, int],
    *,
    at_once: bool = True,
) -> jax.Array:
    """Applies a dense function window by window and averages the overlaps.

    Args:
        fn: [M, height, width, C] to [M, height, width, K], float, at the same size (resize inside
            it). Traced once.
        x: [B, H, W, C].
        window: (height, width), cut to the image where it is larger.
        stride: (rows, columns).
        at_once: all B * N windows in one call (fast), or the B windows of one position after the
            other, which needs the memory of a single window. The results agree if `fn` treats its
            examples independently.

    Returns:
        [B, H, W, K].
    """
    batch, size = x.shape[0], x.shape[1:3]
    span = window_size(size, window)
    offsets = window_grid(size, window, stride)
    if at_once:
        cut = gather_windows(x, offsets, span)
        result = fn(cut.reshape(batch * len(offsets), *cut.shape[2:]))
        return blend_windows(result.reshape(batch, len(offsets), *result.shape[1:]), offsets, size)

    def step(canvas: jax.Array, offset: jax.Array) -> tuple[jax.Array, None]:
        cut = jax.lax.dynamic_slice(x, (0, offset[0], offset[1], 0), (batch, *span, x.shape[3]))
        return _add_window(canvas, fn(cut), offset), None

    out = jax.eval_shape(fn, jax.ShapeDtypeStruct((batch, *span, x.shape[3]), x.dtype))
    canvas, _ = jax.lax.scan(step, jnp.zeros((batch, *size, out.shape[-1]), out.dtype), jnp.asarray(offsets))
    return canvas / window_cover(offsets, span, size)[None, :, :, None].astype(out.dtype)


def _add_window(canvas: jax.Array, window: jax.Array, offset: jax.Array) -> jax.Array:
    start = (0, offset[0], offset[1], 0)
    old = jax.lax.dynamic_slice(canvas, start, window.shape)
    return jax.lax.dynamic_update_slice(canvas, old + window, start)
