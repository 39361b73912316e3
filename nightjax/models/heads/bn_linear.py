# SPDX-License-Identifier: Apache-2.0
"""DINOv2's linear segmentation head: batch norm and a 1x1 classifier on one or several features (arXiv 2304.07193)."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from nightjax.models.heads.head import Head
from nightjax.models.norm import BatchNorm
from nightjax.ops.resize import resize


class BNLinearHead(Head):
    """Features at the size of the first, concatenated, batch norm, 1x1 classifier; no dropout.

    Attributes:
        stages: features it reads; ``("stage4",)`` is the published linear evaluation, all four, of the last four
            blocks, the one called ``ms``.
    """

    stages: tuple[str, ...] = ("stage4",)
    dropout: float = 0.0

    def fuse(self, features: Mapping[str, jax.Array], train: bool) -> jax.Array:
        """The map [B, h, w, C] that the classifier reads, of the backbone's features by stage."""
        size = features[self.stages[0]].shape[1:3]
        levels = [resize(features[stage], size, align_corners=False) for stage in self.stages]
        return BatchNorm(dtype=self.dtype, name="bn")(jnp.concatenate(levels, axis=-1), train=train)
