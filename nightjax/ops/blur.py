# SPDX-License-Identifier: Apache-2.0
"""Gaussian blur."""

import math

import jax
import jax.numpy as jnp
import numpy as np


def blur_kernel_size(side: int) -> int:
    """Odd kernel size of about a tenth of the image side, as in DACS: 51 for 512, 103 for 1024."""
    tenth = math.ceil(0.1 * side)
    return tenth if tenth % 2 else tenth - 1


def gaussian_blur(
    x: jax.Array,
    sigma: jax.Array,
    kernel_size: tuple[int, int] | None = None,
    *,
    max_sigma: float | None = None,
) -> jax.Array:
    """Separable Gaussian blur with reflected borders (the border pixel is not repeated).

    Args:
        x: [B, H, W, C] float.
        sigma: [B] float32 standard deviations in pixels, above 0; may be traced.
        kernel_size: odd (height, width); by default a tenth of each side.
        max_sigma: a bound on ``sigma``. Taps beyond 8 of it weigh less than 1e-13 and are then left
            out.

    Returns:
        [B, H, W, C] in the dtype of ``x``, computed in float32.
    """
    kernel_size = kernel_size or (blur_kernel_size(x.shape[1]), blur_kernel_size(x.shape[2]))
    out = x.astype(jnp.float32)
    for axis, size in zip((1, 2), kernel_size, strict=True):
        radius = size // 2
        if max_sigma is not None:
            radius = min(radius, math.ceil(8 * max_sigma))
        out = _blur_axis(out, sigma, radius, axis)
    return out.astype(x.dtype)


def _blur_axis(x: jax.Array, sigma: jax.Array, radius: int, axis: int) -> jax.Array:
    """Correlates one axis with a Gaussian, as shifted multiply-adds that fuse into one loop."""
    tap = np.arange(-radius, radius + 1, dtype=np.float32)
    kernel = jnp.exp(-0.5 * jnp.square(tap / sigma.astype(jnp.float32)[:, None]))
    kernel = kernel / kernel.sum(axis=1, keepdims=True)
    border = [(0, 0)] * x.ndim
    border[axis] = (radius, radius)
    padded = jnp.pad(x, border, mode="reflect")
    length = x.shape[axis]
    shifted = (
        kernel[:, i, None, None, None] * jax.lax.slice_in_dim(padded, i, i + length, axis=axis)
        for i in range(2 * radius + 1)
    )
    return jnp.asarray(sum(shifted))
