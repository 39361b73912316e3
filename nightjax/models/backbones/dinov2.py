# SPDX-License-Identifier: Apache-2.0
"""DINOv2's plain vision transformers (arXiv 2304.07193), with and without registers (arXiv 2309.16588).

Parameters are named as in the published files of facebookresearch/dinov2; ``interop.dinov2_names`` has transformers'
names. Facts are from that program's ``models/vision_transformer.py`` and ``layers``.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from nightjax.core.errors import UserError, choose
from nightjax.core.stacks import Stack
from nightjax.models.adapters import PARTS, Adapters
from nightjax.models.backbones.transformer import (
    attention,
    drop_path_scales,
    layer_norm,
    linear_init,
    loop,
    scan_blocks,
    stacked_params,
)
from nightjax.models.fit import PatchFit
from nightjax.models.initializers import normal
from nightjax.models.layers import Conv
from nightjax.models.remat import Stored, rematerialized
from nightjax.ops.bicubic import antialiased_matrix, clamped_matrix

EPSILON = 1e-6
"""LayerNorm epsilon everywhere."""

POSITION_RULES = {
    "offset": lambda before, after: clamped_matrix(before, after, (after + 0.1) / before),
    "size": lambda before, after: clamped_matrix(before, after, after / before),
    "antialias": antialiased_matrix,
}
"""How the position embedding is brought to another grid, along one axis: as the published program does without
registers, as transformers does without registers, and as both do with registers."""


def resized_positions(positions: jax.Array, grid: tuple[int, int], size: tuple[int, int], rule: str) -> jax.Array:
    """Position embeddings of patches on another grid.

    Args:
        positions: [1, M * M, C], row by row.
        grid: (h, w) of the patches.
        size: (H, W) of the image.
        rule: key of `POSITION_RULES`.

    Returns:
        [1, h * w, C] float32; for a square image of M * M patches ``positions`` as they are.
    """
    side = math.isqrt(positions.shape[1])
    if grid[0] * grid[1] == positions.shape[1] and size[0] == size[1]:
        return positions
    build = choose(POSITION_RULES, rule, "model.backbone_pos_rule")
    rows, columns = (jnp.asarray(build(side, n), jnp.float32) for n in grid)
    table = positions.astype(jnp.float32).reshape(side, side, -1)
    table = jnp.einsum("hi,ijc,wj->hwc", rows, table, columns, precision=lax.Precision.HIGHEST)
    return table.reshape(1, grid[0] * grid[1], -1)


class PatchEmbed(nn.Module):
    """Non-overlapping strided convolution with bias: [B, H, W, 3] to [B, H / patch, W / patch, dim]."""

    dim: int
    patch: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        options = {"kernel": self.patch, "stride": self.patch, "padding": 0, "use_bias": True, "dtype": self.dtype}
        return Conv(self.dim, name="proj", **options)(x)


class LayerScale(nn.Module):
    """A trained factor for each channel."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        gamma = self.param("gamma", nn.initializers.ones, x.shape[-1:], jnp.float32)
        return x * gamma.astype(x.dtype)


