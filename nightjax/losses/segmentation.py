# SPDX-License-Identifier: Apache-2.0
"""Cross-entropy and focal loss of segmentation, their averages and class weights."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from nightjax.core.errors import UserError
from nightjax.core.types import IGNORE
from nightjax.ops.resize import resize


def cross_entropy(logits: jax.Array, label: jax.Array) -> jax.Array:
    """Cross-entropy of every pixel, 0 where the label is 255.

    Gather form (log-sum-exp minus the label's logit): no one-hot of the label is built.

    Args:
        logits: [B, H, W, K], any float dtype.
        label: [B, H, W] integer train ids, 255 = ignore.

    Returns:
        [B, H, W] float32.
    """
    logits = logits.astype(jnp.float32)
    label = label.astype(jnp.int32)
    valid = label != IGNORE
    chosen = jnp.take_along_axis(logits, jnp.where(valid, label, 0)[..., None], axis=-1)[..., 0]
    return jnp.where(valid, jax.nn.logsumexp(logits, axis=-1) - chosen, 0.0)


def masked_mean(values: jax.Array, weight: jax.Array | None = None, *, normalizer: str) -> jax.Array:
    """Weighted sum of ``values`` over an explicit normalizer; 0 (with zero gradient) if that is 0.

    Args:
        values: float array.
        weight: array that broadcasts to ``values``, bool or float; None for 1.
        normalizer: ``"all"``, the number of values; ``"valid"``, the number of non-zero weights;
            ``"weights"``, their sum.

    Returns:
        Scalar float32.

    Raises:
        UserError: for an unknown normalizer.
    """
    weight = jnp.ones_like(values) if weight is None else jnp.broadcast_to(weight, values.shape)
    weight = weight.astype(jnp.float32)
    if normalizer == "all":
        total = jnp.float32(values.size)
    elif normalizer == "valid":
        total = (weight != 0).sum(dtype=jnp.float32)
    elif normalizer == "weights":
        total = weight.sum()
    else:
        raise UserError(f"masked_mean: unknown normalizer '{normalizer}'; use 'all', 'valid' or 'weights'")
    # Values are masked before the product, so that a nan under a zero weight stays out.
    weighted = jnp.where(weight != 0, values.astype(jnp.float32), 0.0) * weight
    return jnp.where(total != 0, weighted.sum() / jnp.where(total != 0, total, 1.0), 0.0)


def pixel_weighted_cross_entropy(
    logits: jax.Array,
    label: jax.Array,
    weight: jax.Array | None = None,
    *,
    normalizer: str = "all",
    align_corners: bool = False,
) -> jax.Array:
    """Cross-entropy after upsampling to the label's size.

    Source: DSR ``PixelWeightedCrossEntropyLoss``, also DAFormer's loss; both divide by *all*
    pixels, ignored ones too. The full-size logits are recomputed in the backward pass instead of
    being stored.

    Args:
        logits: [B, h, w, K]; upsampled bilinearly.
        label: [B, H, W], 255 = ignore.
        weight: [B, H, W] float32 or None for 1.
        normalizer: ``"all"`` pixels, or of the labeled ones the number (``"valid"``) or the weight
            (``"weights"``).
        align_corners: corner rule of the upsampling; True in DANNet and AdaptSegNet.

    Returns:
        Scalar float32.
    """
    weight = (label != IGNORE) * (1.0 if weight is None else weight)

    @jax.checkpoint
    def loss(logits: jax.Array) -> jax.Array:
        full = resize(logits.astype(jnp.float32), label.shape[1:], align_corners=align_corners)
        return masked_mean(cross_entropy(full, label), weight, normalizer=normalizer)

    return loss(logits)


def focal_mixture(
    logits: jax.Array,
    label: jax.Array,
    weight: jax.Array | None = None,
    *,
    beta: float = 0.5,
    gamma: float = 2.0,
    alpha: float | Sequence[float] = 0.5,
    mode: str = "pixel",
    normalizer: str = "valid",
    divide_by_batch: bool = False,
    align_corners: bool = False,
) -> jax.Array:
    """``beta`` of the cross-entropy plus ``1 - beta`` of the focal loss ``alpha (1 - p)^gamma CE``, after upsampling.

    Source: "Nighttime scene understanding with label transfer scene parser" (Image and Vision Computing 151, 2024),
        whose
    program is ``mode="batch", divide_by_batch=True``: there p is ``exp(-CE)`` of the whole batch, one number, so no
    pixel is told from another. ``mode="pixel"`` is the focal loss of arXiv 1708.02002 for the true class of every
    pixel.

    Args:
        logits: [B, h, w, K]; upsampled bilinearly.
        label: [B, H, W], 255 = ignore.
        weight: [B, H, W] float32 or None for 1.
        beta: share of the cross-entropy; 0 is the focal loss alone.
        gamma: exponent; 0 (with alpha 1) is the cross-entropy.
        alpha: factor of the focal loss; or one a class, only in mode "pixel".
        mode: "pixel" or "batch".
        normalizer: see `masked_mean`.
        divide_by_batch: divide once more by B.
        align_corners: corner rule of the upsampling.

    Returns:
        Scalar float32.

    Raises:
        UserError: unknown mode, or an alpha for each class in mode "batch".
    """
    if mode not in ("pixel", "batch"):
        raise UserError(f"focal loss: unknown mode '{mode}'; use 'pixel' or 'batch'")
    if isinstance(alpha, Sequence) and mode == "batch":
        raise UserError("focal loss: mode 'batch' sees no classes; give one alpha, or use mode 'pixel'")
    weight = (label != IGNORE) * (1.0 if weight is None else weight)
    factor = alpha
    if isinstance(factor, Sequence):
        factor = jnp.asarray(factor, jnp.float32)[jnp.where(label == IGNORE, 0, label).astype(jnp.int32)]

    def mix(entropy: jax.Array, factor: jax.Array | float) -> jax.Array:
        return (beta + (1 - beta) * factor * (-jnp.expm1(-entropy)) ** gamma) * entropy

    @jax.checkpoint
    def loss(logits: jax.Array) -> jax.Array:
        full = resize(logits.astype(jnp.float32), label.shape[1:], align_corners=align_corners)
        entropy = cross_entropy(full, label)
        if mode == "batch":
            return mix(masked_mean(entropy, weight, normalizer=normalizer), factor)
        return masked_mean(mix(entropy, factor), weight, normalizer=normalizer)

    return loss(logits) / (label.shape[0] if divide_by_batch else 1)


def soft_cross_entropy(
    logits: jax.Array, probabilities: jax.Array, weight: jax.Array | None = None, *, normalizer: str = "valid"
) -> jax.Array:
    """Cross-entropy to a teacher's distribution, after upsampling.

    Args:
        logits: [B, h, w, K]; upsampled bilinearly, half-pixel centers.
        probabilities: [B, H, W, K] of the teacher; no gradient flows into them.
        weight: [B, H, W] bool or float, or None for 1.
        normalizer: see `masked_mean`.

    Returns:
        Scalar float32.
    """
    probabilities = jax.lax.stop_gradient(probabilities.astype(jnp.float32))

    @jax.checkpoint
    def loss(logits: jax.Array) -> jax.Array:
        full = resize(logits.astype(jnp.float32), probabilities.shape[1:3], align_corners=False)
        entropy = -(probabilities * jax.nn.log_softmax(full)).sum(-1)
        return masked_mean(entropy, weight, normalizer=normalizer)

    return loss(logits)


def class_weighted_cross_entropy(
    logits: jax.Array, label: jax.Array, class_weight: jax.Array, *, normalizer: str = "weights"
) -> jax.Array:
    """Cross-entropy with a weight for each class, after upsampling with aligned corners.

    Source: DANNet ``train.py`` (torch's weighted cross-entropy) and arXiv 2104.10834 section 3.3.

    Args:
        logits: [B, h, w, K].
        label: [B, H, W], 255 = ignore.
        class_weight: [K], above 0.
        normalizer: ``"weights"`` of the labeled pixels (official code), their number times K
            (``"paper"``, about K times smaller), their number (``"valid"``) or ``"all"`` pixels.

    Returns:
        Scalar float32.
    """
    classes = logits.shape[-1]
    known = jnp.where(label == IGNORE, 0, label).astype(jnp.int32)
    weight = jnp.asarray(class_weight, jnp.float32)[known]
    options = {"normalizer": "valid" if normalizer == "paper" else normalizer, "align_corners": True}
    loss = pixel_weighted_cross_entropy(logits, label, weight, **options)
    return loss / classes if normalizer == "paper" else loss
