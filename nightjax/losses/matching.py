# SPDX-License-Identifier: Apache-2.0
"""Training a matcher without labels: warp supervision and W-bipath, both probabilistic.

Source: UAWarpC in Refign (arXiv 2207.06825), ``models/losses.py`` and ``models/alignment_model.py``; W-bipath
is from WarpC (arXiv 2104.03308). Levels are dicts of ``flow1`` .. ``flow4`` [B, h, w, 2] in pixels of the image and
``logvar1`` .. ``logvar4`` [B, h, w, 1], as a `Matcher` gives them.
"""

import math

import jax
import jax.numpy as jnp

from nightjax.losses.segmentation import masked_mean
from nightjax.ops.resize import resize
from nightjax.ops.warp import flow_warp

Levels = dict[str, jax.Array]

NUMBERS = (4, 3, 2, 1)
"""Levels, coarse to fine; all weigh the same."""

VISIBLE = (0.03, 0.5)
"""Share of the squared lengths of the flows, and squared pixels, by which two paths may differ."""


def flow_likelihood(flow: jax.Array, log_variance: jax.Array, truth: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean negative log-likelihood of the true flow under a Gaussian with robust tails.

    ``r / (2 var) + log var + log 2 pi``, where r sums over both components d ``d^2`` within one pixel and
    ``2 |d| - 1`` beyond.

    Args:
        flow, truth: [B, h, w, 2].
        log_variance: [B, h, w, 1].
        mask: [B, h, w] bool, where it counts.

    Returns:
        Scalar float32; 0 for an empty mask.
    """
    distance = jnp.abs(flow - truth)
    robust = jnp.where(distance < 1, distance**2, 2 * distance - 1).sum(-1)
    log_variance = log_variance[..., 0]
    loss = 0.5 * jnp.exp(-log_variance) * robust + log_variance + math.log(2 * math.pi)
    return masked_mean(loss, mask, normalizer="valid")


def warp_supervision(levels: Levels, truth: jax.Array, valid: jax.Array) -> jax.Array:
    """`flow_likelihood` of a known flow, summed over the levels.

    Args:
        levels: from the warped image into the image it was made of.
        truth: [B, H, W, 2] the flow that made it.
        valid: [B, H, W] bool, where the warp stayed inside.
    """
    terms = (
        flow_likelihood(levels[f"flow{i}"], levels[f"logvar{i}"], *_at_level(truth, valid, levels[f"flow{i}"]))
        for i in NUMBERS
    )
    return jnp.asarray(sum(terms))


def bipath(
    first: Levels,
    second: Levels,
    truth: jax.Array,
    valid: jax.Array,
    visible_only: jax.Array | bool = False,
) -> jax.Array:
    """The known flow again, by the way over the other image of a pair, summed over the levels.

    Flows add up along the way, and so do their variances. The flow that only says where to look is
    taken as it is, without gradient.

    Args:
        first: from the warped image into the other image of the pair.
        second: from the other image into the one that was warped.
        truth, valid: see `warp_supervision`.
        visible_only: leave out pixels for which the way differs much from the truth, as hidden ones do.
    """
    total = 0.0
    for i in NUMBERS:
        flow, log_variance = first[f"flow{i}"], first[f"logvar{i}"]
        true_flow, mask = _at_level(truth, valid, flow)
        cells = jnp.asarray(flow.shape[2:0:-1], jnp.float32) / jnp.asarray(truth.shape[2:0:-1])
        onward = jnp.concatenate([second[f"flow{i}"], second[f"logvar{i}"]], axis=-1)
        onward, inside = flow_warp(onward, jax.lax.stop_gradient(flow) * cells)
        composed = flow + onward[..., :2]
        share, slack = VISIBLE
        lengths = sum(jnp.sum(x**2, axis=-1) for x in (flow, onward[..., :2], true_flow))
        visible = jnp.sum((composed - true_flow) ** 2, axis=-1) <= share * lengths + slack
        mask = mask & inside & (visible | ~jnp.asarray(visible_only))
        total += flow_likelihood(composed, jnp.logaddexp(log_variance, onward[..., 2:]), true_flow, mask)
    return jnp.asarray(total)


def balanced(supervised: jax.Array, unsupervised: jax.Array, limit: float = 100.0) -> jax.Array:
    """The sum of two losses after the smaller is scaled up to the larger, at most ``limit`` times.

    The factor has no gradient. It is at least 1: a likelihood may be negative, which the official ratio does
    not expect.
    """
    ratio = supervised / jnp.maximum(unsupervised, 1e-8)
    inverse = unsupervised / jnp.maximum(supervised, 1e-8)
    up, down = (jax.lax.stop_gradient(jnp.clip(x, 1.0, limit)) for x in (inverse, ratio))
    return up * supervised + down * unsupervised


def _at_level(truth: jax.Array, valid: jax.Array, like: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Truth and mask at a level's size; a cell counts if all of its bilinear support does."""
    size = like.shape[1:3]
    mask = resize(valid.astype(jnp.float32)[..., None], size, align_corners=False)[..., 0]
    return resize(truth, size, align_corners=False), mask > 0.999
