# SPDX-License-Identifier: Apache-2.0
"""DANNet's relighting network, a small residual image-to-image network (arXiv 2104.10834, 3.2)."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from nightjax.models.initializers import torch_uniform, uniform
from nightjax.models.layers import Conv, DoublingConv
from nightjax.models.norm import BatchNorm


class RelightNet(nn.Module):
    """The residual that, added to an image, brings day and night to one brightness.

    The relit image is the input *plus* the output; it is not clipped. Submodules are named as in
    the official ``ResnetGenerator``.

    Attributes:
        features: channels of the first convolution.
        blocks: residual blocks, at a quarter of the resolution.
        dtype: compute dtype.
    """

    features: int = 64
    blocks: int = 3
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Residual of normalized images.

        Args:
            x: [B, H, W, C] float32. Where a side is no multiple of 4 the output of the official
                network is up to 3 pixels longer; they are cut off.
            train: batch norm uses and updates batch statistics.

        Returns:
            [B, H, W, C] float32 in (-1, 1).
        """
        _, height, width, channels = x.shape
        conv = functools.partial(Conv, kernel_init=torch_uniform, dtype=self.dtype)

        def norm_relu(x, index):
            return nn.relu(BatchNorm(dtype=self.dtype, name=f"model_{index}")(x, train=train))

        y = conv(self.features, kernel=7, padding=0, name="model_1")(_reflect(x, 3))
        y = norm_relu(y, 2)
        for index, multiplier in ((4, 2), (7, 4)):
            y = conv(multiplier * self.features, stride=2, name=f"model_{index}")(y)
            y = norm_relu(y, index + 1)
        for index in range(10, 10 + self.blocks):
            y = ResidualBlock(dtype=self.dtype, name=f"model_{index}")(y, train=train)
        for index, multiplier in ((10 + self.blocks, 2), (13 + self.blocks, 1)):
            double = DoublingConv(multiplier * self.features, self.dtype, name=f"model_{index}")
            y = norm_relu(double(y), index + 1)
        last = conv(
            channels,
            kernel=7,
            padding=0,
            use_bias=True,
            bias_init=uniform((49 * self.features) ** -0.5),
            name=f"model_{17 + self.blocks}",
        )
        return jnp.tanh(last(_reflect(y, 3)).astype(jnp.float32))[:, :height, :width]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm and a ReLU between, added to the input."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        conv = functools.partial(Conv, x.shape[-1], padding=0, kernel_init=torch_uniform, dtype=self.dtype)
        norm = functools.partial(BatchNorm, dtype=self.dtype)
        y = conv(name="conv_block_1")(_reflect(x, 1))
        y = nn.relu(norm(name="conv_block_2")(y, train=train))
        y = conv(name="conv_block_5")(_reflect(y, 1))
        return x + norm(name="conv_block_6")(y, train=train)


def _reflect(x, border):
    return jnp.pad(x, ((0, 0), (border, border), (border, border), (0, 0)), mode="reflect")
