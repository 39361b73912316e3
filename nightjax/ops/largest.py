# SPDX-License-Identifier: Apache-2.0
"""The likeliest class of every pixel."""

import jax
import jax.numpy as jnp

from nightjax.core import targets


def largest(values: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
    """The first class of the largest value, as an arg-max finds it, and that value.

    Args:
        values: [..., K, ...] of at most 255 classes.
        axis: of the classes.

    Returns:
        uint8 and of values' dtype, both without the axis.
    """
    if targets.forms().largest == "library":
        return values.argmax(axis).astype(jnp.uint8), values.max(axis)
    of_class = lambda k: jax.lax.index_in_dim(values, k, axis, keepdims=False)
    top = of_class(0)
    label = jnp.zeros(top.shape, jnp.uint8)
    for k in range(1, values.shape[axis]):
        larger = of_class(k) > top
        top, label = jnp.where(larger, of_class(k), top), jnp.where(larger, jnp.uint8(k), label)
    return label, top
