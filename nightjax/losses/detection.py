# SPDX-License-Identifier: Apache-2.0
"""Losses of a region proposal network (maskrcnn-benchmark ``rpn/loss.py``, ``smooth_l1_loss.py``)."""

import jax
import jax.numpy as jnp
import optax

BETA = 1 / 9
"""Where the smooth L1 loss of box offsets turns from a parabola into a line."""


def smooth_l1(x: jax.Array, target: jax.Array, beta: float = BETA) -> jax.Array:
    """0.5 d^2 / beta below ``beta`` and d - 0.5 beta from there on, for d = |x - target|; of x's shape."""
    distance = jnp.abs(x - target)
    return jnp.where(distance < beta, 0.5 * distance**2 / beta, distance - 0.5 * beta)


def proposal_losses(
    logits: jax.Array, code: jax.Array, label: jax.Array, target: jax.Array, sampled: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Objectness and box loss over the sampled anchors of a batch.

    Both are divided by the number of sampled anchors, positives and negatives; without any they are 0.

    Args:
        logits: [B, N].
        code: predicted box offsets [B, N, 4].
        label: int [B, N], 1 region and 0 background; -1 counts nowhere.
        target: true offsets [B, N, 4], used where the label is 1.
        sampled: bool [B, N].

    Returns:
        Two float32 scalars.
    """
    logits, code = logits.astype(jnp.float32), code.astype(jnp.float32)
    sampled = sampled & (label >= 0)
    positive = sampled & (label > 0)
    count = jnp.maximum(sampled.sum(), 1)
    objectness = optax.sigmoid_binary_cross_entropy(logits, (label > 0).astype(jnp.float32))
    # What is not used is replaced before the loss, so that nothing in it can reach the gradient.
    offsets = smooth_l1(code, jnp.where(positive[..., None], target, code)).sum(-1)
    return (
        jnp.where(sampled, objectness, 0.0).sum() / count,
        jnp.where(positive, offsets, 0.0).sum() / count,
    )


def relabel(label: jax.Array, wins: jax.Array) -> jax.Array:
    """Labels of anchors after hardness detection: a positive whose region is no gain becomes background.

    Source: arXiv 2204.05538 supplementary, section A, Y * V', except that -1 stays -1.

    Args:
        label: int [...], 1, 0 or -1.
        wins: bool or 0/1 [...], V'.

    Returns:
        int [...].
    """
    return jnp.where(label > 0, label * wins.astype(label.dtype), label)
