# SPDX-License-Identifier: Apache-2.0
"""Memory of the last source batches, whose rare classes are pasted on mixed images (DSR 3.2.1)."""

import jax
import jax.numpy as jnp

from nightjax.core.classes import CITYSCAPES
from nightjax.core.errors import UserError
from nightjax.core.state import ExampleBuffer


class PasteBank(ExampleBuffer):
    """First-in first-out memory of N batches, oldest first.

    Under data parallelism shard axis 1 like the batch; a replicated bank would gather every push.

    Attributes:
        image: [N, B, H, W, 3], in the dtype it was created with (uint8 is a quarter of float32's
            size).
        label: [N, B, H, W] uint8.
        valid: bool [N], False for entries not filled yet.
    """

    image: jax.Array
    label: jax.Array
    valid: jax.Array


def empty_bank(image: jax.Array, *, size: int = 3) -> PasteBank:
    """A bank of ``size`` empty entries for batches shaped and typed like ``image`` [B, H, W, 3]."""
    return PasteBank(
        image=jnp.zeros((size, *image.shape), image.dtype),
        label=jnp.zeros((size, *image.shape[:3]), jnp.uint8),
        valid=jnp.zeros((size,), bool),
    )


def push(bank: PasteBank, image: jax.Array, label: jax.Array) -> PasteBank:
    """Drops the oldest entry and appends the un-augmented source images and labels of one batch."""

    def append(entries: jax.Array, new: jax.Array) -> jax.Array:
        return jnp.concatenate([entries[1:], new.astype(entries.dtype)[None]])

    return PasteBank(append(bank.image, image), append(bank.label, label), append(bank.valid, jnp.array(True)))


def paste(
    bank: PasteBank,
    image: jax.Array,
    label: jax.Array,
    weight: jax.Array,
    *,
    enabled: jax.Array | bool = True,
    classes: tuple[int, ...] = CITYSCAPES.group("rare"),
    pasted_weight: str = "keep",
    class_weight: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Pastes the rare classes of every entry, oldest first: the newest wins overlaps.

    Args:
        bank: its images in the value range of ``image``: normalize them with
            ``bank.replace(image=...)`` if the bank holds uint8.
        image: [B, H, W, 3] mixed images, after augmentation.
        label: [B, H, W] mixed labels.
        weight: [B, H, W] float32 loss weights.
        enabled: scalar bool, traced or not; False returns the inputs.
        classes: train ids to paste, a class set's group ``"rare"``.
        pasted_weight: ``"keep"`` leaves the weight of pasted pixels (official code), ``"one"`` sets
            it to 1.
        class_weight: [N, B, H, W] float32, weight of the bank's pixels by their class, which pasted pixels have then
            whatever ``pasted_weight`` says; None without class weights (official code).

    Returns:
        The new image, label and weight.

    Raises:
        UserError: for an unknown ``pasted_weight``.
    """
    if pasted_weight not in ("keep", "one"):
        raise UserError(f"bank: unknown weight rule '{pasted_weight}' for pasted pixels; use 'keep' or 'one'")
    for entry in range(bank.image.shape[0]):
        pasted = tail_mask(bank.label[entry], classes) & bank.valid[entry] & enabled
        image = jnp.where(pasted[..., None], bank.image[entry].astype(image.dtype), image)
        label = jnp.where(pasted, bank.label[entry].astype(label.dtype), label)
        if class_weight is not None:
            weight = jnp.where(pasted, class_weight[entry], weight)
        elif pasted_weight == "one":
            weight = jnp.where(pasted, 1.0, weight)
    return image, label, weight


def tail_mask(label: jax.Array, classes: tuple[int, ...]) -> jax.Array:
    """Bool, True where ``label`` is one of ``classes``."""
    return sum((label == c for c in classes), start=jnp.zeros(label.shape, bool))
