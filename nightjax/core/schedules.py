# SPDX-License-Identifier: Apache-2.0
"""Learning-rate factors of the reproduced systems, as pure functions of the step."""

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
    return left**power * jnp.where(step < warmup_steps, _linear(step, warmup_steps, warmup_ratio), 1.0)


def warmup_line(
    step: jax.Array | int, total_steps: int, warmup_steps: int = 0, warmup_ratio: float = 1e-3
) -> jax.Array:
    """Linear warm-up to 1, then the line that falls from 1 at step 0 to 0 at the end (VFM-UDA).

    So the factor jumps from 1 in the last step of the warm-up to the line, 0.9625 with 1500 of 40000 steps.

    Args:
        step: scalar step from 0, traced or not.
        total_steps: the factor is 0 from here on.
        warmup_steps: number of steps of the warm-up, of which the last has factor 1; 0 for none.
        warmup_ratio: factor at step 0.

    Returns:
        Scalar float32.
    """
    step = jnp.asarray(step, jnp.float32)
    line = jnp.clip((total_steps - step) / total_steps, 0.0, 1.0)
    return jnp.where(step < warmup_steps, _linear(step, warmup_steps - 1, warmup_ratio), line)


def linear_tail(step: jax.Array | int, total_steps: int, constant_steps: int) -> jax.Array:
    """Constant, then linear to 0: the schedule of CycleGAN and pix2pixHD.

    Counted in epochs, theirs are ``linear_tail(epoch, 201, 100)`` for CycleGAN (its factor of the 0-based epoch e is
    that of e + 1) and ``linear_tail(epoch, 201, 101)`` for pix2pixHD, with epochs from 1 to 200.

    Args:
        step: scalar step, traced or not.
        total_steps: more than ``constant_steps``; the factor is 0 from here on.
        constant_steps: the factor is 1 up to here.

    Returns:
        Scalar float32.
    """
    left = (total_steps - jnp.asarray(step, jnp.float32)) / (total_steps - constant_steps)
    return jnp.clip(left, 0.0, 1.0)


def step_decay(step: jax.Array | int, every: int, factor: float = 0.5) -> jax.Array:
    """``factor ** floor((step + 1) / every)``: steps down one step early, as UNIT moves its scheduler before the
    update.

    Args:
        step: scalar step from 0, traced or not.
        every: steps between two falls.
        factor: what each fall multiplies.

    Returns:
        Scalar float32.
    """
    falls = (jnp.asarray(step, jnp.int32) + 1) // every
    return jnp.float32(factor) ** falls


def warmup_multistep(
    step: jax.Array | int,
    milestones: tuple[int, ...],
    warmup_steps: int = 0,
    warmup_ratio: float = 1 / 3,
    factor: float = 0.1,
) -> jax.Array:
    """Linear warm-up, then a fall at each milestone (maskrcnn-benchmark).

    Args:
        step: scalar step from 0, traced or not.
        milestones: steps from which each fall counts.
        warmup_steps: length of the warm-up; 0 for none.
        warmup_ratio: factor of the warm-up at step 0.
        factor: what each fall multiplies.

    Returns:
        Scalar float32.
    """
    step = jnp.asarray(step, jnp.float32)
    falls = (step[None] >= jnp.asarray(milestones, jnp.float32)).sum()
    warm = jnp.where(step < warmup_steps, _linear(step, warmup_steps, warmup_ratio), 1.0)
    return warm * jnp.float32(factor) ** falls


def cosine(step: jax.Array | int, fall: int) -> jax.Array:
    """Half a cosine down, from 1 to 0 in ``fall`` steps, then up again in as many, and so on (torch's
    CosineAnnealingLR).

    Stepped every iteration with a fall of one epoch, as in the Label Transfer Scene Parser's program, it is a zigzag of
    two epochs; with a fall of the whole run it only goes down.

    Args:
        step: scalar step from 0, traced or not.
        fall: 1 or more.

    Returns:
        Scalar float32.
    """
    phase = jnp.asarray(step) % (2 * fall)  # In integers: float32 would lose the phase of a late step.
    return 0.5 * (1.0 + jnp.cos(jnp.pi * phase.astype(jnp.float32) / fall))


def _linear(step: jax.Array, warmup_steps: int, warmup_ratio: float) -> jax.Array:
    # Not as 1 - (1 - t / n) * (1 - ratio): that loses the ratio in float32 rounding.
    return warmup_ratio + (1.0 - warmup_ratio) * step / max(warmup_steps, 1)
