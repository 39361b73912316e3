# SPDX-License-Identifier: Apache-2.0
"""The segmentation loss on labels and pseudo-labels."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from nightjax.core.ranges import Share
from nightjax.losses.segmentation import focal_mixture, pixel_weighted_cross_entropy
from nightjax.methods.parts.network import Outputs
from nightjax.models import hrda


@dataclasses.dataclass(frozen=True)
class FocalMixture:
    """Cross-entropy mixed with the focal loss; see `focal_mixture`.

    Attributes:
        beta: share of the cross-entropy.
        gamma: exponent of the focal loss.
        alpha: factor of the focal loss.
        mode: ``"pixel"``, or ``"batch"`` as the published program has it.
        divide_by_batch: divide once more by the batch size.
    """

    beta: Share = 0.5
    gamma: float = 2.0
    alpha: float = 0.5
    mode: Literal["pixel", "batch"] = "pixel"
    divide_by_batch: bool = False


@dataclasses.dataclass(frozen=True)
class SegmentationLoss:
    """Cross-entropy of the logits at the label's size.

    Attributes:
        class_weights: weight of each class in the loss on true labels, K numbers or a rule of `core.class_weights`;
            None for 1 (the papers' choice). Pseudo-labels are never weighted by class: it would multiply their
            mistakes.
        normalizer: average over ``"all"`` pixels, over the ``"valid"`` (labeled) ones, or by their ``"weights"``.
        focal: mix the cross-entropy with the focal loss, or None.
        detail: share of the detail window in the loss of HRDA; other networks have no such window.
        auxiliary: weight of an auxiliary classifier's loss in supervised training.
        unweighting: share of the class weights that is undone where the network predicts. Weights make rare classes
            likelier than they are; this share of a weight's logarithm is taken off its class's logits. Training, with
            the pseudo-labels that it makes, never sees it. NightLab's further stages have ``logit_adjustment``, all or
            nothing.
    """

    class_weights: tuple[float, ...] | None = None
    normalizer: Literal["all", "valid", "weights"] = "all"
    focal: FocalMixture | None = None
    detail: float = 0.1
    auxiliary: float = 0.4
    unweighting: Share = 0.0

    def label_weight(self, label: jax.Array) -> jax.Array | None:
        """Loss weight of true labels [B, H, W] by their class, or None for 1."""
        if self.class_weights is None:
            return None
        table = jnp.asarray((*self.class_weights, 0.0))  # The last is of ignored pixels.
        return table[jnp.minimum(label, len(self.class_weights))]

    def unweighted(self, logits: jax.Array) -> jax.Array:
        """Logits [..., K] of a trained network as they are predicted with; see ``unweighting``."""
        if self.class_weights is None or not self.unweighting:
            return logits
        weights = np.asarray(self.class_weights, np.float32)
        return logits - self.unweighting * np.log(np.where(weights > 0, weights, 1))

    def pixel_weight(self, label: jax.Array) -> jax.Array:
        """`label_weight` of true labels as an array, float32 [B, H, W]."""
        weight = self.label_weight(label)
        return jnp.ones(label.shape, jnp.float32) if weight is None else weight

    def __call__(self, outputs: Outputs, label: jax.Array, weight: jax.Array | None = None) -> jax.Array:
        """The loss; for HRDA also that of the detail window's own logits.

        Args:
            outputs: of a training pass.
            label: [B, H, W], 255 = ignore.
            weight: [B, H, W] float32 or None for 1.

        Returns:
            Scalar float32.
        """
        loss = self.of_logits(outputs["logits"], label, weight)
        if "hr_logits" not in outputs:
            return loss
        label, weight = hrda.detail_crops(outputs, label, weight)
        return (1 - self.detail) * loss + self.detail * self.of_logits(outputs["hr_logits"][:, 0], label, weight)

    def on_labels(self, outputs: Outputs, label: jax.Array) -> jax.Array:
        """The loss on true labels [B, H, W], weighted by class."""
        return self(outputs, label, self.label_weight(label))

    def of_logits(self, logits: jax.Array, label: jax.Array, weight: jax.Array | None) -> jax.Array:
        """The loss of logits [B, h, w, K] alone."""
        if self.focal is None:
            return pixel_weighted_cross_entropy(logits, label, weight, normalizer=self.normalizer)
        return focal_mixture(logits, label, weight, normalizer=self.normalizer, **dataclasses.asdict(self.focal))
