"""The head that contrastive losses compare features through; it is no part of the network that predicts."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from nightjax.models.layers import Conv
from nightjax.models.norm import BatchNorm


class ProjectionHead(nn.Module):
    """1x1 convolution, batch norm, ReLU, 1x1 convolution.

    The norm always uses the batch's statistics, in training, and keeps none. The last convolution is linear, so it may
    come after
    cells are drawn or averaged: `hidden` of all cells, `last` of the few.

    Attributes:
        features: channels of both convolutions.
        dtype: of the computation and of what is returned.
    """

    features: int = 256
    dtype: Any = jnp.float32

    def setup(self):
        self.conv1 = Conv(self.features, kernel=1, dtype=self.dtype)
        self.bn = BatchNorm(dtype=self.dtype)
        self.conv2 = Conv(self.features, kernel=1, use_bias=True, dtype=self.dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, h, w, C] to [B, h, w, features]; not of unit length."""
        return self.last(self.hidden(x))

    def hidden(self, x: jax.Array) -> jax.Array:
        """[B, h, w, C] to what the last convolution reads, [B, h, w, features]."""
        return nn.relu(self.bn(self.conv1(x), train=True))

    def last(self, x: jax.Array) -> jax.Array:
        """The last convolution, [..., features] to the same shape."""
        return self.conv2(x.reshape(1, 1, -1, x.shape[-1])).reshape(x.shape)
