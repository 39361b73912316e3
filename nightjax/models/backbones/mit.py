# SPDX-License-Identifier: Apache-2.0
"""Mix Transformer, SegFormer's encoder (arXiv 2105.15203, section 3.1; mix_transformer.py)."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from nightjax.core.ranges import Count
from nightjax.core.stacks import Stack
from nightjax.models.adapters import PARTS, Adapters
from nightjax.models.backbones.transformer import drop_path_scales, layer_norm, linear_init, scan_blocks, stacked_params
from nightjax.models.layers import Conv
from nightjax.models.remat import Stored, rematerialized

BLOCK_EPSILON = 1e-6
"""LayerNorm epsilon of block and stage norms."""

EMBED_EPSILON = 1e-5
"""LayerNorm epsilon after a patch embedding and after a spatial reduction."""


class PatchEmbed(nn.Module):
    """Overlapping strided convolution and LayerNorm: [B, H, W, C] to [B, H/s, W/s, dim]."""

    dim: int
    kernel: int
    stride: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = Conv(
            self.dim,
            kernel=self.kernel,
            stride=self.stride,
            padding=self.kernel // 2,
            use_bias=True,
            dtype=self.dtype,
            name="proj",
        )(x)
        return layer_norm(EMBED_EPSILON, self.dtype, "norm")(x)


class Attention(nn.Module):
    """Attention of every cell to the map reduced ``sr_ratio`` times a side; float32 softmax."""

    heads: int
    sr_ratio: int
    dtype: Any = jnp.float32
    adapters: Adapters = Adapters()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, height, width, dim = x.shape
        dense = functools.partial(nn.Dense, dtype=self.dtype, kernel_init=linear_init)
        head_dim = dim // self.heads
        query = self.adapters(dense(dim, name="q")(x), x, "q").reshape(batch, height * width, self.heads, head_dim)
        if self.sr_ratio > 1:
            x = Conv(
                dim,
                kernel=self.sr_ratio,
                stride=self.sr_ratio,
                padding=0,
                use_bias=True,
                dtype=self.dtype,
                name="sr",
            )(x)
            x = layer_norm(EMBED_EPSILON, self.dtype, "norm")(x)
        key_value = self.adapters.together(dense(2 * dim, name="kv")(x), x, ("k", "v"))
        key_value = key_value.reshape(batch, -1, 2, self.heads, head_dim)
        out = jax.nn.dot_product_attention(query, key_value[:, :, 0], key_value[:, :, 1])
        out = out.reshape(batch, height, width, dim)
        return self.adapters(dense(dim, name="proj")(out), out, "proj")


class DepthwiseConv(nn.Module):
    """The 3x3 depthwise convolution that carries position in a Mix-FFN."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        conv = Conv(x.shape[-1], groups="depthwise", use_bias=True, dtype=self.dtype, name="dwconv")
        return conv(x)


class MixFFN(nn.Module):
    """Linear, depthwise 3x3, exact GELU, linear."""

    hidden: int
    dtype: Any = jnp.float32
    adapters: Adapters = Adapters()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dense = functools.partial(nn.Dense, dtype=self.dtype, kernel_init=linear_init)
        y = self.adapters(dense(self.hidden, name="fc1")(x), x, "fc1")
        y = nn.gelu(DepthwiseConv(dtype=self.dtype, name="dwconv")(y), approximate=False)
        return self.adapters(dense(x.shape[-1], name="fc2")(y), y, "fc2")


class Block(nn.Module):
    """Pre-norm transformer block; ``keep`` [2, B] scales its two branches (drop path)."""

    heads: int
    mlp_ratio: int
    sr_ratio: int
    dtype: Any = jnp.float32
    adapters: Adapters = Adapters()

    @nn.compact
    def __call__(self, x: jax.Array, keep: jax.Array | None = None) -> jax.Array:
        y = layer_norm(BLOCK_EPSILON, self.dtype, "norm1")(x)
        y = Attention(self.heads, self.sr_ratio, self.dtype, self.adapters, name="attn")(y)
        x = x + (y if keep is None else y * keep[0, :, None, None, None].astype(y.dtype))
        y = layer_norm(BLOCK_EPSILON, self.dtype, "norm2")(x)
        y = MixFFN(self.mlp_ratio * x.shape[-1], self.dtype, self.adapters, name="mlp")(y)
        return x + (y if keep is None else y * keep[1, :, None, None, None].astype(y.dtype))


