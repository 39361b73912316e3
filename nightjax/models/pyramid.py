# SPDX-License-Identifier: Apache-2.0
"""What makes levels of four sizes of the four features of a plain transformer, all of which have one size."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from nightjax.models.layers import PatchUpConv, max_pool
from nightjax.models.norm import BatchNorm
from nightjax.ops.resize import resize

Features = Mapping[str, jax.Array]

FACTORS = (4, 2, 1, 0.5)
"""Of the sides of ``stage1`` .. ``stage4``."""


class ResamplePyramid(nn.Module):
    """``stage1`` .. ``stage4`` at 4, 2, 1 and 1/2 times their size, bilinear, without parameters.

    Attributes:
        dtype: of the output.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: Features, *, train: bool = False) -> dict[str, jax.Array]:
        """[B, h, w, C] each to [B, 4h, 4w, C] .. [B, h // 2, w // 2, C]."""
        del train
        levels = {}
        for i, factor in enumerate(FACTORS, start=1):
            x = features[f"stage{i}"].astype(self.dtype)
            size = (max(int(x.shape[1] * factor), 1), max(int(x.shape[2] * factor), 1))
            levels[f"stage{i}"] = resize(x, size, align_corners=False)
        return levels


class DeconvPyramid(nn.Module):
    """The same sizes by learned up-convolutions and a max-pool: mmsegmentation's ``Feature2Pyramid`` for plain ViTs.

    ``stage1``: two transposed 2x2 convolutions, with batch norm and GELU between; ``stage2``: one; ``stage3`` as it is;
    ``stage4``: 2x2 maxima, without a last odd row or column.

    Attributes:
        dtype: compute dtype.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: Features, *, train: bool = False) -> dict[str, jax.Array]:
        """[B, h, w, C] each to [B, 4h, 4w, C] .. [B, h // 2, w // 2, C]; ``train`` uses batch statistics."""
        up = lambda x, name: PatchUpConv(x.shape[-1], use_bias=True, dtype=self.dtype, name=name)(x)
        fine = up(features["stage1"], "upsample_4x_0")
        fine = BatchNorm(dtype=self.dtype, name="upsample_4x_1")(fine, train=train)
        return {
            "stage1": up(nn.gelu(fine, approximate=False), "upsample_4x_3"),
            "stage2": up(features["stage2"], "upsample_2x_0"),
            "stage3": features["stage3"],
            "stage4": max_pool(features["stage4"], 2, 2),
        }
