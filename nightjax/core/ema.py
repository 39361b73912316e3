# SPDX-License-Identifier: Apache-2.0
"""Exponential moving average of parameters: the teacher of the self-training methods."""

from typing import Any

import jax
import jax.numpy as jnp


def ema_update(teacher: Any, student: Any, step: jax.Array | int, decay_max: float = 0.999) -> Any:
    """Moves the teacher towards the student with a decay that warms up from zero.

    ``teacher <- m * teacher + (1 - m) * student`` with ``m = min(1 - 1 / (step + 1), decay_max)``:
    step 0 copies the student, step 1 averages the two. Source: DAFormer and DSR
    ``update_momentum_encoder``.

    Args:
        teacher: pytree of arrays. Pass parameters only; the reference keeps batch-norm statistics
            separate.
        student: pytree of the same structure.
        step: global step from 0, traced or not.
        decay_max: cap of the decay, in [0, 1].

    Returns:
        The new teacher, computed in float32 and returned in the teacher's dtypes.
    """
    # The share of the student is formed directly: 1 - 0.999 in float32 would be off by 5e-5 of
    # itself.
    share = jnp.maximum(1.0 / (jnp.asarray(step, jnp.float32) + 1.0), 1.0 - decay_max)

    def blend(old: jax.Array, new: jax.Array) -> jax.Array:
        mean = (1.0 - share) * old.astype(jnp.float32) + share * new.astype(jnp.float32)
        return mean.astype(old.dtype)

    return jax.tree.map(blend, teacher, student)
