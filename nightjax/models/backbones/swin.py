# SPDX-License-Identifier: Apache-2.0
"""Swin Transformer (arXiv 2103.14030, section 3) for dense prediction, as in mmsegmentation.

Parameters are named as there; ``interop.swin_names`` converts the official checkpoints.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from nightjax.core.ranges import Count
from nightjax.core.stacks import Stack
from nightjax.models.adapters import PARTS, Adapters
from nightjax.models.backbones.transformer import drop_path_scales, layer_norm, linear_init, scan_blocks, stacked_params
from nightjax.models.layers import Conv
from nightjax.models.remat import Stored, rematerialized

EPSILON = 1e-5
"""LayerNorm epsilon everywhere."""

BLOCKED = -100.0
"""Added to the attention logits between tokens that the cyclic shift made neighbors."""


def relative_position_index(window: int) -> np.ndarray:
    """Row of the bias table for each pair of tokens of a window, [window**2, window**2] int."""
    row, column = np.divmod(np.arange(window * window), window)
    rows = row[:, None] - row + window - 1
    columns = column[:, None] - column + window - 1
    return rows * (2 * window - 1) + columns


def shift_mask(height: int, width: int, window: int, shift: int) -> np.ndarray:
    """Additive mask [windows, window**2, window**2] of a map that was rolled by ``shift``.

    Args:
        height, width: of the map, multiples of ``window``.
        window: side of a window.
        shift: 0 < shift < window.
    """

    def region(size):
        return np.repeat([0, 1, 2], [size - window, window - shift, shift])

    regions = 3 * region(height)[:, None] + region(width)
    regions = _windows(regions[None, :, :, None], window)[0, ..., 0]
    return np.where(regions[:, :, None] == regions[:, None, :], 0.0, BLOCKED).astype(np.float32)


def _windows(x, window):
    """[B, H, W, C] to [B, windows, window**2, C]."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // window, window, width // window, window, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, window * window, channels)


