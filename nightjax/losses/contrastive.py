# SPDX-License-Identifier: Apache-2.0
"""Feature prototype alignment (FPA, DSR section 3.3).

Pixels of one domain are classified by the class prototypes of another, and the reverse.
"""

import jax
import jax.numpy as jnp
import numpy as np

from nightjax.core.class_weights import class_weights
from nightjax.core.classes import CITYSCAPES, ClassSet
from nightjax.core.errors import UserError
from nightjax.ops.prototypes import cell_label_counts, class_prototypes, cosine_to_prototypes
from nightjax.ops.resize import resize_nearest

FPA_WEIGHTS = ("overlap", "ds_inv", "dannet")


def prototype_alignment(
    features_a: jax.Array,
    label_a: jax.Array,
    features_b: jax.Array,
    label_b: jax.Array,
    *,
    temperature: float = 0.1,
    weight: float = 0.1,
    class_weight: str = "overlap",
    pixel_share: np.ndarray | None = None,
    zero_is_absent: bool = False,
    classes: ClassSet = CITYSCAPES,
) -> jax.Array:
    """Both directions of FPA between image i of ``a`` and image i of ``b``.

    Source: DSR ``metric_loss``. Each full-size label pixel is classified by the cosine of its
    feature cell to the other image's class prototypes. Only classes that occur in both images at
    the feature grid count. Since all pixels of a cell share a feature, the loss is summed per cell
    with label counts, which equals the full-size sum.

    Args:
        features_a: [B, h, w, C]; gradients flow unless the caller stops them.
        label_a: [B, H, W] train ids, 255 = ignore.
        features_b: [B, h', w', C].
        label_b: [B, H', W'].
        temperature: divides the cosines.
        weight: of each direction.
        class_weight: ``"overlap"``, 1 for shared classes (official code); ``"ds_inv"``, shared
            dynamic and small classes weigh by the root of their inverse pixel count, clipped to
            [1, 5]; ``"dannet"``, fixed weights by ``pixel_share``. The last two are our
            readings of the paper's adaptive re-weighting.
        pixel_share: [K] share of each class in the source data, for ``"dannet"``.
        zero_is_absent: the official code treats a cosine of exactly 0 as an absent class; True does
            so too.
        classes: of the labels.

    Returns:
        [B] float32; 0 with zero gradient for images without a shared class.

    Raises:
        UserError: for an unknown ``class_weight`` or a missing ``pixel_share``.
    """
    prototypes_a, cells_a = class_prototypes(features_a, resize_nearest(label_a, features_a.shape[1:3]), len(classes))
    prototypes_b, cells_b = class_prototypes(features_b, resize_nearest(label_b, features_b.shape[1:3]), len(classes))
    counts_a = cell_label_counts(label_a, features_a.shape[1:3], len(classes))
    counts_b = cell_label_counts(label_b, features_b.shape[1:3], len(classes))
    shared = (cells_a > 0) & (cells_b > 0)
    pixels = counts_a.sum(axis=(1, 2)) + counts_b.sum(axis=(1, 2))
    per_class = _class_weights(class_weight, shared, pixels, pixel_share, classes)

    def direction(prototypes: jax.Array, present: jax.Array, features: jax.Array, counts: jax.Array) -> jax.Array:
        cosine = cosine_to_prototypes(features, prototypes)
        known = jnp.broadcast_to(present[:, None, None], cosine.shape)
        if zero_is_absent:
            known = known & (cosine != 0)
        logits = jnp.where(known, cosine, -1.0) / temperature
        loss = -jax.nn.log_softmax(logits)
        importance = counts * per_class[:, None, None]
        total = importance.sum(axis=(1, 2, 3))
        return (importance * loss).sum(axis=(1, 2, 3)) / jnp.where(total > 0, total, 1.0)

    a_to_b = direction(prototypes_a, cells_a > 0, features_b, counts_b)
    b_to_a = direction(prototypes_b, cells_b > 0, features_a, counts_a)
    return weight * (a_to_b + b_to_a)


def _class_weights(
    rule: str, shared: jax.Array, pixels: jax.Array, pixel_share: np.ndarray | None, classes: ClassSet
) -> jax.Array:
    """Weight of each class [B, K], 0 outside the shared classes."""
    if rule == "overlap":
        weight = jnp.ones(shared.shape, jnp.float32)
    elif rule == "ds_inv":
        count = pixels.astype(jnp.float32)
        mean = (count * shared).sum(axis=1, keepdims=True) / jnp.maximum(shared.sum(axis=1, keepdims=True), 1)
        inverse = jnp.clip(jnp.sqrt(mean / jnp.maximum(count, 1.0)), 1.0, 5.0)
        weight = jnp.where(np.isin(np.arange(len(classes)), classes.group("small", "dynamic")), inverse, 1.0)
    elif rule == "dannet":
        if pixel_share is None:
            raise UserError("fpa_class_weight 'dannet' needs the pixel share of each class; pass pixel_share")
        weight = jnp.asarray(class_weights(pixel_share, std=0.05), jnp.float32)
    else:
        raise UserError(f"fpa_class_weight '{rule}' is unknown; use one of {', '.join(FPA_WEIGHTS)}")
    return jnp.where(shared, weight, 0.0)


def fpa_loss(
    source: tuple[jax.Array, jax.Array],
    night: tuple[jax.Array, jax.Array],
    mixed: tuple[jax.Array, jax.Array],
    *,
    mixed_weight: float = 0.1,
    **options,
) -> jax.Array:
    """FPA of source with night, which gets no gradient, plus that of source with mixed images.

    Args:
        source: features [B, h, w, C] and labels [B, H, W].
        night: features and pseudo-labels of the night images.
        mixed: features and labels of the mixed images.
        mixed_weight: 0.1, or 0.01 in HRDA mode.
        **options: of ``prototype_alignment``.

    Returns:
        Scalar float32, ``mean(l(source, night)) + mixed_weight * mean(l(source, mixed))``.
    """
    to_night = prototype_alignment(*source, jax.lax.stop_gradient(night[0]), night[1], **options)
    to_mixed = prototype_alignment(*source, *mixed, **options)
    return to_night.mean() + mixed_weight * to_mixed.mean()
