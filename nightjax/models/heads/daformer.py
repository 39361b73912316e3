# SPDX-License-Identifier: Apache-2.0
"""DAFormer's decoder: context-aware fusion of four levels (arXiv 2111.14887, section 3.2)."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from nightjax.core.ranges import Count
from nightjax.models.blocks import ConvBNReLU, Embed, SeparableConvBNReLU
from nightjax.models.heads.head import Head
from nightjax.models.remat import rematerialized
from nightjax.ops.resize import resize


class SeparableASPP(nn.Module):
    """Parallel 1x1 and dilated separable 3x3 convolutions, no image pooling, 3x3 bottleneck."""

    features: int
    dilations: tuple[Count, ...]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        branches = []
        for i, dilation in enumerate(self.dilations):
            name = f"aspp_modules_{i}"
            if dilation == 1:
                branch = ConvBNReLU(self.features, dtype=self.dtype, name=name)
            else:
                branch = SeparableConvBNReLU(self.features, dilation, dtype=self.dtype, name=name)
            branches.append(branch(x, train=train))
        bottleneck = ConvBNReLU(self.features, 3, dtype=self.dtype, name="bottleneck")
        return bottleneck(jnp.concatenate(branches, axis=-1), train=train)


class DAFormerHead(Head):
    """Embed each stage, resize to the finest, concatenate, separable ASPP, 1x1 classifier.

    Reads ``stage1`` .. ``stage4``.

    Attributes:
        embed_dim: channels of each embedded stage.
        channels: channels of the ASPP branches and of its output.
        dilations: of the ASPP; 1 stands for the 1x1 branch.
        remat: recompute what lies between the products of the ASPP in the backward pass instead of storing it.
    """

    embed_dim: int = 256
    channels: int = 256
    dilations: tuple[Count, ...] = (1, 6, 12, 18)
    remat: bool = False

    def fuse(self, features: Mapping[str, jax.Array], train: bool) -> jax.Array:
        """The map [B, h, w, C] that the classifier reads, of the backbone's features by stage."""
        size = features["stage1"].shape[1:3]
        embedded = []
        for i in range(4):
            x = Embed(self.embed_dim, dtype=self.dtype, name=f"embed_layers_{i}")(features[f"stage{i + 1}"])
            embedded.append(resize(x, size, align_corners=False))
        aspp = SeparableASPP(self.channels, self.dilations, dtype=self.dtype, name="fuse_layer")
        run = lambda module, x: module(x, train=train)
        if self.remat:
            run = rematerialized(run, "products")
        return run(aspp, jnp.concatenate(embedded, axis=-1))
