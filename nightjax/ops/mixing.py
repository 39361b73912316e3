# SPDX-License-Identifier: Apache-2.0
"""Class-aware mixing of a source and a target image: which classes, the mask, the paste.

A selection of classes is bool [B, K + 1]: one slot for each train id and a last one for the ignore value. Drawing is
kept apart from what is determined by the draw, so that the latter can be compared with recorded draws.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from nightjax.core.classes import CITYSCAPES, ClassSet
from nightjax.core.errors import UserError

WORD = 32
"""Slots in one integer of a bit mask."""

MASK_MODES = ("object_groups", "dynsmall", "classmix", "dacs")


def _slot(label: jax.Array, num_classes: int) -> jax.Array:
    """Slot of each label in a selection: its train id, or the last slot for 255."""
    return jnp.minimum(label.astype(jnp.int32), num_classes)


def present_classes(
    label: jax.Array, *, num_classes: int = len(CITYSCAPES), scope: str = "image", include_ignore: bool = True
) -> jax.Array:
    """Classes that occur in each label map.

    Args:
        label: [B, H, W] train ids, 255 = ignore.
        num_classes: K.
        scope: ``"image"``, or ``"batch"`` for the classes of the whole batch in every row
            (DAFormer's DACS).
        include_ignore: whether the ignore value counts as a class (it does in the official code).

    Returns:
        Bool [B, K + 1].
    """
    slot, words = _slot(label, num_classes), []
    for first in range(0, num_classes + 1, WORD):
        # One bit per slot, or-ed over the pixels: one pass a word, nothing of size pixels x classes.
        bits = jax.lax.reduce(_bit(slot, first, num_classes), np.int32(0), jax.lax.bitwise_or, (1, 2))
        words.append((bits[:, None] >> np.arange(min(WORD, num_classes + 1 - first))) & 1 == 1)
    present = words[0] if len(words) == 1 else jnp.concatenate(words, axis=1)
    if scope == "batch":
        present = jnp.broadcast_to(present.any(axis=0), present.shape)
    return present if include_ignore else present.at[:, num_classes].set(False)


def _bit(slot: jax.Array, first: int, num_classes: int) -> jax.Array:
    """int32 with the bit of each slot in the word that begins at slot ``first``; 0 for slots of other words."""
    if num_classes < WORD:
        return 1 << slot
    place = slot - first
    return jnp.where((place >= 0) & (place < WORD), 1 << (place & (WORD - 1)), 0)


def draw_classes(key: jax.Array, present: jax.Array) -> jax.Array:
    """Draws half (rounded up) of the present classes of each image without replacement, bool [B, K + 1]."""
    order = jnp.where(present, jax.random.uniform(key, present.shape), 2.0)
    rank = jnp.argsort(jnp.argsort(order, axis=1), axis=1)
    half = (present.sum(axis=1, keepdims=True) + 1) // 2
    return rank < half


def add_object_groups(selected: jax.Array, present: jax.Array, classes: ClassSet = CITYSCAPES) -> jax.Array:
    """Adds the present classes that form one object with a selected one, its ``companions``, pair by pair.

    Of Cityscapes' classes light or sign brings the pole, the pole brings both, and a rider brings bicycle and
    motorcycle (not the reverse). Source: DSR ``get_dynamic_masks``.

    Args:
        selected: bool [B, K + 1], a subset of ``present``.
        present: bool [B, K + 1].
        classes: of the labels.

    Returns:
        Bool [B, K + 1].
    """
    for causes, added in classes.companions:
        caused = selected[:, np.array(causes)].any(axis=1, keepdims=True)
        members = np.isin(np.arange(len(classes) + 1), added)
        selected = selected | (caused & members & present)
    return selected


def select_classes(
    key: jax.Array,
    label: jax.Array,
    *,
    classes: ClassSet = CITYSCAPES,
    mode: str = "object_groups",
    include_ignore: bool = True,
) -> jax.Array:
    """Draws the classes to paste from each source image.

    Args:
        key: random key.
        label: [B, H, W] source labels.
        classes: of the labels.
        mode: ``"object_groups"``, half of the image's classes and their objects (DSR, official code);
            ``"dynsmall"``, the same after adding every dynamic and small class; ``"classmix"``,
            half of the image's classes; ``"dacs"``, half of the *batch's* classes (DAFormer).
        include_ignore: whether the ignore value may be drawn.

    Returns:
        Bool [B, K + 1].

    Raises:
        UserError: for an unknown mode.
    """
    if mode not in MASK_MODES:
        raise UserError(f"mask mode '{mode}' is unknown; use one of {', '.join(MASK_MODES)}")
    scope = "batch" if mode == "dacs" else "image"
    present = present_classes(label, num_classes=len(classes), scope=scope, include_ignore=include_ignore)
    selected = draw_classes(key, present)
    if mode == "dynsmall":
        selected = selected | (present & np.isin(np.arange(len(classes) + 1), classes.group("small", "dynamic")))
    return add_object_groups(selected, present, classes) if mode in ("object_groups", "dynsmall") else selected


def class_mask(label: jax.Array, selected: jax.Array) -> jax.Array:
    """Bool [B, H, W], True where the label [B, H, W] belongs to its image's selection [B, K + 1]."""
    num_classes = selected.shape[1] - 1
    slot, masks = _slot(label, num_classes), []
    for first in range(0, num_classes + 1, WORD):
        part = selected[:, first : first + WORD].astype(jnp.int32)
        bits = (part << np.arange(part.shape[1])).sum(axis=1)
        masks.append(bits[:, None, None] & _bit(slot, first, num_classes) != 0)
    return functools.reduce(jnp.logical_or, masks)


def mix(mask: jax.Array, source: jax.Array, target: jax.Array) -> jax.Array:
    """Source where ``mask`` [B, H, W] is True, else target; both [B, H, W] or [B, H, W, C]."""
    return jnp.where(mask.reshape(mask.shape + (1,) * (source.ndim - 3)), source, target)
