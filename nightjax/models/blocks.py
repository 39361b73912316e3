# SPDX-License-Identifier: Apache-2.0
"""Blocks that several segmentation heads are made of."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from nightjax.models.initializers import normal, torch_uniform
from nightjax.models.layers import Conv
from nightjax.models.norm import BatchNorm


class Embed(nn.Module):
    """A linear map of every feature vector to ``channels``."""

    channels: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(self.channels, dtype=self.dtype, kernel_init=torch_uniform, name="proj")(x)


class ConvBNReLU(nn.Module):
    """Convolution without bias, batch norm, ReLU; submodules ``conv`` and ``bn``."""

    features: int
    kernel: int = 1
    dilation: int = 1
    groups: int | str = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = Conv(
            self.features,
            kernel=self.kernel,
            dilation=self.dilation,
            groups=self.groups,
            dtype=self.dtype,
            name="conv",
        )(x)
        return nn.relu(BatchNorm(dtype=self.dtype, name="bn")(x, train=train))


class SeparableConvBNReLU(nn.Module):
    """Dilated depthwise 3x3, then 1x1, each with batch norm and ReLU."""

    features: int
    dilation: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        depthwise = ConvBNReLU(x.shape[-1], 3, self.dilation, "depthwise", dtype=self.dtype, name="depthwise_conv")
        pointwise = ConvBNReLU(self.features, dtype=self.dtype, name="pointwise_conv")
        return pointwise(depthwise(x, train=train), train=train)


def classify(x: jax.Array, num_classes: int, dtype: Any, name: str = "conv_seg") -> jax.Array:
    """mmsegmentation's classifier, a 1x1 convolution; to be called inside a compact method.

    Args:
        x: [B, h, w, C].
        num_classes: K.
        dtype: compute dtype.
        name: of the convolution.

    Returns:
        Logits [B, h, w, K] float32.
    """
    classifier = Conv(num_classes, kernel=1, use_bias=True, dtype=dtype, kernel_init=normal(0.01), name=name)
    return classifier(x).astype(jnp.float32)
