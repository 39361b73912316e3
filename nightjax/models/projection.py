# SPDX-License-Identifier: Apache-2.0
"""Heads that losses read features through; they are no part of the network that predicts."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from nightjax.core.types import Size
from nightjax.models.backbones.transformer import linear_init
from nightjax.models.layers import Conv
from nightjax.models.norm import BatchNorm
from nightjax.ops.resize import resize


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


class DistillationHead(nn.Module):
    """What brings features to the channels and cells of a frozen foundation model, for `feature_distillation`.

    1x1 convolution to four times the channels, layer norm, GELU, 1x1 convolution, bilinear resize. Source: VFM-UDA++
    (arXiv 2503.10685), ``DistillFeatureHead`` of its official repository, whose parameters have the names below.

    Attributes:
        features: channels of the frozen model.
        dtype: of the computation.
    """

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, size: Size) -> jax.Array:
        """[B, h, w, C] to [B, *size, features]."""
        conv = functools.partial(Conv, kernel=1, use_bias=True, dtype=self.dtype)
        x = conv(4 * x.shape[-1], name="feat_project_0")(x)
        x = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name="feat_project_1")(x)
        x = conv(self.features, name="feat_project_3")(nn.gelu(x, approximate=False))
        return resize(x, size, align_corners=False)


class GradientHead(nn.Module):
    """One linear map from a feature to the gradients of its patch (MaskFeat, arXiv 2112.09133).

    Attributes:
        features: numbers that describe a patch.
        dtype: of the computation.
    """

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, h, w, C] to [B, h, w, features]."""
        return nn.Dense(self.features, dtype=self.dtype, kernel_init=linear_init, name="linear")(x)
