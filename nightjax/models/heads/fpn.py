# SPDX-License-Identifier: Apache-2.0
"""A light semantic feature pyramid for small models (after arXiv 1612.03144, 1901.02446)."""

from collections.abc import Mapping

import jax
from flax import linen as nn

from nightjax.models.heads.head import Head
from nightjax.models.layers import Conv
from nightjax.models.norm import BatchNorm
from nightjax.ops.resize import resize


class FPNHead(Head):
    """Lateral 1x1 convolutions, a top-down sum, a 3x3 and a classifier at the finest level.

    Attributes:
        channels: of the pyramid.
        stages: features it reads, fine to coarse.
    """

    channels: int = 32
    stages: tuple[str, ...] = ("stage1", "stage2", "stage3", "stage4")

    def fuse(self, features: Mapping[str, jax.Array], train: bool) -> jax.Array:
        """The map [B, h, w, C] that the classifier reads, of the backbone's features by stage."""
        x = None
        for i, stage in reversed(list(enumerate(self.stages))):
            lateral = Conv(self.channels, kernel=1, use_bias=True, dtype=self.dtype, name=f"lateral_convs_{i}")
            level = lateral(features[stage])
            x = level if x is None else level + resize(x, level.shape[1:3], align_corners=False)
        x = Conv(self.channels, dtype=self.dtype, name="conv")(x)
        return nn.relu(BatchNorm(dtype=self.dtype, name="bn")(x, train=train))
