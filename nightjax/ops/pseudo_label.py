# SPDX-License-Identifier: Apache-2.0
"""Pseudo-labels of a night image: refinement by the aligned day prediction, confidence, trust."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from nightjax.core.classes import CITYSCAPES
from nightjax.core.errors import UserError
from nightjax.core.types import IGNORE, Size


def normalized_entropy(probs: jax.Array) -> jax.Array:
    """Entropy of ``probs`` [..., K] over its last axis by log K: 0 for one-hot, 1 for uniform."""
    probs = probs.astype(jnp.float32)
    return jax.scipy.special.entr(probs).sum(axis=-1) / np.log(probs.shape[-1])


def refine(
    logits_night: jax.Array,
    logits_day: jax.Array,
    confidence: jax.Array | None = None,
    valid: jax.Array | None = None,
    *,
    gamma: float = 0.25,
    use_static_mask: bool = True,
    static_classes: Sequence[int] = CITYSCAPES.group("static"),
) -> jax.Array:
    """Holistic refinement: mixes the night prediction with the day prediction warped onto it.

    ``(1 - e_k) * p_k + e_k * r_k`` with ``e_k = s * max(P, M_k)``: ``s`` is the image's mean
    normalized night entropy to the power ``gamma``, ``P`` the confidence of the alignment, ``M_k``
    is 1 for static classes where both predictions are static. Source: DSR section 3.2.2, ``refine``
    (Refign's adaptive label correction).

    Args:
        logits_night: [B, H, W, K].
        logits_day: [B, H, W, K], already warped onto the night view.
        confidence: [B, H, W] in [0, 1], probability that the alignment is right; None for 0.5
            everywhere.
        valid: [B, H, W] bool, False where the warp left the day image; None for valid everywhere.
        gamma: exponent of the trust in the day view.
        use_static_mask: False drops ``M``.
        static_classes: the classes of ``M``: large static ones, where the day view may overrule the night prediction.

    Returns:
        [B, H, W, K] float32 in [0, 1]. Channels are weighted differently, so they do not sum to 1.
    """
    night = jax.nn.softmax(logits_night.astype(jnp.float32))
    day = jax.nn.softmax(logits_day.astype(jnp.float32))
    trust = normalized_entropy(night).mean(axis=(1, 2), keepdims=True) ** gamma

    weight = jnp.full(night.shape[:3], 0.5) if confidence is None else confidence.astype(jnp.float32)
    weight = weight[..., None]
    if use_static_mask:
        is_static = np.isin(np.arange(night.shape[-1]), static_classes)
        both = _is_in(night.argmax(-1), static_classes) & _is_in(day.argmax(-1), static_classes)
        weight = jnp.maximum(weight, (both[..., None] & is_static).astype(jnp.float32))
    weight = trust[..., None] * weight
    if valid is not None:
        weight = jnp.where(valid[..., None], weight, 0.0)
    return (1.0 - weight) * night + weight * day


def _is_in(label: jax.Array, classes: Sequence[int]) -> jax.Array:
    """Whether each label is one of a few ids, without a gather."""
    return sum((label == c for c in classes), start=jnp.zeros(label.shape, bool))


def pseudo_label(probs: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The likeliest class of [B, H, W, K] scores (uint8, ties to the smaller id) and its score."""
    return probs.argmax(axis=-1).astype(jnp.uint8), probs.max(axis=-1).astype(jnp.float32)


def confident_fraction(confidence: jax.Array, threshold: float = 0.968, *, scope: str = "batch") -> jax.Array:
    """Fraction of pixels whose confidence reaches the threshold, the weight of pseudo-labels in DACS.

    Args:
        confidence: [B, H, W] float32.
        threshold: a pixel exactly on it counts.
        scope: ``"batch"``, one fraction for the whole batch (official code; its meaning depends on the batch size),
            or ``"image"``, one for each image.

    Returns:
        [B] float32.

    Raises:
        UserError: for an unknown scope.
    """
    if scope not in ("batch", "image"):
        raise UserError(f"confident_fraction: unknown scope '{scope}'; use 'batch' or 'image'")
    confident = (confidence >= np.float32(threshold)).astype(jnp.float32)
    fraction = confident.mean(axis=(1, 2))
    return jnp.broadcast_to(fraction.mean(), fraction.shape) if scope == "batch" else fraction


def pixel_weight(weight: jax.Array, size: Size, ignore_top: int = 0, ignore_bottom: int = 0) -> jax.Array:
    """Loss weight of every pixel's pseudo-label.

    Args:
        weight: [B] float32, that of each image, see `confident_fraction`.
        size: (H, W) of the images.
        ignore_top, ignore_bottom: first and last rows, whose pseudo-labels have no weight.

    Returns:
        [B, H, W] float32.
    """
    row = np.arange(size[0])
    kept = ((row >= ignore_top) & (row < size[0] - ignore_bottom)).astype(np.float32)
    return jnp.broadcast_to(weight[:, None, None] * kept[:, None], (len(weight), *size))


def flip_averaged(logits: jax.Array, mirrored: jax.Array) -> jax.Array:
    """Logits of the mean probability of an image and its mirror image.

    Source: VFM-UDA (arXiv 2406.09896), whose teacher labels the target that way.

    Args:
        logits: [B, H, W, K] of the images.
        mirrored: [B, H, W, K] of the images mirrored left to right, mirrored back.

    Returns:
        [B, H, W, K] float32, the logarithm of the mean.
    """
    two = [jax.nn.log_softmax(x.astype(jnp.float32)) for x in (logits, mirrored)]
    return jnp.logaddexp(*two) - np.log(2.0)


def blend_day_night(
    logits_day: jax.Array,
    logits_night: jax.Array,
    class_weight: jax.Array,
    *,
    static: Sequence[int] = CITYSCAPES.outside("dynamic"),
    threshold: float = 0.4,
    trust: float = 0.8,
) -> jax.Array:
    """Class scores of a night image from its own logits and those of the coarsely aligned day.

    For the static classes ``w * (a * day + (1 - a) * night)``, with ``a = trust`` where the day
    logit is above the threshold and ``1 - trust`` elsewhere; for the others ``w * night``. Source:
    DANNet ``train.py``; logits, not probabilities, are weighted there.

    Args:
        logits_day: [B, H, W, K].
        logits_night: [B, H, W, K].
        class_weight: [K], see ``losses.segmentation.class_weights``.
        static: train ids of the static classes.
        threshold: of the day logit; a logit exactly on it is not above.
        trust: in the sure one of the two predictions.

    Returns:
        [B, H, W, K] float32.
    """
    day, night = logits_day.astype(jnp.float32), logits_night.astype(jnp.float32)
    day_weight = jnp.where(day > threshold, trust, 1.0 - trust)
    is_static = np.isin(np.arange(day.shape[-1]), static)
    blend = jnp.where(is_static, day_weight * day + (1.0 - day_weight) * night, night)
    return jnp.asarray(class_weight, jnp.float32) * blend


def static_pseudo_label(
    logits_day: jax.Array,
    logits_night: jax.Array,
    class_weight: jax.Array,
    *,
    form: str = "official",
    static: Sequence[int] = CITYSCAPES.outside("dynamic"),
) -> jax.Array:
    """DANNet's pseudo-label of a night image, of static classes only; no gradient.

    Args:
        logits_day: [B, H, W, K].
        logits_night: [B, H, W, K].
        class_weight: [K].
        form: ``"official"``, the likeliest class of ``blend_day_night``; ``"paper"``, of the
            weighted day probabilities alone (arXiv 2104.10834 section 3.3).
        static: train ids of the static classes.

    Returns:
        [B, H, W] uint8, 255 where another class wins.

    Raises:
        UserError: for an unknown form.
    """
    if form == "official":
        scores = blend_day_night(logits_day, logits_night, class_weight, static=static)
    elif form == "paper":
        scores = jax.nn.softmax(logits_day.astype(jnp.float32)) * class_weight
    else:
        raise UserError(f"static_pseudo_label: unknown form '{form}'; use 'official' or 'paper'")
    label = scores.argmax(axis=-1)
    return jnp.where(_is_in(label, static), label, IGNORE).astype(jnp.uint8)
