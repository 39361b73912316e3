# SPDX-License-Identifier: Apache-2.0
"""Fast-SCNN (arXiv 1902.04502): a real-time network of 1.1 million parameters, most of its convolutions depthwise.

A shared stem goes down to stride 8. From there inverted bottlenecks go on to stride 32 and a pyramid of means sees the
whole image; what they find is added to the stem's features. Its head is `heads.separable`.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from nightjax.core.ranges import Count
from nightjax.models.layers import Conv
from nightjax.models.norm import BatchNorm
from nightjax.ops.resize import resize


class ConvNorm(nn.Module):
    """Convolution and batch norm, and a ReLU if asked for.

    Attributes:
        features, kernel, stride, dilation, groups: of `Conv`.
        relu: whether a ReLU follows.
        dtype: compute dtype.
    """

    features: int
    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    groups: int | str = 1
    relu: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """[B, h, w, C] to [B, h / stride, w / stride, features]."""
        conv = Conv(self.features, self.kernel, self.stride, self.dilation, self.groups, dtype=self.dtype, name="conv")
        x = BatchNorm(dtype=self.dtype, name="bn")(conv(x), train=train)
        return nn.relu(x) if self.relu else x


class SeparableConv(nn.Module):
    """Depthwise 3x3 and 1x1, each with batch norm; one ReLU at the end, none between (as the paper has it)."""

    features: int
    stride: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """[B, h, w, C] to [B, h / stride, w / stride, features]."""
        depthwise = functools.partial(ConvNorm, x.shape[-1], 3, self.stride, 1, "depthwise", relu=False)
        x = depthwise(dtype=self.dtype, name="depthwise")(x, train=train)
        return ConvNorm(self.features, dtype=self.dtype, name="pointwise")(x, train=train)


class InvertedBottleneck(nn.Module):
    """MobileNetV2's block: 1x1 to more channels, depthwise 3x3, 1x1 without ReLU, and a shortcut where shapes allow.

    Attributes:
        features: of the output.
        stride: of the block.
        expansion: how many times more channels are inside than come in.
        dtype: compute dtype.
    """

    features: int
    stride: int = 1
    expansion: int = 6
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """[B, h, w, C] to [B, h / stride, w / stride, features]."""
        inside = self.expansion * x.shape[-1]
        y = ConvNorm(inside, dtype=self.dtype, name="expand")(x, train=train)
        y = ConvNorm(inside, 3, self.stride, 1, "depthwise", dtype=self.dtype, name="depthwise")(y, train=train)
        y = ConvNorm(self.features, relu=False, dtype=self.dtype, name="project")(y, train=train)
        return x + y if x.shape == y.shape else y


class MeanPyramid(nn.Module):
    """PSPNet's means over coarse grids, each mapped to a part of the channels, beside the feature itself; then 1x1.

    Attributes:
        bins: side of each grid.
        dtype: compute dtype.
    """

    bins: tuple[Count, ...] = (1, 2, 3, 6)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """[B, h, w, C] to the same shape."""
        levels, channels = [x], x.shape[-1]
        for side in self.bins:
            level = resize(x, (side, side), method="area", align_corners=False)
            part = ConvNorm(channels // len(self.bins), dtype=self.dtype, name=f"bin{side}")(level, train=train)
            levels.append(resize(part, x.shape[1:3], align_corners=False))
        return ConvNorm(channels, dtype=self.dtype, name="fuse")(jnp.concatenate(levels, axis=-1), train=train)


class FastSCNN(nn.Module):
    """Stem, bottlenecks, pyramid and fusion.

    Attributes:
        stem: channels of the three layers of stride 2.
        widths, depths, strides: of the groups of bottlenecks.
        fused: channels after the fusion.
        dtype: compute dtype; parameters and norm statistics are float32.
    """

    stem: tuple[int, int, int] = (32, 48, 64)
    widths: tuple[Count, ...] = (64, 96, 128)
    depths: tuple[Count, ...] = (3, 3, 3)
    strides: tuple[Count, ...] = (2, 2, 1)
    fused: int = 128
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False, deterministic: bool | None = None) -> dict[str, jax.Array]:
        """Features of a normalized image.

        Args:
            x: [B, H, W, 3] float32.
            train: batch norm uses and updates batch statistics.
            deterministic: accepted like in every backbone; nothing here is random.

        Returns:
            ``stage1`` (stride 8), ``stage2`` (16) and ``stage3`` (32), what the groups of layers find one after the
            other, and ``stage4``, the fusion, which is at stride 8 again; [B, h, w, C] in ``dtype``.
        """
        del deterministic
        first, *others = self.stem
        x = ConvNorm(first, 3, 2, dtype=self.dtype, name="stem_0")(x, train=train)
        for i, width in enumerate(others, start=1):
            x = SeparableConv(width, 2, dtype=self.dtype, name=f"stem_{i}")(x, train=train)
        features = {"stage1": x}
        fine = x
        for group, (width, depth, stride) in enumerate(zip(self.widths, self.depths, self.strides, strict=True)):
            for i in range(depth):
                block = InvertedBottleneck(width, stride if i == 0 else 1, dtype=self.dtype, name=f"group{group}_{i}")
                x = block(x, train=train)
            features[f"stage{min(group + 2, 3)}"] = x
        x = MeanPyramid(dtype=self.dtype, name="pyramid")(x, train=train)
        features["stage4"] = self._fused(fine, x, train)
        return features

    def _fused(self, fine: jax.Array, coarse: jax.Array, train: bool) -> jax.Array:
        """The paper's feature fusion: the coarse feature grown, seen through a dilated depthwise 3x3, and added."""
        conv = functools.partial(ConvNorm, dtype=self.dtype)
        factor = max(fine.shape[1] // coarse.shape[1], 1)
        grown = resize(coarse, fine.shape[1:3], align_corners=False)
        grown = conv(grown.shape[-1], 3, 1, factor, "depthwise", name="fuse_depthwise")(grown, train=train)
        grown = conv(self.fused, relu=False, name="fuse_coarse")(grown, train=train)
        return nn.relu(grown + conv(self.fused, relu=False, name="fuse_fine")(fine, train=train))
