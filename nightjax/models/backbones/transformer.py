"""What the transformer backbones share: norms, drop path, and loops over equal blocks that are compiled once."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from nightjax.models.initializers import normal

linear_init = normal(0.02)
"""The official ``trunc_normal_(std=0.02)`` cuts at 2 itself, not at two deviations, which is a hundred of them."""


def layer_norm(epsilon: float, dtype: Any, name: str) -> nn.LayerNorm:
    """LayerNorm over channels with an accurate float32 variance."""
    return nn.LayerNorm(epsilon=epsilon, dtype=dtype, use_fast_variance=False, name=name)


def drop_path_scales(key: jax.Array, rate: float, blocks: int, batch: int) -> jax.Array:
    """Factors of both branches of every block; rates grow linearly from 0 to ``rate`` at the last block.

    Returns:
        float32 [blocks, 2, B]: 0 where a branch is dropped for an example, else 1 / (1 - rate of the block).
    """
    kept = 1 - np.linspace(0, rate, blocks, dtype=np.float32)[:, None, None]
    return jax.random.bernoulli(key, kept, (blocks, 2, batch)) / kept


def scan_blocks(
    blocks: Sequence[nn.Module], params: Sequence[Mapping[str, Any]], x: jax.Array, keep: jax.Array | None
) -> jax.Array:
    """Applies a repeating sequence of blocks in a loop that is compiled once.

    Args:
        blocks: one period, unbound modules called with ``(x, keep)``.
        params: of every block, a whole number of periods; stacked at each call.
        x: input of the first block, of the shape of every output.
        keep: [len(params), 2, B], see `drop_path_scales`, or None.
    """
    period = len(blocks)
    periods = [params[i : i + period] for i in range(0, len(params), period)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *periods)
    if keep is not None:
        keep = keep.reshape(len(periods), period, *keep.shape[1:])

    def body(x, layer):
        layer_params, layer_keep = layer
        for i, block in enumerate(blocks):
            x = block.apply({"params": layer_params[i]}, x, None if layer_keep is None else layer_keep[i])
        return x, None

    return jax.lax.scan(body, x, (stacked, keep))[0]
