# SPDX-License-Identifier: Apache-2.0
"""VGG-16's convolutions (arXiv 1409.1556), the features of the matcher."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from nightjax.core.ranges import Count
from nightjax.models.layers import Conv, max_pool

VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Output channels of the convolutions before each pooling."""


class VGG(nn.Module):
    """Groups of 3x3 convolutions with ReLU, each followed by a 2x2 maximum.

    Attributes:
        channels: output channels of each convolution, by group.
        pools: number of groups that are followed by a maximum; UNIT's perceptual loss has none after the fourth.
        dtype: compute dtype.
    """

    channels: tuple[tuple[Count, ...], ...] = VGG16
    pools: int = 5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False, deterministic: bool | None = None) -> dict[str, jax.Array]:
        """Features of a normalized image.

        Args:
            x: [B, H, W, 3] float32.
            train, deterministic: without effect, the network has no mode.

        Returns:
            ``relu1_1`` .. and ``pool1`` .. [B, H // 2**i, W // 2**i, C].
        """
        del train, deterministic
        features, index = {}, 0  # index in torch's flat list of convolutions, ReLUs and poolings
        for group, widths in enumerate(self.channels, start=1):
            for number, width in enumerate(widths, start=1):
                conv = Conv(width, use_bias=True, dtype=self.dtype, name=f"features_{index}")
                x = nn.relu(conv(x))
                features[f"relu{group}_{number}"] = x
                index += 2
            if group <= self.pools:
                x = max_pool(x, 2, 2)
                features[f"pool{group}"] = x
            index += 1
        return features
