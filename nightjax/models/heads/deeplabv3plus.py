# SPDX-License-Identifier: Apache-2.0
"""DeepLab-v3+'s decoder with separable convolutions (arXiv 1802.02611, section 3), as in mmsegmentation."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from nightjax.core.ranges import Count
from nightjax.models.blocks import ConvBNReLU, SeparableConvBNReLU
from nightjax.models.heads.head import Head
from nightjax.ops.resize import resize


class DeepLabV3PlusHead(Head):
    """ASPP on the last stage, fused with the first stage at its resolution.

    Reads ``stage1`` and ``stage4``.

    Attributes:
        channels: of every branch and of the output.
        low_channels: that the first stage is reduced to.
        dilations: of the ASPP; 1 stands for the 1x1 branch. An image-pooling branch comes first.
    """

    channels: int = 512
    low_channels: int = 48
    dilations: tuple[Count, ...] = (1, 12, 24, 36)

    def fuse(self, features: Mapping[str, jax.Array], train: bool) -> jax.Array:
        """The map [B, h, w, C] that the classifier reads, of the backbone's features by stage."""
        low, high = features["stage1"], features["stage4"]
        x = self._aspp(high, train)
        x = resize(x, low.shape[1:3], align_corners=False)
        reduce = ConvBNReLU(self.low_channels, dtype=self.dtype, name="c1_bottleneck")
        x = jnp.concatenate([x, reduce(low, train=train)], axis=-1)
        for i in range(2):
            conv = SeparableConvBNReLU(self.channels, 1, self.dtype, name=f"sep_bottleneck_{i}")
            x = conv(x, train=train)
        return x

    def _aspp(self, x: jax.Array, train: bool) -> jax.Array:
        size = x.shape[1:3]
        pool = ConvBNReLU(self.channels, dtype=self.dtype, name="image_pool_1")
        pooled = pool(resize(x, (1, 1), method="area", align_corners=False), train=train)
        branches = [resize(pooled, size, align_corners=False)]
        for i, dilation in enumerate(self.dilations):
            name = f"aspp_modules_{i}"
            if dilation == 1:
                branch = ConvBNReLU(self.channels, dtype=self.dtype, name=name)
            else:
                branch = SeparableConvBNReLU(self.channels, dilation, self.dtype, name=name)
            branches.append(branch(x, train=train))
        bottleneck = ConvBNReLU(self.channels, 3, dtype=self.dtype, name="bottleneck")
        return bottleneck(jnp.concatenate(branches, axis=-1), train=train)
