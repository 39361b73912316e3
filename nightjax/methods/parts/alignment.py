# SPDX-License-Identifier: Apache-2.0
"""Feature prototype alignment: pixels are pulled to the class prototypes of the other domain (DSR+FPA, section 3.3)."""

import dataclasses
from collections.abc import Callable
from typing import Literal

import jax
import numpy as np

from nightjax.core.classes import ClassSet
from nightjax.core.ranges import Count
from nightjax.core.step import from_step
from nightjax.core.types import PyTree
from nightjax.losses.contrastive import fpa_loss


@dataclasses.dataclass(frozen=True)
class PrototypeAlignment:
    """Settings of FPA.

    Attributes:
        start_step: first step with FPA; the night pass is not computed before.
        weight: of each direction.
        mixed_weight: factor of the (source, mixed) pair; 0.01 with HRDA.
        class_weight: ``"overlap"`` (official code), ``"ds_inv"`` or ``"dannet"``; see DSR-4 in docs/fidelity.md.
        pixel_share: of each class in the source, for ``"dannet"``; None for that of the class set.
        every: steps from one with FPA to the next (ours); the night pass is computed at these steps alone.
        level: which of the backbone's features are aligned; the paper's are the last.
    """

    start_step: int = 9664
    weight: float = 0.1
    mixed_weight: float = 0.1
    class_weight: Literal["overlap", "ds_inv", "dannet"] = "overlap"
    pixel_share: tuple[float, ...] | None = None
    every: Count = 1
    level: Literal["stage1", "stage2", "stage3", "stage4"] = "stage4"

    def when_due(self, step: jax.Array, compute: Callable[[], PyTree], before: PyTree) -> PyTree:
        """``compute()`` at the steps with FPA, and ``before`` at the others, see `core.step.from_step`."""
        return from_step(step, self.start_step, compute, before, self.every)

    def __call__(
        self,
        source: tuple[jax.Array, jax.Array],
        night: tuple[jax.Array, jax.Array],
        mixed: tuple[jax.Array, jax.Array],
        classes: ClassSet,
    ) -> jax.Array:
        """The loss between source and night, and source and mixed images.

        Args:
            source, night, mixed: features [B, h, w, C] and labels [B, H, W] of each.
            classes: of the labels.
        """
        share = self.pixel_share or classes.pixel_share
        return fpa_loss(
            source,
            night,
            mixed,
            mixed_weight=self.mixed_weight,
            weight=self.weight,
            class_weight=self.class_weight,
            pixel_share=np.asarray(share) if share else None,
            classes=classes,
        )
