# SPDX-License-Identifier: Apache-2.0
"""Fourier domain adaptation: the low-frequency amplitude of one image under the phase of another (arXiv 2004.05498).

Only a small window of the spectrum changes, so only that window is transformed, by thin matrix products, and what
changed is added to the image. This equals a transform of the whole image, keeps every example on its device, and leaves
an image alone that is paired with itself. The window is symmetric about the mean, as in the official numpy code: that
of its torch code is not, and gives an image with an imaginary part.
"""

from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np

from nightjax.core.errors import UserError
from nightjax.core.types import Size

Array = jax.Array | np.ndarray


def half_width(size: Size, beta: float) -> int:
    """Half the width b of the window, whose side is 2b + 1, for images of ``size``: ``floor(beta * shorter side)``.

    Raises:
        UserError: the window would reach beyond the spectrum.
    """
    half = int(beta * min(size)) if 0 <= beta < 0.5 else -1  # A beta that is no number has no window either.
    if not 0 <= 2 * half < min(size):
        raise UserError(f"fourier: beta={beta} is out of range; it must be at least 0 and below 0.5, and 0.01 is usual")
    return half


def spectrum(image: Array, half: int, xp: ModuleType = jnp) -> Array:
    """The low frequencies of images.

    Args:
        image: [..., H, W, C], not normalized: with a negative mean the phase would carry the sign of the source's mean.
        half: b, below half of both sides.
        xp: ``jax.numpy`` or ``numpy``.

    Returns:
        Complex [..., 2b + 1, 2b + 1, C]: vertical and horizontal frequencies from -b to b, divided by H * W.

    Raises:
        UserError: the image is too small to have them.
    """
    if 2 * half >= min(image.shape[-3:-1]):
        sides = "x".join(map(str, image.shape[-3:-1]))
        raise UserError(
            f"fourier: an image of {sides} has no frequencies up to {half}; use larger images or a smaller beta"
        )
    rows, columns = (_waves(half, side).conj() / side for side in image.shape[-3:-1])
    return xp.einsum("yh,...hwc,xw->...yxc", rows, image, columns, optimize=True)


def replace_amplitude(image: Array, amplitude: Array, xp: ModuleType = jnp) -> Array:
    """Images with another amplitude of their low frequencies and their own phase; values may leave the image's range.

    Args:
        image: [..., H, W, C], not normalized.
        amplitude: [..., 2b + 1, 2b + 1, C], absolute values of `spectrum`.
        xp: ``jax.numpy`` or ``numpy``.
    """
    half = amplitude.shape[-2] // 2
    own = spectrum(image, half, xp)
    size = xp.abs(own)
    phase = xp.where(size > 0, own / xp.where(size > 0, size, 1.0), 1.0)
    rows, columns = (_waves(half, side) for side in image.shape[-3:-1])
    return image + xp.einsum("yh,...yxc,xw->...hwc", rows, (amplitude - size) * phase, columns, optimize=True).real


def fourier_adapt(source: jax.Array, target: jax.Array, beta: float = 0.01) -> jax.Array:
    """Source images with the low-frequency amplitude of target images; labels stay valid.

    Args:
        source: [B, H, W, 3] float32 in [0, 1], not normalized.
        target: the same of any size; image i lends its amplitude to source i.
        beta: share of the shorter side that is half the window; 0 replaces the mean color only.

    Returns:
        [B, H, W, 3] float32 in [0, 1].

    Raises:
        UserError: ``beta`` is out of range.
    """
    half = half_width(source.shape[1:3], beta)
    with jax.default_matmul_precision("highest"):
        amplitude = jnp.abs(spectrum(target, half))
        return jnp.clip(replace_amplitude(source, amplitude), 0.0, 1.0)


def adapt_within(image: jax.Array, key: jax.Array, beta: float = 0.01) -> jax.Array:
    """Images with the low-frequency amplitude of another image of the same batch.

    One image is drawn to lend its amplitude to the others, and a second one to lend it to the first: so only sums over
        the
    batch leave a device.

    Args:
        image: [B, H, W, 3] float32 in [0, 1], not normalized; a batch of one stays.
        key: random key.
        beta: see `fourier_adapt`.

    Returns:
        [B, H, W, 3] float32 in [0, 1].

    Raises:
        UserError: ``beta`` is out of range.
    """
    batch = image.shape[0]
    number = jnp.arange(batch)[:, None, None, None]
    order = jax.random.permutation(key, batch)
    first, second = order[0], order[min(1, batch - 1)]
    with jax.default_matmul_precision("highest"):
        amplitude = jnp.abs(spectrum(image, half_width(image.shape[1:3], beta)))
        of = lambda i: jnp.where(number == i, amplitude, 0.0).sum(axis=0)
        return jnp.clip(replace_amplitude(image, jnp.where(number == first, of(second), of(first))), 0.0, 1.0)


def translate(source: np.ndarray, target: np.ndarray, beta: float = 0.01) -> np.ndarray:
    """`fourier_adapt` of one image on the host, float64 inside.

    Args:
        source: uint8 [H, W, 3].
        target: uint8 [H', W', 3], of any size.
        beta: see `fourier_adapt`.

    Returns:
        uint8 [H, W, 3].

    Raises:
        UserError: ``beta`` is out of range.
    """
    amplitude = np.abs(spectrum(target.astype(np.float64), half_width(source.shape[:2], beta), np))
    return np.clip(np.round(replace_amplitude(source.astype(np.float64), amplitude, np)), 0, 255).astype(np.uint8)


def _waves(half: int, side: int) -> np.ndarray:
    """Complex [2b + 1, side]: one whole wave a frequency."""
    return np.exp(2j * np.pi * np.outer(np.arange(-half, half + 1), np.arange(side)) / side)
