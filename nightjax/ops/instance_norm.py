# SPDX-License-Identifier: Apache-2.0
"""Instance normalization: every channel of every image to zero mean and unit variance."""

import jax
import jax.numpy as jnp
from jax import lax


def instance_norm(x: jax.Array, epsilon: float = 1e-5) -> jax.Array:
    """Normalizes each channel of each image over its pixels, with the biased variance.

    There are no parameters and no running statistics (torch's ``InstanceNorm2d`` by default), so training and
    prediction are the same, and nothing crosses the batch axis.

    Args:
        x: [B, H, W, C]; the statistics are float32 whatever the type.
        epsilon: added to the variance.

    Returns:
        [B, H, W, C] of x's dtype.
    """
    wide = x.astype(jnp.float32)
    centered = wide - wide.mean((1, 2), keepdims=True)
    variance = jnp.square(centered).mean((1, 2), keepdims=True)
    return (centered * lax.rsqrt(variance + epsilon)).astype(x.dtype)
