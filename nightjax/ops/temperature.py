# SPDX-License-Identifier: Apache-2.0
"""Confidence after temperature scaling (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017)."""

import jax
import jax.numpy as jnp


def confidence_at(logits: jax.Array, top: jax.Array, temperature: float, axis: int = -1) -> jax.Array:
    """The probability of the likeliest class, the logits being divided by a temperature; the class stays the same.

    Args:
        logits: float32 [..., K, ...], or logarithms of probabilities.
        top: their largest over the classes, float32 without the axis.
        temperature: above 0; 1 leaves the network's own probabilities.
        axis: of the classes.

    Returns:
        float32 in 0..1, the shape of ``top``.
    """
    if temperature != 1:
        logits, top = logits / temperature, top / temperature
    return jnp.exp(top - jax.nn.logsumexp(logits, axis=axis))
