# SPDX-License-Identifier: Apache-2.0
"""Folders as ``save_pretrained`` writes them: which network they hold, how it sees images, and its classes' names.

Facts: huggingface/transformers, models/segformer (configuration and image processing).
"""

import dataclasses
import os
from typing import Any

from nightjax.core.errors import UserError
from nightjax.core.files import read_json

CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"

_B_DIMS = (64, 128, 320, 512)
_BACKBONES = {
    ((32, 64, 160, 256), (2, 2, 2, 2)): "mit_b0",
    (_B_DIMS, (2, 2, 2, 2)): "mit_b1",
    (_B_DIMS, (3, 4, 6, 3)): "mit_b2",
    (_B_DIMS, (3, 4, 18, 3)): "mit_b3",
    (_B_DIMS, (3, 8, 27, 3)): "mit_b4",
    (_B_DIMS, (3, 6, 40, 3)): "mit_b5",
}
"""Widths and depths of the four stages to our name."""

_FIELDS = {
    "dims": ("hidden_sizes", (32, 64, 160, 256)),
    "depths": ("depths", (2, 2, 2, 2)),
    "heads": ("num_attention_heads", (1, 2, 5, 8)),
    "mlp_ratios": ("mlp_ratios", (4, 4, 4, 4)),
    "sr_ratios": ("sr_ratios", (8, 4, 2, 1)),
}
"""Our field of a MiT to theirs and its default."""

_FIXED = {
    "patch_sizes": [7, 3, 3, 3],
    "strides": [4, 2, 2, 2],
    "num_channels": 3,
    "hidden_act": "gelu",
    "reshape_last_stage": True,
}
"""What our network cannot have otherwise."""


@dataclasses.dataclass(frozen=True)
class Published:
    """What a folder says about its network.

    Attributes:
        model: the section ``model`` of a config.
        input: the section ``model.input``, as far as it is known.
        height: rows at which images are shown to it; 0 if the folder does not say.
        classes: names in the order of the train ids.
    """

    model: dict[str, Any]
    input: dict[str, Any]
    height: int
    classes: tuple[str, ...]


def is_folder(path: str) -> bool:
    """Whether a path is a folder with a network in the form of Hugging Face."""
    return os.path.isfile(os.path.join(path, CONFIG)) and not os.path.isdir(os.path.join(path, "checkpoints"))


def read_folder(path: str) -> Published:
    """Reads ``config.json`` and, if it is there, ``preprocessor_config.json``.

    Raises:
        UserError: a file is damaged, or the network is no SegFormer of the form that nightjax has.
    """
    config = _json(os.path.join(path, CONFIG))
    if config.get("model_type") != "segformer":
        raise UserError(
            f"{path} holds a network of type {config.get('model_type')!r}; of Hugging Face's, nightjax has 'segformer'"
        )
    for name, value in _FIXED.items():
        if config.get(name, value) != value:
            raise UserError(f"{path}/{CONFIG} has {name}={config[name]}; nightjax has SegFormers with {value} only")
    fields = {ours: tuple(config.get(theirs, default)) for ours, (theirs, default) in _FIELDS.items()}
    backbone = _BACKBONES.get((fields["dims"], fields["depths"]))
    own = {f"backbone_{name}": value for name, value in fields.items() if value != _FIELDS[name][1]}
    if backbone:
        own = {name: value for name, value in own.items() if name not in ("backbone_dims", "backbone_depths")}
    channels = int(config.get("decoder_hidden_size", 256))
    model = {"backbone": backbone or "mit_b0", "head": "segformer", "head_channels": channels, **own}
    return Published(model, *_processing(path), _classes(config))


def _processing(path: str) -> tuple[dict[str, Any], int]:
    file = os.path.join(path, PROCESSOR)
    if not os.path.isfile(file):
        return {}, 0
    found = _json(file)
    pixels = {
        ours: tuple(map(float, found[theirs]))
        for ours, theirs in (("mean", "image_mean"), ("std", "image_std"))
        if found.get(theirs)
    }
    if found.get("do_normalize") is False:
        pixels = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    size = found.get("size") if found.get("do_resize", True) else None
    if isinstance(size, dict):
        size = size.get("height") or size.get("shortest_edge")
    return pixels, int(size[0] if isinstance(size, list) else size or 0)


def _classes(config: dict[str, Any]) -> tuple[str, ...]:
    names = config.get("id2label") or {str(k): f"LABEL_{k}" for k in range(int(config.get("num_labels", 2)))}
    found: list[str] = []
    for key in sorted(names, key=int):
        name = str(names[key])
        found.append(name if name not in found else f"{name} {key}")  # Some sets have a name twice.
    return tuple(found)


def _json(path: str) -> dict[str, Any]:
    return read_json(path, dict, "download the folder again")