def _merge_windows(x, height, width, window):
    """The inverse of `_windows`."""
    batch, _, _, channels = x.shape
    x = x.reshape(batch, height // window, width // window, window, window, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height, width, channels)


class WindowAttention(nn.Module):
    """Attention within windows, with a learned bias for each relative position."""

    heads: int
    window: int
    dtype: Any = jnp.float32
    adapters: Adapters = Adapters()

    @nn.compact
    def __call__(self, x: jax.Array, mask: np.ndarray | None) -> jax.Array:
        """[B, windows, tokens, C] to the same; ``mask`` [windows, tokens, tokens] is added."""
        batch, count, tokens, dim = x.shape
        dense = functools.partial(nn.Dense, dtype=self.dtype, kernel_init=linear_init)
        shape = (batch, count, tokens, 3, self.heads, dim // self.heads)
        y = self.adapters.together(dense(3 * dim, name="qkv")(x), x, ("q", "k", "v"))
        query, key, value = jnp.moveaxis(y.reshape(shape), 3, 0)
        logits = jnp.einsum("bwqhc,bwkhc->bwhqk", query, key).astype(jnp.float32)
        shape = ((2 * self.window - 1) ** 2, self.heads)
        table = self.param("relative_position_bias_table", linear_init, shape, jnp.float32)
        bias = table[relative_position_index(self.window)].transpose(2, 0, 1)
        logits = logits * (dim // self.heads) ** -0.5 + bias
        if mask is not None:
            logits = logits + mask[:, None]
        weights = jax.nn.softmax(logits).astype(self.dtype)
        out = jnp.einsum("bwhqk,bwkhc->bwqhc", weights, value).reshape(batch, count, tokens, dim)
        return self.adapters(dense(dim, name="proj")(out), out, "proj")


class ShiftedAttention(nn.Module):
    """Window attention of a map of any size: zeros at the bottom and right, then a cyclic shift."""

    heads: int
    window: int
    shift: int
    dtype: Any = jnp.float32
    adapters: Adapters = Adapters()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        _, height, width, _ = x.shape
        x = _pad_to_multiple(x, self.window)
        rows, columns = x.shape[1:3]
        mask = None
        if self.shift:
            x = jnp.roll(x, (-self.shift, -self.shift), (1, 2))
            mask = shift_mask(rows, columns, self.window, self.shift)
        attention = WindowAttention(self.heads, self.window, self.dtype, self.adapters, name="w_msa")
        x = _merge_windows(attention(_windows(x, self.window), mask), rows, columns, self.window)
        if self.shift:
            x = jnp.roll(x, (self.shift, self.shift), (1, 2))
        return x[:, :height, :width]


class FeedForward(nn.Module):
    """Linear, exact GELU, linear."""

    hidden: int
    dtype: Any = jnp.float32
    adapters: Adapters = Adapters()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dense = functools.partial(nn.Dense, dtype=self.dtype, kernel_init=linear_init)
        y = nn.gelu(self.adapters(dense(self.hidden, name="layers_0_0")(x), x, "fc1"), approximate=False)
        return self.adapters(dense(x.shape[-1], name="layers_1")(y), y, "fc2")


class Block(nn.Module):
    """Pre-norm transformer block; ``keep`` [2, B] scales its two branches (drop path)."""

    heads: int
    window: int
    shift: int
    mlp_ratio: int
    dtype: Any = jnp.float32
    adapters: Adapters = Adapters()

    @nn.compact
    def __call__(self, x: jax.Array, keep: jax.Array | None = None) -> jax.Array:
        y = layer_norm(EPSILON, self.dtype, "norm1")(x)
        attention = ShiftedAttention(self.heads, self.window, self.shift, self.dtype, self.adapters, name="attn")
        x = x + _scaled(attention(y), keep, 0)
        y = layer_norm(EPSILON, self.dtype, "norm2")(x)
        y = FeedForward(self.mlp_ratio * x.shape[-1], self.dtype, self.adapters, name="ffn")(y)
        return x + _scaled(y, keep, 1)


def _scaled(y, keep, branch):
    return y if keep is None else y * keep[branch, :, None, None, None].astype(y.dtype)


class PatchEmbed(nn.Module):
    """Non-overlapping strided convolution and LayerNorm, zeros at the bottom and right."""

    dim: int
    patch: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = Conv(
            self.dim,
            kernel=self.patch,
            stride=self.patch,
            padding=0,
            use_bias=True,
            dtype=self.dtype,
            name="projection",
        )(_pad_to_multiple(x, self.patch))
        return layer_norm(EPSILON, self.dtype, "norm")(x)


class PatchMerging(nn.Module):
    """Four neighboring cells, channel by channel, to one of twice the channels."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, height, width, dim = (x := _pad_to_multiple(x, 2)).shape
        x = x.reshape(batch, height // 2, 2, width // 2, 2, dim).transpose(0, 1, 3, 5, 2, 4)
        x = layer_norm(EPSILON, self.dtype, "norm")(x.reshape(batch, height // 2, width // 2, -1))
        reduction = nn.Dense(2 * dim, use_bias=False, dtype=self.dtype, kernel_init=linear_init, name="reduction")
        return reduction(x)


def stage_stacks(depth: int) -> tuple[Stack, ...]:
    """The stacks of a stage, see `core.stacks`: one for each kind of windows; none in a stage of a single block."""
    if depth < 2:
        return ()
    regular = Stack("blocks_regular", block="blocks", first=0, step=2)
    shifted = Stack("blocks_shifted", block="blocks", first=1, step=2)
    return regular, shifted


class Stage(nn.Module):
    """Blocks of regular and shifted windows in turn, and the merging that leads to the next stage."""

    depth: int
    heads: int
    window: int
    mlp_ratio: int
    merges: bool
    scan: bool
    remat: bool
    stored: Stored
    dtype: Any = jnp.float32
    adapters: Adapters = Adapters()

    @property
    def stacks(self) -> tuple[Stack, ...]:
        """Stacks of equal blocks among the parameters, see `core.stacks`."""
        return stage_stacks(self.depth)

    @nn.compact
    def __call__(self, x: jax.Array, keep: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """The stage's feature and the next stage's input; ``keep`` is [depth, 2, B] or None."""
        block_class = rematerialized(Block, self.stored) if self.remat else Block

        def block(i, **options):
            shift = self.window // 2 * (i % 2)
            return block_class(self.heads, self.window, shift, self.mlp_ratio, self.dtype, self.adapters, **options)

        if pairs := self.depth // 2:
            pair = [block(i, parent=None) for i in range(2)]
            params = [
                stacked_params(self, stack.path, each, pairs, x) for stack, each in zip(self.stacks, pair, strict=True)
            ]
            x = scan_blocks(pair, params, x, None if keep is None else keep[: 2 * pairs], unroll=not self.scan)
        if self.depth % 2:
            x = block(self.depth - 1, name=f"blocks_{self.depth - 1}")(x, None if keep is None else keep[-1])
        return x, PatchMerging(dtype=self.dtype, name="downsample")(x) if self.merges else x


class Swin(nn.Module):
    """Stages of windowed transformer blocks at strides 4, 8, 16 and 32.

    Attributes:
        dim: channels of the first stage; each next has twice as many.
        depths, heads: one value a stage.
        window: side of a window, 7 (ImageNet at 224) or 12 (at 384).
        mlp_ratio: hidden width of the feed-forward layers.
        drop_path: rate of the last block; rates grow linearly from 0.
        lora_rank, lora_alpha, lora_parts: low-rank adapters of every block, see `Adapters`.
        patch: side of the patches of the first embedding.
        scan: run the equal pairs of blocks of a stage as one compiled loop; weights are the same.
        remat: recompute each block in the backward pass instead of storing its inner values.
        stored: what of a block is stored nevertheless, see `models.remat`.
        dtype: compute dtype; parameters, norm statistics and softmax stay float32.
    """

    dim: int
    depths: tuple[Count, ...]
    heads: tuple[Count, ...]
    window: int = 7
    mlp_ratio: int = 4
    drop_path: float = 0.3
    lora_rank: int = 0
    lora_alpha: float = 16.0
    lora_parts: tuple[str, ...] = PARTS
    patch: int = 4
    scan: bool = True
    remat: bool = False
    stored: Stored = "inputs"
    dtype: Any = jnp.float32

    @property
    def stacks(self) -> tuple[Stack, ...]:
        """Those of the stages, see `stage_stacks`."""
        return tuple(
            stack.inside(f"stages_{i}") for i, depth in enumerate(self.depths) for stack in stage_stacks(depth)
        )

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False, deterministic: bool | None = None) -> dict[str, jax.Array]:
        """Features of a normalized image.

        Args:
            x: [B, H, W, 3] float32.
            train: without batch norm it only sets the default of ``deterministic``.
            deterministic: True switches drop path off; needs no ``dropout`` stream then.

        Returns:
            ``stage1`` .. : [B, ceil(H/s), ceil(W/s), C] after each stage's output norm.
        """
        deterministic = not train if deterministic is None else deterministic
        keep = None
        if not deterministic and self.drop_path > 0:
            keep = self.drop_path_scales(x.shape[0])
        x = PatchEmbed(self.dim, self.patch, dtype=self.dtype, name="patch_embed")(x)
        features, first = {}, 0
        for i, depth in enumerate(self.depths):
            stage = Stage(
                depth,
                self.heads[i],
                self.window,
                self.mlp_ratio,
                merges=i + 1 < len(self.depths),
                scan=self.scan,
                remat=self.remat,
                stored=self.stored,
                dtype=self.dtype,
                adapters=Adapters(self.lora_rank, self.lora_alpha, self.lora_parts, self.dtype),
                name=f"stages_{i}",
            )
            out, x = stage(x, None if keep is None else keep[first : first + depth])
            first += depth
            features[f"stage{i + 1}"] = layer_norm(EPSILON, self.dtype, f"norm{i}")(out)
        return features

    def drop_path_scales(self, batch: int) -> jax.Array:
        """Rate of drop path of each block, see `transformer.drop_path_scales`."""
        return drop_path_scales(self.make_rng("dropout"), self.drop_path, sum(self.depths), batch)


def _pad_to_multiple(x, factor):
    rows, columns = (-n % factor for n in x.shape[1:3])
    return jnp.pad(x, ((0, 0), (0, rows), (0, columns), (0, 0))) if rows or columns else x


VARIANTS = {
    "swin_t": {"dim": 96, "depths": (2, 2, 6, 2), "heads": (3, 6, 12, 24)},
    "swin_s": {"dim": 96, "depths": (2, 2, 18, 2), "heads": (3, 6, 12, 24)},
    "swin_b": {"dim": 128, "depths": (2, 2, 18, 2), "heads": (4, 8, 16, 32)},
    "swin_b_384": {"dim": 128, "depths": (2, 2, 18, 2), "heads": (4, 8, 16, 32), "window": 12},
    "swin_tiny": {"dim": 8, "depths": (2, 2, 4, 2), "heads": (1, 2, 2, 4), "window": 4},
}
"""Arguments of :class:`Swin` by name; ``swin_tiny`` is for tests."""
