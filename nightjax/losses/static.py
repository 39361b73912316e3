# SPDX-License-Identifier: Apache-2.0
"""DANNet's static loss: a class-weighted focal loss of night images on the static classes."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nightjax.core.classes import lookup_table
from nightjax.core.errors import UserError
from nightjax.core.types import IGNORE
from nightjax.losses.segmentation import masked_mean

NEIGHBORHOODS = ("center", "3x3", "code")

_EPSILON = np.float32(1e-7)

_SHIFTS = ((-1, 0), (1, 0), (0, 1), (0, -1), (-1, 1), (1, 1), (1, -1), (-1, -1))
"""Rows and columns by which the official code moves the label map onto itself, in this order."""


def static_loss(
    logits: jax.Array,
    label: jax.Array,
    class_weight: jax.Array,
    *,
    static: Sequence[int] | None = None,
    gamma: float = 1.0,
    neighborhood: str = "center",
) -> jax.Array:
    """Mean of ``-(1 - p)^gamma log p`` over labeled pixels.

    ``p`` is the largest weighted probability among the classes that the label allows at a pixel.
    Source: arXiv 2104.10834 section 3.3, ``StaticLoss`` of ``network/loss.py``.

    Args:
        logits: [B, H, W, K] of night images. Only the channels of ``static`` count, and the softmax is over these.
        label: [B, H, W] pseudo-label, one of ``static``, or 255 = ignore.
        class_weight: [S]; a weighted probability is cut at 1.
        static: S train ids in increasing order; None for the first S.
        gamma: focal exponent.
        neighborhood: which classes a pixel allows. ``"center"``: its own label, what the official
            code comes down to. ``"3x3"``: the labels of its 3x3 window, the paper's form.
            ``"code"``: as "center", with the labels at the border moved as by the official code,
            whose neighbor maps are all one tensor; to compare with it.

    Returns:
        Scalar float32; 0 with zero gradient if no pixel is labeled (nan in the official code).

    Raises:
        UserError: for an unknown neighborhood.
    """
    if neighborhood not in NEIGHBORHOODS:
        raise UserError(f"static loss: unknown neighborhood '{neighborhood}'; use one of {', '.join(NEIGHBORHOODS)}")
    class_weight = jnp.asarray(class_weight, jnp.float32)
    classes = class_weight.shape[0]
    if static is None or tuple(static) == tuple(range(classes)):
        logits = logits[..., :classes]
    else:  # From here on a label is a position in ``static``.
        logits = logits[..., np.asarray(static)]
        label = jnp.asarray(lookup_table({train_id: i for i, train_id in enumerate(static)}))[label]
    weighted = jax.nn.softmax(logits.astype(jnp.float32)) * class_weight
    if neighborhood == "code":
        label = _shifted_onto_itself(label)
    label = label.astype(jnp.int32)
    if neighborhood == "3x3":
        allowed = _window_max(jax.nn.one_hot(label, classes, dtype=jnp.bfloat16))
        p = jnp.where(allowed > 0, weighted, 0.0).max(axis=-1)
    else:
        known = jnp.where(label == IGNORE, 0, label)
        p = jnp.take_along_axis(weighted, known[..., None], axis=-1)[..., 0]
    p = jnp.clip(p, _EPSILON, 1 - _EPSILON)
    return masked_mean(-((1.0 - p) ** gamma) * jnp.log(p), label != IGNORE, normalizer="valid")


def _window_max(x: jax.Array) -> jax.Array:
    """Maximum of each 3x3 window of [B, H, W, C]; what lies outside the image never wins."""
    return lax.reduce_window(x, -np.inf, lax.max, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")


def _shifted_onto_itself(label: jax.Array) -> jax.Array:
    """The label map after eight copies of a shifted part of itself; the interior is unchanged."""
    everything, head, tail = slice(None), slice(None, -1), slice(1, None)
    target = {-1: head, 0: everything, 1: tail}
    for rows, columns in _SHIFTS:
        moved = label[:, target[-rows], target[-columns]]
        label = label.at[:, target[rows], target[columns]].set(moved)
    return label
