# SPDX-License-Identifier: Apache-2.0
"""RefineNet's decoder: each stage fuses a coarser result with a finer feature (1611.06612).

Submodules are named as in the official checkpoints. Level 1 is the coarsest.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from nightjax.models.heads.head import Head
from nightjax.models.layers import Conv, max_pool
from nightjax.ops.resize import resize


class ResidualConvUnits(nn.Module):
    """``blocks`` times: ReLU, 3x3 convolution, twice, added to the input (RCU)."""

    blocks: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        conv = functools.partial(Conv, x.shape[-1], dtype=self.dtype)
        for i in range(1, self.blocks + 1):
            y = conv(use_bias=True, name=f"{i}_conv")(nn.relu(x))
            x = x + conv(name=f"{i}_conv_relu_varout_dimred")(nn.relu(y))
        return x


class ChainedResidualPooling(nn.Module):
    """A chain of 5x5 max-pools and 3x3 convolutions, each added to the sum (CRP)."""

    pools: int = 4
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        top = x
        for i in range(1, self.pools + 1):
            conv = Conv(x.shape[-1], dtype=self.dtype, name=f"{i}_outvar_dimred")
            top = conv(max_pool(top, 5, 1, 2))
            x = x + top
        return x


class RefineNetHead(Head):
    """Four refinement levels and a 3x3 classifier.

    Reads ``stage1`` .. ``stage4``. It drops single elements, and not only before the classifier, so it has a
    ``__call__`` of its own.

    Attributes:
        dropout: rate of elements of the two coarsest features and before the classifier.
        channels: of the finer three levels; the coarsest has twice as many.
    """

    dropout: float = 0.5
    channels: int = 256

    @nn.compact
    def __call__(
        self, features: Mapping[str, jax.Array], *, train: bool = False, deterministic: bool | None = None
    ) -> jax.Array:
        """Logits [B, h, w, K] float32, see `Head`."""
        deterministic = not train if deterministic is None else deterministic
        drop = functools.partial(nn.Dropout(self.dropout), deterministic=deterministic)
        conv = functools.partial(Conv, dtype=self.dtype)
        units = functools.partial(ResidualConvUnits, dtype=self.dtype)

        coarser = None
        for level in (1, 2, 3, 4):
            x = features[f"stage{5 - level}"]
            width = 2 * self.channels if level == 1 else self.channels
            x = conv(width, name=f"p_ims1d2_outl{level}_dimred")(drop(x) if level < 3 else x)
            x = units(2, name=f"adapt_stage{level}_b_0")(x)
            if coarser is not None:
                x = conv(width, name=f"adapt_stage{level}_b2_joint_varout_dimred")(x)
                x = x + resize(coarser, x.shape[1:3], align_corners=True)
            pool = ChainedResidualPooling(dtype=self.dtype, name=f"mflow_conv_g{level}_pool_0")
            x = pool(nn.relu(x))
            x = units(3, name=f"mflow_conv_g{level}_b_0")(x)
            if level < 4:
                name = f"mflow_conv_g{level}_b3_joint_varout_dimred"
                coarser = conv(self.channels, name=name)(x)
        self.sow("intermediates", "penultimate", x)
        classifier = conv(self.num_classes, use_bias=True, name="clf_conv")
        return classifier(drop(x)).astype(jnp.float32)
