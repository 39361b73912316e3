# SPDX-License-Identifier: Apache-2.0
"""Names in Swin Transformer's own checkpoints, which UPerNet starts from. mmsegmentation's are in `namings`."""

import numpy as np

from nightjax.interop.official_names import LayoutChange

SWIN = {
    "layers.*.blocks.*.attn": "backbone.stages.*.blocks.*.attn.w_msa",
    "layers.*.blocks.*.mlp.fc1": "backbone.stages.*.blocks.*.ffn.layers.0.0",
    "layers.*.blocks.*.mlp.fc2": "backbone.stages.*.blocks.*.ffn.layers.1",
    "layers": "backbone.stages",
    "patch_embed.proj": "backbone.patch_embed.projection",
    "patch_embed.norm": "backbone.patch_embed.norm",
}
"""Swin Transformer's own checkpoints to a network of ours, whose backbone has mmsegmentation's names; with
`SWIN_CHANGES`."""


def _cells_last(value: np.ndarray) -> tuple[np.ndarray]:
    """[..., 4 * C]: from cell by cell, in the order (0,0), (1,0), (0,1), (1,1), to channel by channel, row by row."""
    cells = np.reshape(value, (*np.shape(value)[:-1], 2, 2, -1))  # column, row, channel
    return (np.moveaxis(cells, (-3, -2, -1), (-1, -2, -3)).reshape(np.shape(value)),)


def _cells_first(value: np.ndarray) -> tuple[np.ndarray]:
    cells = np.reshape(value, (*np.shape(value)[:-1], -1, 2, 2))  # channel, row, column
    return (np.moveaxis(cells, (-3, -2, -1), (-1, -2, -3)).reshape(np.shape(value)),)


SWIN_CHANGES = tuple(
    LayoutChange((f"layers.*.downsample.{name}",), (f"backbone.stages.*.downsample.{name}",), _cells_last, _cells_first)
    for name in ("reduction", "norm.weight", "norm.bias")
)
"""The merging of 2x2 cells stacks their channels in another order."""
