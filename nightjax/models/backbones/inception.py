# SPDX-License-Identifier: Apache-2.0
"""Inception-v3 in the form that FID is defined by: TensorFlow's graph of 2015-12-05.

Facts: arXiv 1512.00567, and pytorch-fid's ``inception.py`` for where that graph differs from torchvision's: average
    pools do not
count their padding, and the pool of the last block is a max-pool. Parameter names are torchvision's.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from nightjax.models.layers import Conv, max_pool
from nightjax.models.norm import BatchNorm

INPUT_SIZE = (299, 299)
FORK = ((1, 3), (3, 1))
"""Two convolutions of one input, side by side."""


class ConvNormReLU(nn.Module):
    """Convolution without bias, batch norm with running statistics, ReLU; attributes as of `Conv`."""

    features: int
    kernel: int | tuple[int, int]
    stride: int = 1
    padding: int | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = Conv(self.features, self.kernel, self.stride, padding=self.padding, dtype=self.dtype, name="conv")(x)
        return nn.relu(BatchNorm(epsilon=1e-3, frozen=True, dtype=self.dtype, name="bn")(x, train=False))


class Mixed(nn.Module):
    """Branches side by side, concatenated along channels.

    Attributes:
        branches: name and the (features, kernel) of each convolution of the chain; the last kernel may be `FORK`.
        pool_features: of the 1x1 convolution after the branch that pools; 0 for none, and then the block halves its
            input: the last convolution of every branch and the pool have stride 2 and no padding.
        pool: "average", "padded_average" (zeros of the border count, as in torchvision) or "max".
        dtype: compute dtype.
    """

    branches: tuple[tuple[str, tuple], ...]
    pool_features: int = 0
    pool: str = "average"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        conv = functools.partial(ConvNormReLU, dtype=self.dtype)
        parts = []
        for name, chain in self.branches:
            y = x
            for i, (features, kernel) in enumerate(chain, start=1):
                own = name if len(chain) == 1 else f"{name}__{i}"
                if kernel == FORK:
                    own = f"{name}_{i}"
                    y = jnp.concatenate(
                        [conv(features, k, name=own + side)(y) for k, side in zip(FORK, "ab", strict=True)], -1
                    )
                elif i == len(chain) and not self.pool_features:
                    y = conv(features, kernel, stride=2, padding=0, name=own)(y)
                else:
                    y = conv(features, kernel, name=own)(y)
            parts.append(y)
        if not self.pool_features:
            return jnp.concatenate([*parts, max_pool(x, 3, 2)], -1)
        if self.pool == "max":
            pooled = max_pool(x, 3, 1, 1)
        else:
            pooled = nn.avg_pool(x, (3, 3), padding="SAME", count_include_pad=self.pool == "padded_average")
        return jnp.concatenate([*parts, conv(self.pool_features, 1, name="branch_pool")(pooled)], -1)


def _a(pool_features: int) -> dict[str, Any]:
    double = ("branch3x3dbl", ((64, 1), (96, 3), (96, 3)))
    branches = (("branch1x1", ((64, 1),)), ("branch5x5", ((48, 1), (64, 5))), double)
    return {"branches": branches, "pool_features": pool_features}


def _c(width: int) -> dict[str, Any]:
    row, column = (1, 7), (7, 1)
    double = ((width, 1), (width, column), (width, row), (width, column), (192, row))
    single = ((width, 1), (width, row), (192, column))
    branches = (("branch1x1", ((192, 1),)), ("branch7x7", single), ("branch7x7dbl", double))
    return {"branches": branches, "pool_features": 192}


def _e(pool: str) -> dict[str, Any]:
    single, double = ((384, 1), (384, FORK)), ((448, 1), (384, 3), (384, FORK))
    branches = (("branch1x1", ((320, 1),)), ("branch3x3", single), ("branch3x3dbl", double))
    return {"branches": branches, "pool_features": 192, "pool": pool}


BLOCKS = {
    "Mixed_5b": _a(32),
    "Mixed_5c": _a(64),
    "Mixed_5d": _a(64),
    "Mixed_6a": {"branches": (("branch3x3", ((384, 3),)), ("branch3x3dbl", ((64, 1), (96, 3), (96, 3))))},
    "Mixed_6b": _c(128),
    "Mixed_6c": _c(160),
    "Mixed_6d": _c(160),
    "Mixed_6e": _c(192),
    "Mixed_7a": {
        "branches": (
            ("branch3x3", ((192, 1), (320, 3))),
            ("branch7x7x3", ((192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3))),
        )
    },
    "Mixed_7b": _e("average"),
    "Mixed_7c": _e("max"),
}
"""Name to arguments of `Mixed`, in order."""


class InceptionV3(nn.Module):
    """The feature network of FID, without its classifier; always in evaluation mode.

    Attributes:
        dtype: compute dtype.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        """Spatial means of four stages.

        Args:
            x: [B, 299, 299, 3] float32, RGB in -1..1. Other sizes of at least 75 work, but are not FID.

        Returns:
            ``pool64``, ``pool192`` (after the two max-pools), ``pool768`` (before the auxiliary classifier) and
            ``pool2048`` (the features of FID), [B, 64] and so on, float32, 0 or more.
        """
        conv = functools.partial(ConvNormReLU, dtype=self.dtype)
        x = conv(32, 3, 2, 0, name="Conv2d_1a_3x3")(x)
        x = conv(32, 3, padding=0, name="Conv2d_2a_3x3")(x)
        x = max_pool(conv(64, 3, name="Conv2d_2b_3x3")(x), 3, 2)
        stages = {"pool64": x}
        x = conv(80, 1, name="Conv2d_3b_1x1")(x)
        x = max_pool(conv(192, 3, padding=0, name="Conv2d_4a_3x3")(x), 3, 2)
        stages["pool192"] = x
        for name, options in BLOCKS.items():
            x = Mixed(**options, dtype=self.dtype, name=name)(x)
            if name == "Mixed_6e":
                stages["pool768"] = x
        stages["pool2048"] = x
        return {name: stage.astype(jnp.float32).mean((1, 2)) for name, stage in stages.items()}