class Attention(nn.Module):
    """Attention of every token to all, [B, N, C] to the same; float32 softmax."""

    heads: int
    adapters: Adapters = Adapters()
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, tokens, dim = x.shape
        dense = functools.partial(nn.Dense, dtype=self.dtype, kernel_init=linear_init)
        y = self.adapters.together(dense(3 * dim, name="qkv")(x), x, ("q", "k", "v"))
        query, key, value = jnp.moveaxis(y.reshape(batch, tokens, 3, self.heads, dim // self.heads), 2, 0)
        y = attention(query, key, value).reshape(x.shape)
        return self.adapters(dense(dim, name="proj")(y), y, "proj")


class MLP(nn.Module):
    """Linear, exact GELU, linear; four times as wide inside."""

    adapters: Adapters = Adapters()
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dense = functools.partial(nn.Dense, dtype=self.dtype, kernel_init=linear_init)
        y = nn.gelu(self.adapters(dense(4 * x.shape[-1], name="fc1")(x), x, "fc1"), approximate=False)
        return self.adapters(dense(x.shape[-1], name="fc2")(y), y, "fc2")


class SwiGLU(nn.Module):
    """The giant network's feed-forward layer: one half gates the other; no adapters."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dense = functools.partial(nn.Dense, dtype=self.dtype, kernel_init=linear_init)
        hidden = (int(4 * x.shape[-1] * 2 / 3) + 7) // 8 * 8
        gate, y = jnp.split(dense(2 * hidden, name="w12")(x), 2, axis=-1)
        return dense(x.shape[-1], name="w3")(nn.silu(gate) * y)


class Block(nn.Module):
    """Pre-norm block on tokens [B, N, C]; ``keep`` [2, B] scales its two branches (drop path)."""

    heads: int
    ffn: str = "mlp"
    adapters: Adapters = Adapters()
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, keep: jax.Array | None = None) -> jax.Array:
        scale = lambda y, i: y if keep is None else y * keep[i, :, None, None].astype(y.dtype)
        y = layer_norm(EPSILON, self.dtype, "norm1")(x)
        y = Attention(self.heads, self.adapters, dtype=self.dtype, name="attn")(y)
        x = x + scale(LayerScale(name="ls1")(y), 0)
        y = layer_norm(EPSILON, self.dtype, "norm2")(x)
        if self.ffn == "swiglu":
            y = SwiGLU(dtype=self.dtype, name="mlp")(y)
        else:
            y = MLP(self.adapters, dtype=self.dtype, name="mlp")(y)
        return x + scale(LayerScale(name="ls2")(y), 1)


class DinoV2(nn.Module):
    """A plain vision transformer whose features all have the stride of its patches.

    Attributes:
        dim, depth, heads: width of the tokens, number of blocks, heads of each.
        ffn: ``"mlp"``, or ``"swiglu"`` of the giant network.
        registers: tokens beside the class token that belong to no patch.
        patch: side of a patch in pixels.
        pretrain_size: side of the square images that the position embedding is made for.
        pos_rule: how it is brought to other sizes, key of `POSITION_RULES`.
        layers: blocks, counted from 0, whose outputs are ``stage1`` .. ``stage4``.
        fit: what happens to images whose sides are no multiples of the patch, see `PatchFit`.
        drop_path: rate of the last block; rates grow linearly from 0.
        lora_rank, lora_alpha, lora_parts: low-rank adapters of every block, see `Adapters`.
        scan: run the blocks as one compiled loop; weights are the same.
        remat: recompute each block in the backward pass instead of storing its inner values.
        stored: what of a block is stored nevertheless, see `models.remat`.
        dtype: compute dtype; parameters, norm statistics, softmax and the resizing of positions stay float32.
    """

    dim: int
    depth: int
    heads: int
    ffn: str = "mlp"
    registers: int = 0
    patch: int = 14
    pretrain_size: int = 518
    pos_rule: str = "offset"
    layers: tuple[int, ...] = (2, 5, 8, 11)
    fit: str = "none"
    drop_path: float = 0.0
    lora_rank: int = 0
    lora_alpha: float = 16.0
    lora_parts: tuple[str, ...] = PARTS
    scan: bool = True
    remat: bool = False
    stored: Stored = "inputs"
    dtype: Any = jnp.float32

    stacks = (Stack("blocks"),)

    @property
    def image_fit(self) -> PatchFit:
        """How an image is brought to whole patches, see `models.fit`."""
        return PatchFit(self.fit, self.patch)

    def setup(self):
        choose(dict.fromkeys(("mlp", "swiglu")), self.ffn, "model.backbone_ffn")
        if list(self.layers) != sorted(set(self.layers)) or not 0 <= self.layers[0] <= self.layers[-1] < self.depth:
            raise UserError(f"model.backbone_layers={self.layers} must grow and be below the {self.depth} blocks")
        patches = (self.pretrain_size // self.patch) ** 2
        self.patch_embed = PatchEmbed(self.dim, self.patch, dtype=self.dtype)
        self.cls_token = self.param("cls_token", normal(1e-6), (1, 1, self.dim))
        self.pos_embed = self.param("pos_embed", linear_init, (1, 1 + patches, self.dim))
        if self.registers:
            self.register_tokens = self.param("register_tokens", normal(1e-6), (1, self.registers, self.dim))
        self.mask_token = self.param("mask_token", nn.initializers.zeros, (1, self.dim))
        self.blocks_params = stacked_params(self, "blocks", self._block(), self.depth, jnp.zeros((1, 2, self.dim)))
        self.norm = nn.LayerNorm(epsilon=EPSILON, dtype=self.dtype, use_fast_variance=False)

    def __call__(
        self,
        x: jax.Array,
        *,
        train: bool = False,
        deterministic: bool | None = None,
        token_mask: jax.Array | None = None,
    ) -> dict[str, jax.Array]:
        """Features of a normalized image.

        Args:
            x: [B, H, W, 3] float32, brought to whole patches by ``fit``.
            train: without batch norm it only sets the default of ``deterministic``.
            deterministic: True switches drop path off; needs no ``dropout`` stream then.
            token_mask: [B, h * w] bool, patches that are replaced by the mask token, or None.

        Returns:
            ``stage1`` .. : [B, h, w, dim] of each of ``layers``, all through the last norm.
        """
        deterministic = not train if deterministic is None else deterministic
        x = self.image_fit.image(x)
        height, width = (side // self.patch for side in x.shape[1:3])
        tokens = self.embed(x, token_mask)
        keep = None
        if not deterministic and self.drop_path > 0:
            keep = drop_path_scales(self.make_rng("dropout"), self.drop_path, self.depth, len(x))
        features = {}
        for i, outputs in enumerate(self.outputs(tokens, self.layers, keep), start=1):
            outputs = self.norm(outputs[:, 1 + self.registers :])
            features[f"stage{i}"] = outputs.reshape(len(x), height, width, self.dim)
        return features

    def embed(self, x: jax.Array, token_mask: jax.Array | None = None) -> jax.Array:
        """What the first block reads of images [B, H, W, 3] of whole patches: [B, 1 + registers + h * w, dim]."""
        patches = self.patch_embed(x)
        grid = patches.shape[1], patches.shape[2]
        patches = patches.reshape(len(x), -1, self.dim)
        if token_mask is not None:
            patches = jnp.where(token_mask[..., None], self.mask_token.astype(self.dtype), patches)
        place = resized_positions(self.pos_embed[:, 1:], grid, (x.shape[1], x.shape[2]), self.pos_rule)
        first = self.cls_token + self.pos_embed[:, :1]
        if self.registers:
            first = jnp.concatenate([first, self.register_tokens], axis=1)
        first = jnp.broadcast_to(first.astype(self.dtype), (len(x), *first.shape[1:]))
        return jnp.concatenate([first, patches + place.astype(self.dtype)], axis=1)

    def outputs(self, tokens: jax.Array, layers: Sequence[int], keep: jax.Array | None = None) -> list[jax.Array]:
        """Tokens after some of the blocks, before the last norm.

        Blocks run in loops of equal length that end at those blocks, so that the outputs of others are not kept and
        the stacked parameters are not cut into pieces.

        Args:
            tokens: [B, N, dim], see `embed`.
            layers: blocks, growing from 0.
            keep: see `transformer.drop_path_scales`.
        """
        block, length = self._block(), math.gcd(*(layer + 1 for layer in layers))
        used = layers[-1] + 1
        split = lambda part: part[:used].reshape(used // length, length, *part.shape[1:])

        def run(x, part):
            block_params, scales = part
            x = scan_blocks([block], [block_params], x, scales, unroll=not self.scan)
            return x, x

        parts = (jax.tree.map(split, self.blocks_params), None if keep is None else split(keep))
        _, kept = loop(run, tokens, parts, not self.scan)
        return [kept[(layer + 1) // length - 1] for layer in layers]

    @nn.nowrap
    def _block(self) -> nn.Module:
        adapters = Adapters(self.lora_rank, self.lora_alpha, self.lora_parts, self.dtype)
        block_class = rematerialized(Block, self.stored) if self.remat else Block
        return block_class(self.heads, self.ffn, adapters, self.dtype, parent=None)

    @nn.nowrap
    def token_count(self, size: Sequence[int]) -> int:
        """Number of patches of an image of ``size`` (H, W)."""
        return int(np.prod([side // self.patch for side in self.image_fit.sides(tuple(size))]))


_QUARTERS = {"layers": (5, 11, 17, 23)}
_SIZES = {
    "s": {"dim": 384, "depth": 12, "heads": 6},
    "b": {"dim": 768, "depth": 12, "heads": 12},
    "l": {"dim": 1024, "depth": 24, "heads": 16, **_QUARTERS},
    "g": {"dim": 1536, "depth": 40, "heads": 24, "ffn": "swiglu", "layers": (9, 19, 29, 39)},
}
_REGISTERS = {"registers": 4, "pos_rule": "antialias"}
VARIANTS: dict[str, dict[str, Any]] = {
    **{f"dinov2_{name}": options for name, options in _SIZES.items()},
    **{f"dinov2_{name}_reg": options | _REGISTERS for name, options in _SIZES.items()},
    "dinov2_tiny": {"dim": 32, "depth": 4, "heads": 4, "pretrain_size": 84, "layers": (0, 1, 2, 3)},
    "vit_tiny": {"dim": 96, "depth": 4, "heads": 3, "patch": 8, "pretrain_size": 128, "layers": (0, 1, 2, 3)},
}
"""Arguments of :class:`DinoV2` by name. ``dinov2_tiny`` is for tests; ``vit_tiny``, which has no published weights,
for small images too."""
