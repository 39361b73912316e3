# SPDX-License-Identifier: Apache-2.0
"""Names of DINOv2's vision transformers: as facebookresearch/dinov2 publishes them (Apache-2.0), and transformers'.

Only names and layouts are here; the weights are each user's own download.
"""

import re
from collections.abc import Collection, Mapping

import numpy as np

from nightjax.core.errors import UserError
from nightjax.interop.official_names import LayoutChange

PREFIXES = ("teacher.", "backbone.", "dinov2_with_registers.", "dinov2.")
"""Dropped from the front of names, in this order: of training checkpoints, of models with a head."""

REGISTERS = "backbone.register_tokens"

HUB = {
    **{name: f"backbone.{name}" for name in ("cls_token", "pos_embed", "register_tokens", "mask_token")},
    **{name: f"backbone.{name}" for name in ("patch_embed", "blocks", "norm")},
}
"""The published program's names are ours."""


def _joined(*parts: np.ndarray) -> tuple[np.ndarray]:
    return (np.concatenate(parts),)


def _thirds(whole: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(np.split(whole, 3))


def _halves(whole: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(np.split(whole, 2))


def _transformers(attention: tuple[str, ...], gated: Mapping[str, str]) -> dict[str, str]:
    """Table of one of transformers' two forms: the name of the output map, and of maps of the giant network."""
    block, ours = "encoder.layer.*", "backbone.blocks.*"
    return {
        "embeddings.cls_token": "backbone.cls_token",
        "embeddings.mask_token": "backbone.mask_token",
        "embeddings.position_embeddings": "backbone.pos_embed",
        "embeddings.register_tokens": REGISTERS,
        "embeddings.patch_embeddings.projection": "backbone.patch_embed.proj",
        f"{block}.{attention[3]}": f"{ours}.attn.proj",
        f"{block}.layer_scale1.lambda1": f"{ours}.ls1.gamma",
        f"{block}.layer_scale2.lambda1": f"{ours}.ls2.gamma",
        **{f"{block}.mlp.{theirs}": f"{ours}.mlp.{name}" for theirs, name in gated.items()},
        **{f"{block}.{name}": f"{ours}.{name}" for name in ("norm1", "norm2", "mlp.fc1", "mlp.fc2")},
        "layernorm": "backbone.norm",
    }


def _query_key_value(attention: tuple[str, ...]) -> LayoutChange:
    theirs = tuple(f"encoder.layer.*.{name}" for name in attention[:3])
    return LayoutChange(theirs, ("backbone.blocks.*.attn.qkv",), _joined, _thirds)


_FILES = (*(f"attention.attention.{name}" for name in ("query", "key", "value")), "attention.output.dense")
_STATE = tuple(f"attention.{name}_proj" for name in ("q", "k", "v", "o"))

TRANSFORMERS_FILES = (
    _transformers(_FILES, {"weights_in": "w12", "weights_out": "w3"}),
    (_query_key_value(_FILES),),
)
"""Table and changes of files that ``save_pretrained`` writes."""

TRANSFORMERS_STATE = (
    _transformers(_STATE, {"down_proj": "w3"}),
    (
        _query_key_value(_STATE),
        LayoutChange(
            ("encoder.layer.*.mlp.gate_proj", "encoder.layer.*.mlp.up_proj"),
            ("backbone.blocks.*.mlp.w12",),
            _joined,
            _halves,
        ),
    ),
)
"""The same of ``state_dict()`` of version 5."""


def unwrapped(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Names without `PREFIXES`, and those of blocks without the chunk that training checkpoints sort them into."""
    found = {}
    for name, value in state.items():
        for prefix in PREFIXES:
            name = name.removeprefix(prefix)
        found[re.sub(r"^blocks\.\d+\.(?=\d+\.)", "blocks.", name)] = value
    return found


def check_registers(path: str, state: Collection[str], ours: Collection[str]) -> None:
    """Raises UserError unless file and model both have register tokens, or neither.

    Args:
        path: of the file.
        state: official names of what it holds.
        ours: our names of the model's parameters.
    """
    if "reg_token" in state:
        raise UserError(
            f"{path} has timm's names and its position embedding, which lacks the class token; get the file of "
            "facebookresearch/dinov2 or of transformers"
        )
    has_registers = any(name.endswith("register_tokens") for name in state)
    if has_registers and REGISTERS not in ours:
        raise UserError(f"{path} has register tokens and the model has none: choose a model such as dinov2_b_reg")
    if REGISTERS in ours and not has_registers:
        raise UserError(f"{path} has no register tokens and the model has them: choose a model such as dinov2_b")
