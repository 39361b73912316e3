# SPDX-License-Identifier: Apache-2.0
"""Low-rank adapters (LoRA, arXiv 2106.09685): small trained pairs beside frozen linear maps, and how they merge.

``y = W x + b + alpha / rank * B (A x)``. The pair of a linear map is a module beside it, ``lora_<part>`` with the
parameters ``a`` [in, rank] and ``b`` [rank, out]. Query, key and value have pairs of their own even where one matrix
holds all three, as PEFT has them on transformers' names. ``b`` is 0 at first, so the first output is the base's.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from nightjax.core.errors import UserError
from nightjax.core.types import PyTree
from nightjax.models.initializers import torch_uniform

PREFIX = "lora_"
"""Beginning of the name of every adapter's module."""

PARTS = ("q", "k", "v", "proj", "fc1", "fc2")
"""Linear maps of a transformer block that may have an adapter."""

PLACES = {
    "q": (("qkv", 0, 3), ("q", 0, 1)),
    "k": (("qkv", 1, 3), ("kv", 0, 2)),
    "v": (("qkv", 2, 3), ("kv", 1, 2)),
    "proj": (("proj", 0, 1),),
    "fc1": (("fc1", 0, 1), ("layers_0_0", 0, 1)),
    "fc2": (("fc2", 0, 1), ("layers_1", 0, 1)),
}
"""Part to where its weights may be: a module beside the adapter, and which of how many equal shares of its outputs."""


class LowRank(nn.Module):
    """The output of one pair: [..., in] to [..., features]; kernels float32, computed in ``dtype``."""

    features: int
    rank: int
    alpha: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        a = self.param("a", torch_uniform, (x.shape[-1], self.rank), jnp.float32)
        b = self.param("b", nn.initializers.zeros, (self.rank, self.features), jnp.float32)
        down = jnp.dot(x.astype(self.dtype), a.astype(self.dtype))
        return jnp.dot(down, b.astype(self.dtype)) * (self.alpha / self.rank)


@dataclasses.dataclass(frozen=True)
class Adapters:
    """Which linear maps of a network have a pair, and of which rank.

    Attributes:
        rank: of the pairs; 0 for none.
        alpha: their outputs are scaled by ``alpha / rank``.
        parts: of `PARTS`.
        dtype: compute dtype.
    """

    rank: int = 0
    alpha: float = 16.0
    parts: tuple[str, ...] = PARTS
    dtype: Any = jnp.float32

    def __post_init__(self):
        if self.rank < 0:
            raise UserError(f"model.backbone_lora_rank={self.rank} must be 0 (no adapters) or more")
        if unknown := sorted(set(self.parts) - set(PARTS)):
            raise UserError(f"model.backbone_lora_parts: {unknown[0]!r} is unknown; choose from {', '.join(PARTS)}")

    def __call__(self, y: jax.Array, x: jax.Array, part: str) -> jax.Array:
        """``y``, which a linear map made of ``x``, with its pair's output; called inside a compact method."""
        if not self.rank or part not in self.parts:
            return y
        return y + LowRank(y.shape[-1], self.rank, self.alpha, dtype=self.dtype, name=f"{PREFIX}{part}")(x)

    def together(self, y: jax.Array, x: jax.Array, parts: tuple[str, ...]) -> jax.Array:
        """The same where one linear map makes several parts, equal shares of its outputs."""
        if not self.rank or not set(parts) & set(self.parts):
            return y
        shares = jnp.split(y, len(parts), axis=-1)
        return jnp.concatenate([self(share, x, part) for share, part in zip(shares, parts, strict=True)], axis=-1)


def has_adapters(params: PyTree) -> bool:
    """Whether a tree of parameters holds any adapter."""
    return isinstance(params, Mapping) and any(
        name.startswith(PREFIX) or has_adapters(child) for name, child in params.items()
    )


def merged(params: PyTree, alpha: float) -> PyTree:
    """Parameters whose linear maps include their adapters, and which hold none: those of the network without.

    Args:
        params: of a network or a part of one; equal blocks may be stacked along a leading axis.
        alpha: of `Adapters`.

    Returns:
        A new tree; products and sums are float32.
    """
    if not isinstance(params, Mapping):
        return params
    found = {name: merged(child, alpha) for name, child in params.items() if not name.startswith(PREFIX)}
    for name, pair in params.items():
        if name.startswith(PREFIX):
            module, share, shares = next(place for place in PLACES[name.removeprefix(PREFIX)] if place[0] in found)
            kernel = jnp.asarray(found[module]["kernel"])
            product = jnp.matmul(pair["a"], pair["b"], precision=jax.lax.Precision.HIGHEST)
            width = kernel.shape[-1] // shares
            own = slice(share * width, (share + 1) * width)
            delta = product * (alpha / pair["a"].shape[-1])
            found[module] = {**found[module], "kernel": kernel.at[..., own].add(delta)}
    return found
