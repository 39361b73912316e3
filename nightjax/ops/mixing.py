"""Class-aware mixing of a source and a target image: which classes, the mask, the paste.

Class sets are bool [B, 20]: one slot per train id and a last one for the ignore value. Drawing is
kept apart from what is determined by the draw, so that the latter can be compared with recorded
draws.
"""

import jax
import jax.numpy as jnp
import numpy as np

from nightjax.core.classes import CITYSCAPES
from nightjax.core.errors import UserError
from nightjax.core.types import NUM_CLASSES

IGNORE_SLOT = NUM_CLASSES
"""Slot of the ignore value in a class set."""

DYNAMIC_SMALL_CLASSES = CITYSCAPES.group("small", "dynamic")
"""Train ids of small (pole, light, sign) and dynamic (person to bicycle) classes."""

MASK_MODES = ("object_groups", "dynsmall", "classmix", "dacs")


def _slot(label: jax.Array) -> jax.Array:
    """Class-set slot of each label: its train id, or the last slot for 255."""
    return jnp.minimum(label.astype(jnp.int32), IGNORE_SLOT)


def present_classes(label: jax.Array, *, scope: str = "image", include_ignore: bool = True) -> jax.Array:
    """Classes that occur in each label map.

    Args:
        label: [B, H, W] train ids, 255 = ignore.
        scope: ``"image"``, or ``"batch"`` for the classes of the whole batch in every row
            (DAFormer's DACS).
        include_ignore: whether the ignore value counts as a class (it does in the official code).

    Returns:
        Bool [B, 20].
    """
    # One bit per slot, or-ed over the pixels: one pass, nothing of size pixels x classes.
    bits = jax.lax.reduce(1 << _slot(label), np.int32(0), jax.lax.bitwise_or, (1, 2))
    present = (bits[:, None] >> np.arange(NUM_CLASSES + 1)) & 1 == 1
    if scope == "batch":
        present = jnp.broadcast_to(present.any(axis=0), present.shape)
    return present if include_ignore else present.at[:, IGNORE_SLOT].set(False)


def draw_classes(key: jax.Array, present: jax.Array) -> jax.Array:
    """Draws half (rounded up) of the present classes of each image without replacement, [B, 20]."""
    order = jnp.where(present, jax.random.uniform(key, present.shape), 2.0)
    rank = jnp.argsort(jnp.argsort(order, axis=1), axis=1)
    half = (present.sum(axis=1, keepdims=True) + 1) // 2
    return rank < half


def add_object_groups(selected: jax.Array, present: jax.Array) -> jax.Array:
    """Adds the present classes that form one object with a selected one.

    Light or sign brings the pole, the pole brings both, and a rider brings bicycle and motorcycle
    (not the reverse). Source: DSR ``get_dynamic_masks``.

    Args:
        selected: bool [B, 20], a subset of ``present``.
        present: bool [B, 20].

    Returns:
        Bool [B, 20].
    """
    pole, light, sign, rider, motorcycle, bicycle = 5, 6, 7, 12, 17, 18
    for causes, added in (
        ((light, sign), (pole,)),
        ((pole,), (light, sign)),
        ((rider,), (motorcycle, bicycle)),
    ):
        caused = selected[:, np.array(causes)].any(axis=1, keepdims=True)
        members = np.isin(np.arange(NUM_CLASSES + 1), added)
        selected = selected | (caused & members & present)
    return selected


def select_classes(
    key: jax.Array, label: jax.Array, *, mode: str = "object_groups", include_ignore: bool = True
) -> jax.Array:
    """Draws the classes to paste from each source image.

    Args:
        key: random key.
        label: [B, H, W] source labels.
        mode: ``"object_groups"``, half of the image's classes and their objects (DSR, official code);
            ``"dynsmall"``, the same after adding every dynamic and small class; ``"classmix"``,
            half of the image's classes; ``"dacs"``, half of the *batch's* classes (DAFormer).
        include_ignore: whether the ignore value may be drawn.

    Returns:
        Bool [B, 20].

    Raises:
        UserError: for an unknown mode.
    """
    if mode not in MASK_MODES:
        raise UserError(f"mask mode '{mode}' is unknown; use one of {', '.join(MASK_MODES)}")
    scope = "batch" if mode == "dacs" else "image"
    present = present_classes(label, scope=scope, include_ignore=include_ignore)
    selected = draw_classes(key, present)
    if mode == "dynsmall":
        selected = selected | (present & np.isin(np.arange(NUM_CLASSES + 1), DYNAMIC_SMALL_CLASSES))
    return add_object_groups(selected, present) if mode in ("object_groups", "dynsmall") else selected


def class_mask(label: jax.Array, selected: jax.Array) -> jax.Array:
    """Bool [B, H, W], True where the label [B, H, W] belongs to its image's class set [B, 20]."""
    bits = (selected.astype(jnp.int32) << np.arange(NUM_CLASSES + 1)).sum(axis=1)
    return (bits[:, None, None] >> _slot(label)) & 1 == 1


def mix(mask: jax.Array, source: jax.Array, target: jax.Array) -> jax.Array:
    """Source where ``mask`` [B, H, W] is True, else target; both [B, H, W] or [B, H, W, C]."""
    return jnp.where(mask.reshape(mask.shape + (1,) * (source.ndim - 3)), source, target)


def mixed_weight(
    mask: jax.Array, pseudo_weight: jax.Array, *, ignore_top: int = 0, ignore_bottom: int = 0
) -> jax.Array:
    """Loss weight of a mixed image: 1 on pasted source pixels, the pseudo-label weight elsewhere.

    Args:
        mask: [B, H, W] bool.
        pseudo_weight: [B] float32, weight of each target image's pseudo-label (``pseudo_label.confident_fraction``).
        ignore_top: rows at the top whose pseudo-label gets weight 0 (source pixels there keep 1).
        ignore_bottom: the same at the bottom.

    Returns:
        [B, H, W] float32.
    """
    row = np.arange(mask.shape[1])
    kept = ((row >= ignore_top) & (row < mask.shape[1] - ignore_bottom)).astype(np.float32)
    return jnp.where(mask, 1.0, pseudo_weight[:, None, None] * kept[:, None])
