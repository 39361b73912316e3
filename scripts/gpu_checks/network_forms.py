# SPDX-License-Identifier: Apache-2.0
"""What a config says about its network and optimizer, as ``torch_networks.py`` wants it; torch is not imported."""

from typing import Any

import ml_collections

from nightjax.models.backbones.resnet import VARIANTS

_OF_BACKBONE = ("depths", "widths", "strides", "dilations", "block", "stem", "stem_features", "pool")


def form_of(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The form of a ResNet with DeepLab-v2's or the FPN head, for `torch_networks.Segmenter`; fit for JSON."""
    model = config.model
    given = {name: model[f"backbone_{name}"] for name in _OF_BACKBONE if f"backbone_{name}" in model}
    head = {"width": model.head_channels} if model.head == "fpn" and "head_channels" in model else {}
    return {"backbone": VARIANTS[model.backbone] | given, "kind": model.head, "head": head}


def optimizer_of(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The section ``optim`` for `torch_networks.optimizer`: numbers, and factors of rates by first part of the path."""
    numbers = {name: config.optim[name] for name in ("lr", "weight_decay", "b1", "b2", "eps", "clip_norm")}
    factors = {group["pattern"].strip("^/"): group["lr"] for group in config.optim.groups}
    return numbers | {"factors": factors}
