# SPDX-License-Identifier: Apache-2.0
"""MiT and DAFormer's head in PyTorch, under our names: what benchmarks compare our networks with.

Written from ``nightjax/models/backbones/mit.py`` and ``nightjax/models/heads/daformer.py``; the library uses none of
it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


def at_least_float32(x: Tensor) -> Tensor:
    """The same values in float32, or in their own type if that is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class PatchEmbed(nn.Module):
    """A strided convolution whose windows overlap, and a norm: [B, C, H, W] to [B, h, w, dim]."""

    def __init__(self, inputs: int, dim: int, kernel: int, stride: int):
        super().__init__()
        self.proj = nn.Conv2d(inputs, dim, kernel, stride, kernel // 2)
        self.norm = nn.LayerNorm(dim, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class Attention(nn.Module):
    """Attention of every cell [B, h, w, dim] to the map reduced ``reduction`` times a side."""

    def __init__(self, dim: int, heads: int, reduction: int):
        super().__init__()
        self.heads, self.reduction = heads, reduction
        self.q, self.kv, self.proj = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
        if reduction > 1:
            self.sr = nn.Conv2d(dim, dim, reduction, reduction)
            self.norm = nn.LayerNorm(dim, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, dim = x.shape
        query = self.q(x).reshape(batch, height * width, self.heads, dim // self.heads).transpose(1, 2)
        if self.reduction > 1:
            x = self.norm(self.sr(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        pair = self.kv(x).reshape(batch, -1, 2, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        out = functional.scaled_dot_product_attention(query, pair[0], pair[1])
        return self.proj(out.transpose(1, 2).reshape(batch, height, width, dim))


class DepthwiseConv(nn.Module):
    """A 3x3 depthwise convolution of [B, h, w, C]."""

    def __init__(self, features: int):
        super().__init__()
        self.dwconv = nn.Conv2d(features, features, 3, 1, 1, groups=features)

    def forward(self, x: Tensor) -> Tensor:
        return self.dwconv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class MixFFN(nn.Module):
    """Linear, depthwise 3x3, GELU, linear."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1, self.dwconv, self.fc2 = nn.Linear(dim, hidden), DepthwiseConv(hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.dwconv(self.fc1(x))))


class Block(nn.Module):
    """A transformer block with norms before its two branches."""

    def __init__(self, dim: int, heads: int, ratio: int, reduction: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn, self.mlp = Attention(dim, heads, reduction), MixFFN(dim, ratio * dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class MiT(nn.Module):
    """Four stages without drop path; the arguments are those of `nightjax.models.backbones.mit.MiT`."""

    def __init__(
        self,
        dims: Sequence[int],
        depths: Sequence[int],
        heads: Sequence[int] = (1, 2, 5, 8),
        mlp_ratios: Sequence[int] = (4, 4, 4, 4),
        sr_ratios: Sequence[int] = (8, 4, 2, 1),
    ):
        super().__init__()
        inputs = (3, *dims)
        for i, dim in enumerate(dims):
            embed = PatchEmbed(inputs[i], dim, *((3, 2) if i else (7, 4)))
            blocks = [Block(dim, heads[i], mlp_ratios[i], sr_ratios[i]) for _ in range(depths[i])]
            self.add_module(f"patch_embed{i + 1}", embed)
            self.add_module(f"block{i + 1}", nn.Sequential(*blocks))
            self.add_module(f"norm{i + 1}", nn.LayerNorm(dim, eps=1e-6))
        self.channels = list(dims)

    def forward(self, x: Tensor) -> list[Tensor]:
        """The features [B, C, h, w] of the four stages."""
        features = []
        for stage in range(1, 5):
            for part in ("patch_embed", "block", "norm"):
                x = self.get_submodule(f"{part}{stage}")(x)
            x = x.permute(0, 3, 1, 2)
            features.append(x)
        return features


class ConvBNReLU(nn.Module):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, dilation: int = 1, groups: int = 1):
        super().__init__()
        padding = dilation * (kernel // 2)
        self.conv = nn.Conv2d(inputs, outputs, kernel, 1, padding, dilation, groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn(self.conv(x)))


class SeparableConvBNReLU(nn.Module):
    """A dilated depthwise 3x3 and a 1x1, each with batch norm and ReLU."""

    def __init__(self, inputs: int, outputs: int, dilation: int):
        super().__init__()
        self.depthwise_conv = ConvBNReLU(inputs, inputs, 3, dilation, inputs)
        self.pointwise_conv = ConvBNReLU(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise_conv(self.depthwise_conv(x))


class SeparableASPP(nn.Module):
    """Parallel branches and a 3x3 that joins them."""

    def __init__(self, inputs: int, features: int, dilations: Sequence[int]):
        super().__init__()
        self.aspp_modules = nn.ModuleList(
            ConvBNReLU(inputs, features) if d == 1 else SeparableConvBNReLU(inputs, features, d) for d in dilations
        )
        self.bottleneck = ConvBNReLU(len(dilations) * features, features, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.bottleneck(torch.cat([branch(x) for branch in self.aspp_modules], dim=1))


class Embed(nn.Module):
    """A linear map of the channels."""

    def __init__(self, inputs: int, dim: int):
        super().__init__()
        self.proj = nn.Linear(inputs, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class DAFormerHead(nn.Module):
    """Embeds each stage, brings all to the finest one's size, and fuses them; no dropout."""

    def __init__(
        self,
        channels: Sequence[int],
        classes: int,
        width: int = 256,
        dim: int = 256,
        dilations: Sequence[int] = (1, 6, 12, 18),
    ):
        super().__init__()
        self.embed_layers = nn.ModuleList(Embed(inputs, dim) for inputs in channels)
        self.fuse_layer = SeparableASPP(dim * len(channels), width, dilations)
        self.conv_seg = nn.Conv2d(width, classes, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        size = features[0].shape[2:]
        levels = [embed(x) for embed, x in zip(self.embed_layers, features, strict=True)]
        grown = [functional.interpolate(x, size, mode="bilinear", align_corners=False) for x in levels[1:]]
        return at_least_float32(self.conv_seg(self.fuse_layer(torch.cat(levels[:1] + grown, dim=1))))