class MiT(nn.Module):
    """Four stages of overlapping patches and transformer blocks, at strides 4, 8, 16 and 32.

    Attributes:
        dims, depths, heads, mlp_ratios, sr_ratios: one value a stage.
        drop_path: rate of the last block; rates grow linearly from 0.
        lora_rank, lora_alpha, lora_parts: low-rank adapters of every block, see `Adapters`.
        scan: run the equal blocks of a stage as one compiled loop: compile time does not grow with depth. Parameters
            are the same either way.
        remat: recompute each block in the backward pass instead of storing its inner values.
        stored: what of a block is stored nevertheless, see `models.remat`.
        dtype: compute dtype; parameters, norm statistics and softmax stay float32.
    """

    dims: tuple[Count, ...]
    depths: tuple[Count, ...]
    heads: tuple[Count, ...] = (1, 2, 5, 8)
    mlp_ratios: tuple[int, ...] = (4, 4, 4, 4)
    sr_ratios: tuple[int, ...] = (8, 4, 2, 1)
    drop_path: float = 0.1
    lora_rank: int = 0
    lora_alpha: float = 16.0
    lora_parts: tuple[str, ...] = PARTS
    scan: bool = True
    remat: bool = False
    stored: Stored = "inputs"
    dtype: Any = jnp.float32

    @property
    def stacks(self) -> tuple[Stack, ...]:
        """The blocks of each stage, see `core.stacks`."""
        return tuple(Stack(f"block{stage}") for stage, depth in enumerate(self.depths, start=1) if depth)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False, deterministic: bool | None = None) -> dict[str, jax.Array]:
        """Features of a normalized image.

        Args:
            x: [B, H, W, 3] float32.
            train: without batch norm it only sets the default of ``deterministic``.
            deterministic: True switches drop path off; needs no ``dropout`` stream then.

        Returns:
            ``stage1`` .. ``stage4``: [B, ceil(H/s), ceil(W/s), dims[i]], s = 4, 8, 16, 32.
        """
        deterministic = not train if deterministic is None else deterministic
        keep = None
        if not deterministic and self.drop_path > 0:
            keep = self.drop_path_scales(x.shape[0])
        block_class = rematerialized(Block, self.stored) if self.remat else Block
        adapters = Adapters(self.lora_rank, self.lora_alpha, self.lora_parts, self.dtype)
        features, first = {}, 0
        for stage, depth in enumerate(self.depths, start=1):
            i = stage - 1
            embed = PatchEmbed(
                self.dims[i],
                kernel=7 if stage == 1 else 3,
                stride=4 if stage == 1 else 2,
                dtype=self.dtype,
                name=f"patch_embed{stage}",
            )
            x = embed(x)
            block = block_class(self.heads[i], self.mlp_ratios[i], self.sr_ratios[i], self.dtype, adapters, parent=None)
            if depth:
                params = stacked_params(self, f"block{stage}", block, depth, x)
                x = scan_blocks(
                    [block], [params], x, None if keep is None else keep[first : first + depth], unroll=not self.scan
                )
            first += depth
            x = layer_norm(BLOCK_EPSILON, self.dtype, f"norm{stage}")(x)
            features[f"stage{stage}"] = x
        return features

    def drop_path_scales(self, batch: int) -> jax.Array:
        """Rate of drop path of each block, see `transformer.drop_path_scales`."""
        return drop_path_scales(self.make_rng("dropout"), self.drop_path, sum(self.depths), batch)


_B_DIMS = (64, 128, 320, 512)
VARIANTS = {
    "mit_b0": {"dims": (32, 64, 160, 256), "depths": (2, 2, 2, 2)},
    "mit_b1": {"dims": _B_DIMS, "depths": (2, 2, 2, 2)},
    "mit_b2": {"dims": _B_DIMS, "depths": (3, 4, 6, 3)},
    "mit_b3": {"dims": _B_DIMS, "depths": (3, 4, 18, 3)},
    "mit_b4": {"dims": _B_DIMS, "depths": (3, 8, 27, 3)},
    "mit_b5": {"dims": _B_DIMS, "depths": (3, 6, 40, 3)},
    "mit_tiny": {"dims": (8, 8, 16, 24), "depths": (1, 2, 1, 1), "heads": (1, 2, 4, 3)},
}
"""Arguments of :class:`MiT` by name; ``mit_tiny`` is for tests."""
