# SPDX-License-Identifier: Apache-2.0
"""What a config says about its network and optimizer, as ``torch_networks.py`` wants it; torch is not imported."""

from typing import Any

import ml_collections

from nightjax.models.backbones import mit, resnet

_OF_BACKBONE = {
    "resnet": ("depths", "widths", "strides", "dilations", "block", "stem", "stem_features", "pool"),
    "mit": ("depths", "dims", "heads", "mlp_ratios", "sr_ratios"),
}
_OF_HEAD = {
    "fpn": {"width": "channels"},
    "daformer": {"width": "channels", "dim": "embed_dim", "dilations": "dilations"},
}


def form_of(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The form of a network for `torch_networks.Segmenter`; fit for JSON."""
    model = config.model
    kind = "resnet" if model.backbone in resnet.VARIANTS else "mit"
    given = {name: model[f"backbone_{name}"] for name in _OF_BACKBONE[kind] if f"backbone_{name}" in model}
    head = {
        ours: model[f"head_{name}"] for ours, name in _OF_HEAD.get(model.head, {}).items() if f"head_{name}" in model
    }
    backbone = (resnet.VARIANTS | mit.VARIANTS)[model.backbone] | given
    return {"kinds": (kind, model.head), "backbone": backbone, "head": head}


def optimizer_of(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The section ``optim`` for `torch_networks.optimizer`: numbers, and factors of rates by first part of the path."""
    numbers = {name: config.optim[name] for name in ("lr", "weight_decay", "b1", "b2", "eps", "clip_norm")}
    factors = {group["pattern"].strip("^/"): group["lr"] for group in config.optim.groups}
    return numbers | {"factors": factors}
