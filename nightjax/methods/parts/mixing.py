# SPDX-License-Identifier: Apache-2.0
"""Class mix: classes of the source are pasted onto the target."""

import dataclasses
from typing import Literal

import jax

from nightjax.core.classes import ClassSet
from nightjax.methods.parts.loss import SegmentationLoss
from nightjax.methods.parts.network import RandomKeys
from nightjax.methods.parts.photometric import Photometric
from nightjax.methods.parts.pseudo_labels import PseudoLabels, Targets
from nightjax.ops import mixing


@dataclasses.dataclass(frozen=True)
class ClassMix:
    """Mixed images, their labels and their loss weights.

    Attributes:
        mode: how the classes to paste are drawn; see `mixing.select_classes`.
        include_ignore: whether the ignore value may be drawn.
        weight: of the loss on mixed images; 0.8 for HRDA in DSR+FPA.
        photometric: strong augmentation of the mixed images, or None.
    """

    mode: Literal["object_groups", "dynsmall", "classmix", "dacs"] = "dacs"
    include_ignore: bool = True
    weight: float = 1.0
    photometric: Photometric | None = Photometric()

    def __call__(
        self,
        keys: RandomKeys,
        image: jax.Array,
        label: jax.Array,
        targets: Targets,
        pseudo_labels: PseudoLabels,
        loss: SegmentationLoss,
        classes: ClassSet,
    ) -> dict[str, jax.Array]:
        """Mixes.

        Args:
            keys: of the step's random streams.
            image: [B, H, W, 3] source images in [0, 1], not augmented.
            label: [B, H, W] source labels.
            targets: the target images and their pseudo-labels.
            pseudo_labels: which of their rows have no weight.
            loss: which class weights the pasted pixels have.
            classes: of the labels.

        Returns:
            ``mixed`` [B, H, W, 3], ``mixed_label`` [B, H, W] and ``mixed_weight`` [B, H, W] float32.
        """
        selected = mixing.select_classes(
            keys("classes"), label, classes=classes, mode=self.mode, include_ignore=self.include_ignore
        )
        mask = mixing.class_mask(label, selected)
        mixed = mixing.mix(mask, image, targets.image)
        if self.photometric is not None:
            mixed = self.photometric(mixed, keys("photometric"))
        weight = mixing.mix(mask, loss.pixel_weight(label), pseudo_labels.pixel_weight(targets))
        return {"mixed": mixed, "mixed_label": mixing.mix(mask, label, targets.label), "mixed_weight": weight}
