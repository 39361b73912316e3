# SPDX-License-Identifier: Apache-2.0
"""PSPNet's pyramid pooling and its auxiliary classifier (arXiv 1612.01105), as in DANNet.

The 1x1 convolutions of the pyramid are without batch norm, and no ReLU follows the batch norms.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from nightjax.core.ranges import Count
from nightjax.models.heads.head import Head
from nightjax.models.layers import Conv
from nightjax.models.norm import BatchNorm
from nightjax.ops.resize import resize


class PyramidPooling(nn.Module):
    """Means over coarse grids, mapped, upsampled and fused with the feature itself.

    Attributes:
        channels: of each pyramid level and of the output.
        bins: side of each grid.
        dtype: compute dtype.
    """

    channels: int
    bins: tuple[Count, ...]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        size = x.shape[1:3]
        levels = []
        for i, side in enumerate(self.bins):
            level = resize(x, (side, side), method="area", align_corners=False)
            conv = Conv(self.channels, kernel=1, dtype=self.dtype, name=f"stages_{i}_1")
            levels.append(resize(conv(level), size, align_corners=True))
        x = jnp.concatenate([*levels, x.astype(self.dtype)], axis=-1)
        x = Conv(self.channels, dtype=self.dtype, name="bottleneck_0")(x)
        return BatchNorm(dtype=self.dtype, name="bottleneck_1")(x, train=train)


class PSPHead(Head):
    """Pyramid pooling, channel dropout and a 1x1 classifier.

    Attributes:
        channels: of each pyramid level and before the classifier.
        bins: side of each grid.
        stage: name of the feature it reads.
    """

    channels: int = 512
    bins: tuple[Count, ...] = (1, 2, 3, 6)
    stage: str = "stage4"

    def fuse(self, features: Mapping[str, jax.Array], train: bool) -> jax.Array:
        """The map [B, h, w, C] that the classifier reads, of the backbone's features by stage."""
        pyramid = PyramidPooling(self.channels, self.bins, dtype=self.dtype, name="0")
        return pyramid(features[self.stage], train=train)

    def classify(self, x: jax.Array) -> jax.Array:
        """Logits [B, h, w, K] float32 of that map."""
        classifier = Conv(self.num_classes, kernel=1, use_bias=True, dtype=self.dtype, name="1")
        return classifier(x).astype(jnp.float32)


class PSPAuxiliaryHead(Head):
    """3x3 convolution, batch norm, channel dropout and a 1x1 classifier on an earlier stage.

    Attributes:
        channels: before the classifier.
        stage: name of the feature it reads.
    """

    channels: int = 512
    stage: str = "stage3"

    def fuse(self, features: Mapping[str, jax.Array], train: bool) -> jax.Array:
        """The map [B, h, w, C] that the classifier reads, of the backbone's features by stage."""
        x = Conv(self.channels, use_bias=True, dtype=self.dtype, name="0")(features[self.stage])
        return BatchNorm(dtype=self.dtype, name="1")(x, train=train)

    def classify(self, x: jax.Array) -> jax.Array:
        """Logits [B, h, w, K] float32 of that map."""
        classifier = Conv(self.num_classes, kernel=1, use_bias=True, dtype=self.dtype, name="3")
        return classifier(x).astype(jnp.float32)
