# SPDX-License-Identifier: Apache-2.0
"""Names of Mix Transformers and SegFormer in transformers and mmsegmentation, which also lay out some arrays
otherwise."""

from collections.abc import Mapping

import numpy as np

from nightjax.interop.official_names import LayoutChange

Names = tuple[dict[str, str], tuple[LayoutChange, ...]]
"""Table and changes, see `official_names`."""

_STAGES = (1, 2, 3, 4)


def _join(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray]:
    return (np.concatenate([first, second]),)


def _halves(both: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(np.split(both, 2))


def _third_and_rest(all_three: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(np.split(all_three, [len(all_three) // 3]))


def _to_linear(weight: np.ndarray) -> tuple[np.ndarray]:
    return (weight[:, :, 0, 0],)


def _to_convolution(weight: np.ndarray) -> tuple[np.ndarray]:
    return (weight[:, :, None, None],)


def _huggingface(stage_name: str, block_name: str, level_name: str, parts: Mapping[str, str]) -> Names:
    """transformers counts from 0 and keeps key and value apart.

    Args:
        stage_name: prefix of a stage's own names; ``{i}`` is its number and ``{part}`` the part.
        block_name: of a block's.
        level_name: of the head's linear maps, one a stage.
        parts: our names of the parts of a block to theirs.
    """
    table, changes = {}, []
    for stage in _STAGES:
        own = {part: stage_name.format(i=stage - 1, part=part) for part in ("patch_embeddings", "layer_norm")}
        block, ours = block_name.format(i=stage - 1), f"backbone.block{stage}.*"
        table |= {
            f"{own['patch_embeddings']}.proj": f"backbone.patch_embed{stage}.proj",
            f"{own['patch_embeddings']}.layer_norm": f"backbone.patch_embed{stage}.norm",
            own["layer_norm"]: f"backbone.norm{stage}",
            level_name.format(i=stage - 1): f"head.linear_c{stage}",
        }
        table |= {
            f"{block}.{theirs}": f"{ours}.{part}" for part, theirs in parts.items() if part not in ("key", "value")
        }
        key_value = (f"{block}.{parts['key']}", f"{block}.{parts['value']}")
        changes.append(LayoutChange(key_value, (f"{ours}.attn.kv",), _join, _halves))
    table |= {
        "decode_head.linear_fuse": "head.linear_fuse.conv",
        "decode_head.batch_norm": "head.linear_fuse.bn",
        "decode_head.classifier": "head.linear_pred",
    }
    return table, tuple(changes)


HUGGINGFACE_FILES = _huggingface(
    "segformer.encoder.{part}.{i}",
    "segformer.encoder.block.{i}.*",
    "decode_head.linear_c.{i}",
    {
        "norm1": "layer_norm_1",
        "norm2": "layer_norm_2",
        "attn.q": "attention.self.query",
        "key": "attention.self.key",
        "value": "attention.self.value",
        "attn.sr": "attention.self.sr",
        "attn.norm": "attention.self.layer_norm",
        "attn.proj": "attention.output.dense",
        "mlp.fc1": "mlp.dense1",
        "mlp.dwconv": "mlp.dwconv",
        "mlp.fc2": "mlp.dense2",
    },
)
"""As in files, old and new, that ``save_pretrained`` wrote."""

HUGGINGFACE_STATE = _huggingface(
    "segformer.stages.{i}.{part}",
    "segformer.stages.{i}.blocks.*",
    "decode_head.linear_projections.{i}",
    {
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "attn.q": "attention.q_proj",
        "key": "attention.k_proj",
        "value": "attention.v_proj",
        "attn.sr": "attention.sequence_reduction.sequence_reduction",
        "attn.norm": "attention.sequence_reduction.layer_norm",
        "attn.proj": "attention.o_proj",
        "mlp.fc1": "mlp.fc1",
        "mlp.dwconv": "mlp.dwconv",
        "mlp.fc2": "mlp.fc2",
    },
)
"""As ``state_dict()`` of version 5 has it."""


def mmseg_mit(prefix: str) -> Names:
    """mmsegmentation's own MiT, its names after ``prefix``: one attention matrix, convolutions for the FFN's linear
    maps."""
    table, changes = {}, []
    for stage in _STAGES:
        layer = f"{prefix}layers.{stage - 1}"
        block, ours = f"{layer}.1.*", f"backbone.block{stage}.*"
        table |= {
            f"{layer}.0.projection": f"backbone.patch_embed{stage}.proj",
            f"{layer}.0.norm": f"backbone.patch_embed{stage}.norm",
            f"{layer}.2": f"backbone.norm{stage}",
            f"{block}.norm1": f"{ours}.norm1",
            f"{block}.norm2": f"{ours}.norm2",
            f"{block}.attn.attn.out_proj": f"{ours}.attn.proj",
            f"{block}.attn.sr": f"{ours}.attn.sr",
            f"{block}.attn.norm": f"{ours}.attn.norm",
            f"{block}.ffn.layers.0": f"{ours}.mlp.fc1",
            f"{block}.ffn.layers.1": f"{ours}.mlp.dwconv.dwconv",
            f"{block}.ffn.layers.4": f"{ours}.mlp.fc2",
        }
        for kind in ("weight", "bias"):
            apart = (f"{ours}.attn.q.{kind}", f"{ours}.attn.kv.{kind}")
            changes.append(LayoutChange((f"{block}.attn.attn.in_proj_{kind}",), apart, _third_and_rest, _join))
        for number, name in ((0, "fc1"), (4, "fc2")):
            weight = (f"{block}.ffn.layers.{number}.weight",)
            changes.append(LayoutChange(weight, (f"{ours}.mlp.{name}.weight",), _to_linear, _to_convolution))
    return table, tuple(changes)
