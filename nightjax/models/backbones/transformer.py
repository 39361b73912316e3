# SPDX-License-Identifier: Apache-2.0
"""What the transformer backbones share: norms, drop path, and loops over equal blocks that are compiled once."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from nightjax.core import sharding, targets
from nightjax.core.fused_init import stacked_init
from nightjax.core.stacks import stacks_of
from nightjax.models.initializers import normal

linear_init = normal(0.02)
"""The official ``trunc_normal_(std=0.02)`` cuts at 2 itself, not at two deviations, which is a hundred of them."""


def layer_norm(epsilon: float, dtype: Any, name: str) -> nn.LayerNorm:
    """LayerNorm over channels with an accurate float32 variance."""
    return nn.LayerNorm(epsilon=epsilon, dtype=dtype, use_fast_variance=False, name=name)


ATTENTION_LIMIT = 1 << 26
"""Entries of one example's attention matrices, all heads together, that are in memory at a time where the target wants
them in rows: 256 MiB in float32."""


def attention(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """Softmax attention of tokens [B, N, heads, C], in the library's form; the softmax is float32.

    Where the target wants it (`core.targets`), more queries than fit into `ATTENTION_LIMIT` are taken in groups, one
    after another, and the backward pass computes each group's matrix again.
    """
    tokens, heads = query.shape[1:3]
    groups = -(-heads * tokens * key.shape[1] // ATTENTION_LIMIT)
    if groups == 1 or targets.forms().attention == "whole":
        return jax.nn.dot_product_attention(query, key, value)
    rows = -(-tokens // groups)
    padded = jnp.pad(query, ((0, 0), (0, rows * groups - tokens), (0, 0), (0, 0)))
    split = jnp.moveaxis(padded.reshape(len(query), groups, rows, *query.shape[2:]), 1, 0)
    found = jax.lax.map(jax.checkpoint(lambda part: jax.nn.dot_product_attention(part, key, value)), split)
    return jnp.moveaxis(found, 0, 1).reshape(padded.shape)[:, :tokens]


def drop_path_scales(key: jax.Array, rate: float, blocks: int, batch: int) -> jax.Array:
    """Factors of both branches of every block; rates grow linearly from 0 to ``rate`` at the last block.

    Returns:
        float32 [blocks, 2, B]: 0 where a branch is dropped for an example, else 1 / (1 - rate of the block).
    """
    kept = 1 - np.linspace(0, rate, blocks, dtype=np.float32)[:, None, None]
    return jax.random.bernoulli(key, kept, (blocks, 2, batch)) / kept


def stacked_params(module: nn.Module, name: str, block: nn.Module, count: int, x: jax.Array) -> Any:
    """Parameters of ``count`` equal blocks, as one tree ``name`` of ``module`` whose arrays have a leading axis of
    blocks.

    Args:
        module: whose compact method calls.
        name: path of one of the module's `stacks`, from which optimizers and torch checkpoints know of the axis.
        block: unbound, called with ``(x, keep)``; has parameters only.
        count: at least one.
        x: an input.

    Raises:
        ValueError: the module does not declare the stack.
    """
    if name not in [stack.path for stack in stacks_of(module)]:
        raise ValueError(f"{type(module).__name__} makes a stack {name!r} that its attribute `stacks` does not declare")
    if module.is_initializing():
        module.param(name, stacked_init(lambda key: block.init(key, x)["params"], count))
    return module.variables["params"][name]


def scan_blocks(
    blocks: Sequence[nn.Module], params: Sequence[Any], x: jax.Array, keep: jax.Array | None, unroll: bool = False
) -> jax.Array:
    """Applies a repeating sequence of blocks in a loop that is compiled once.

    Args:
        blocks: one period, unbound modules called with ``(x, keep)``.
        params: of each block of the period, see `stacked_params`.
        x: input of the first block, of the shape of every output.
        keep: [blocks in all, 2, B], see `drop_path_scales`, or None.
        unroll: compile every block by itself instead.
    """
    if keep is not None:
        keep = keep.reshape(-1, len(blocks), *keep.shape[1:])

    def body(x, layer):
        layer_params, layer_keep = sharding.whole(layer[0]), layer[1]
        for i, block in enumerate(blocks):
            x = block.apply({"params": layer_params[i]}, x, None if layer_keep is None else layer_keep[i])
        return x, None

    return cast(jax.Array, loop(body, x, (tuple(params), keep), unroll)[0])


def loop(body: Callable[[Any, Any], tuple[Any, Any]], carry: Any, layers: Any, unroll: bool = False) -> tuple[Any, Any]:
    """`jax.lax.scan` over layers, or, where the target wants no loop (`core.targets`), the same one after the other.

    Args:
        body: from carry and layer to the next carry and an output.
        carry: the first.
        layers: a tree of arrays with a leading axis of layers.
        unroll: compile every layer by itself; the arrays are still cut in the program.

    Returns:
        The last carry, and the outputs with a leading axis of layers.
    """
    if targets.forms().blocks == "loop":
        return jax.lax.scan(body, carry, layers, unroll=unroll)
    outputs = []
    for i in range(len(jax.tree.leaves(layers)[0])):
        carry, output = body(carry, jax.tree.map(lambda leaf, i=i: leaf[i], layers))
        outputs.append(output)
    return carry, jax.tree.map(lambda *parts: jnp.stack(parts), *outputs)
