# SPDX-License-Identifier: Apache-2.0
"""The rare-class bank: rare objects of the last source batches are pasted on mixed images (DSR, section 3.2.1)."""

import dataclasses
from typing import Literal

import jax

from nightjax.core.errors import UserError
from nightjax.core.state import TrainState
from nightjax.methods.parts.loss import SegmentationLoss
from nightjax.methods.parts.network import SegmentationNetwork
from nightjax.ops import bank as banks


@dataclasses.dataclass(frozen=True)
class RareClassBank:
    """What is remembered and how often it is pasted.

    Attributes:
        size: batches remembered, the present one included.
        every: steps between pastes. Counted over the run; the official program begins anew each epoch.
        classes: train ids pasted; None for the class set's group ``"rare"``.
        pasted_weight: loss weight of pasted pixels: ``"keep"`` that of the pixel they cover (official code), or
            ``"one"``. With ``loss.class_weights`` it is that of their own class, as of all true labels.
    """

    size: int = 3
    every: int = 5
    classes: tuple[int, ...] | None = None
    pasted_weight: Literal["keep", "one"] = "keep"

    def __post_init__(self):
        for name in ("size", "every"):
            if getattr(self, name) < 1:
                raise UserError(f"method.bank.{name}={getattr(self, name)} must be 1 or more")

    def init(self, image: jax.Array) -> banks.PasteBank:
        """The empty bank for source batches like ``image`` [B, H, W, 3] uint8."""
        return banks.empty_bank(image, size=self.size)

    def __call__(
        self,
        state: TrainState,
        image: jax.Array,
        label: jax.Array,
        mixed: dict[str, jax.Array],
        network: SegmentationNetwork,
        loss: SegmentationLoss,
    ) -> tuple[dict[str, jax.Array], banks.PasteBank]:
        """Pushes the source batch and, at every ``every``-th step, pastes.

        Args:
            state: before the step.
            image, label: of the source, uint8, not augmented.
            mixed: of `ClassMix`; the bank's objects go on top of the augmented images.
            network: whose input decodes the bank's images, and whose classes the labels are of.
            loss: which class weights the pasted pixels have.

        Returns:
            The mixed images, labels and weights, and the new bank.
        """
        bank = banks.push(state.memory["bank"], image, label)
        decoded = bank.replace(image=jax.vmap(network.input.decode)(bank.image))
        pasted = banks.paste(
            decoded,
            mixed["mixed"],
            mixed["mixed_label"],
            mixed["mixed_weight"],
            enabled=state.step % self.every == 0,
            classes=network.classes.group("rare") if self.classes is None else self.classes,
            pasted_weight=self.pasted_weight,
            class_weight=loss.label_weight(bank.label),
        )
        return dict(zip(("mixed", "mixed_label", "mixed_weight"), pasted, strict=True)), bank
