# SPDX-License-Identifier: Apache-2.0
"""Pseudo-labels of target images and their weight in the loss."""

import dataclasses
from typing import Literal, NamedTuple

import jax

from nightjax.core.ranges import Share
from nightjax.ops import pseudo_label


class Targets(NamedTuple):
    """What the teacher says about the target images.

    Attributes:
        image: [B, H, W, 3] float32 in [0, 1], the images to paste onto.
        label: [B, H, W] uint8, the likeliest class of every pixel.
        confidence: [B, H, W] float32, its score.
        weight: [B] float32, loss weight of the pseudo-labels.
    """

    image: jax.Array
    label: jax.Array
    confidence: jax.Array
    weight: jax.Array


@dataclasses.dataclass(frozen=True)
class PseudoLabels:
    """How the teacher's scores become labels.

    Attributes:
        threshold: confidence from which a pixel counts into the weight of the pseudo-labels.
        weight_scope: one weight for the ``"batch"`` (official code) or one for each ``"image"``; see
            `pseudo_label.confident_fraction`.
        ignore_top, ignore_bottom: rows whose pseudo-label gets no weight.
        flip: label by the mean of the teacher's probabilities on an image and on its mirror image, which costs a second
            pass of the teacher; see `pseudo_label.flip_averaged`.
    """

    threshold: Share = 0.968
    weight_scope: Literal["batch", "image"] = "batch"
    ignore_top: int = 0
    ignore_bottom: int = 0
    flip: bool = False

    def __call__(self, image: jax.Array, scores: jax.Array) -> Targets:
        """Labels of images [B, H, W, 3] by class scores [B, H, W, K]."""
        label, confidence = pseudo_label.pseudo_label(scores)
        weight = pseudo_label.confident_fraction(confidence, self.threshold, scope=self.weight_scope)
        return Targets(image, label, confidence, weight)

    def pixel_weight(self, targets: Targets) -> jax.Array:
        """Loss weight of every pixel's pseudo-label, float32 [B, H, W]: that of its image, 0 in the ignored rows."""
        size = targets.label.shape[1:]
        return pseudo_label.pixel_weight(targets.weight, size, self.ignore_top, self.ignore_bottom)
