# SPDX-License-Identifier: Apache-2.0
"""Compute precision by name."""

import jax.numpy as jnp

from nightjax.core.errors import UserError


def compute_dtype(name: str) -> jnp.dtype:
    """Type in which layers compute: ``"float32"`` or ``"bfloat16"``.

    Parameters, norm statistics, losses, averages and metrics are float32 under either.
    """
    if name not in ("float32", "bfloat16"):
        raise UserError(f"model.dtype={name!r} is unknown; choose float32 or bfloat16")
    return jnp.dtype(name)
