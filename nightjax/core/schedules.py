"""Learning-rate factors of the reproduced systems, as pure functions of the step."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def warmup_poly(
    step: jax.Array | int,
    total_steps: int,
    warmup_steps: int = 0,
    power: float = 1.0,
    warmup_ratio: float = 1e-6,
) -> jax.Array:
    """Linear warm-up, then polynomial decay over the remaining steps (Refign's, DSR's schedule).

    Args:
        step: scalar step from 0, traced or not.
        total_steps: more than ``warmup_steps``; the factor is 0 from here on.
        warmup_steps: step at which the factor is 1; 0 for no warm-up.
        power: exponent of the decay.
        warmup_ratio: factor at step 0.

    Returns:
        Scalar float32.
    """
    step = jnp.asarray(step, jnp.float32)
    left = jnp.clip((total_steps - step) / (total_steps - warmup_steps), 0.0, 1.0)
    return jnp.where(step < warmup_steps, _linear(step, warmup_steps, warmup_ratio), left**power)


def mmseg_poly(
    step: jax.Array | int,
    total_steps: int,
    warmup_steps: int = 0,
    power: float = 1.0,
    warmup_ratio: float = 1e-6,
) -> jax.Array:
    """Polynomial decay over all steps, multiplied by a linear warm-up (mmcv 1.x, DAFormer).

    Unlike ``warmup_poly`` it decays from step 0, so that it never reaches 1: its peak is 0.9625
    with 1500 of 40000 steps.

    Args:
        step: scalar step from 0, traced or not.
        total_steps: the factor is 0 from here on.
        warmup_steps: length of the warm-up; 0 for none.
        power: exponent of the decay.
        warmup_ratio: factor of the warm-up at step 0.

    Returns:
        Scalar float32.
    """
    step = jnp.asarray(step, jnp.float32)
    left = jnp.clip((total_steps - step) / total_steps, 0.0, 1.0)
    return left**power * jnp.where(
        step < warmup_steps, _linear(step, warmup_steps, warmup_ratio), 1.0
    )


def _linear(step: jax.Array, warmup_steps: int, warmup_ratio: float) -> jax.Array:
    # Not as 1 - (1 - t / n) * (1 - ratio): that loses the ratio in float32 rounding.
    return warmup_ratio + (1.0 - warmup_ratio) * step / max(warmup_steps, 1)
