# SPDX-License-Identifier: Apache-2.0
"""Warping by optical flow, and the confidence of a flow."""

import jax
import jax.numpy as jnp


def flow_warp(x: jax.Array, flow: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Samples ``x`` at ``p + flow(p)``: bilinear, zeros outside (align_corners True).

    Source: Refign ``matching_utils.warp``. Its rules for the mask are kept: a sample is valid if it
    lies strictly inside the image, except that an image whose flow is zero everywhere is returned
    as it is, all valid (the official code asks this of the whole batch at once; here of each
    image).

    Args:
        x: [B, H, W, C].
        flow: [B, H, W, 2] (dx, dy) in pixels.

    Returns:
        Warped [B, H, W, C] in the dtype of ``x``, and bool [B, H, W], True where the sample was
        inside.
    """
    _, height, width, _ = x.shape
    flow = flow.astype(jnp.float32)
    at_x = flow[..., 0] + jnp.arange(width, dtype=jnp.float32)
    at_y = flow[..., 1] + jnp.arange(height, dtype=jnp.float32)[:, None]
    # The border test is made in normalized coordinates, with the rounding of the official code.
    norm_x, norm_y = 2 * at_x / max(width - 1, 1) - 1, 2 * at_y / max(height - 1, 1) - 1
    inside = (norm_x > -1) & (norm_x < 1) & (norm_y > -1) & (norm_y < 1)

    left, top = jnp.floor(at_x), jnp.floor(at_y)
    warped = jnp.zeros(x.shape, jnp.float32)
    for corner_x, corner_y in ((left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)):
        weight = (1 - jnp.abs(at_x - corner_x)) * (1 - jnp.abs(at_y - corner_y))
        known = (corner_x >= 0) & (corner_x < width) & (corner_y >= 0) & (corner_y < height)
        row = jnp.clip(corner_y, 0, height - 1).astype(jnp.int32)
        column = jnp.clip(corner_x, 0, width - 1).astype(jnp.int32)
        value = jax.vmap(lambda image, r, c: image[r, c])(x, row, column)
        warped += jnp.where(known, weight, 0.0)[..., None] * value.astype(jnp.float32)

    still = (flow == 0).all(axis=(1, 2, 3))
    warped = jnp.where(still[:, None, None, None], x, warped.astype(x.dtype))
    return warped, inside | still[:, None, None]


def flow_confidence(log_variance: jax.Array, radius: float = 1.0) -> jax.Array:
    """Probability of the true flow within ``radius`` pixels: ``1 - exp(-radius^2 / (2 var))``."""
    return -jnp.expm1(-(radius**2) / (2 * jnp.exp(log_variance.astype(jnp.float32))))
