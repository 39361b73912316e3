# SPDX-License-Identifier: Apache-2.0
"""Named optimizers: sections ``optim`` of the published recipes, and of small networks that learn from scratch."""

from typing import Any

from nightjax.core import config as configs
from nightjax.core.optim import Optimizer

Section = dict[str, Any]


def section(**settings: Any) -> Section:
    """A complete section: whatever it replaces, nothing of that is left."""
    return configs.with_defaults(Optimizer, settings)


SCRATCH_ADAMW: Section = section(
    name="adamw",
    lr=4e-3,
    warmup=100,
    power=0.9,
    weight_decay=0.01,
    clip_norm=1.0,
)
"""For small networks that learn from scratch within minutes (ours)."""

ADAMW: Section = section(
    name="adamw",
    lr=6e-4,
    warmup=1500,
    weight_decay=0.01,
    groups=({"pattern": "^backbone/", "lr": 0.1},),
)
"""The backbone at a tenth of the rate (Refign, DSR+FPA)."""

DAFORMER_ADAMW: Section = ADAMW | {
    "schedule": "mmseg_poly",
    "decay_vectors": True,
    "groups": (
        {"pattern": "^backbone/.*norm", "lr": 0.1, "decay": 0.0},
        {"pattern": "^backbone/", "lr": 0.1},
    ),
}
"""DAFormer on transformers: poly from the first step; all but the backbone's layer norms decays."""

DAFORMER_CNN_ADAMW: Section = DAFORMER_ADAMW | {"groups": ADAMW["groups"]}
"""DAFormer on other backbones."""

TOKENS = "^backbone/(cls_token|pos_embed|register_tokens|mask_token)$"
"""Tokens and positions of a plain vision transformer: arrays of three axes that are no matrices, and do not decay."""


def vit_groups(layer_decay: float = 1.0) -> tuple[Section, ...]:
    """The backbone at a tenth of the rate, and less from block to block downwards."""
    slower = {"lr": 0.1, "layer_decay": layer_decay}
    return ({"pattern": TOKENS, "decay": 0.0, **slower}, {"pattern": "^backbone/", **slower})


VIT_ADAMW: Section = section(name="adamw", lr=1.4e-4, warmup=1500, weight_decay=0.01, groups=vit_groups())
"""VFM-UDA on DINOv2: 5e-5 times the root of a batch of 8. Its program decays norms, biases and tokens too."""

VIT_L_ADAMW: Section = VIT_ADAMW | {"groups": vit_groups(layer_decay=0.9)}
"""VFM-UDA++ on ViT-L."""

TUNED = {
    "adapters": ({"pattern": "/lora_"}, {"pattern": "^backbone/", "trained": False}),
    "norms": ({"pattern": r"/lora_|^backbone/(.*/)?(norm|ls)\d?/"}, {"pattern": "^backbone/", "trained": False}),
    "head": ({"pattern": "^backbone/", "trained": False},),
}
"""``tune=``: groups that leave the backbone as it is, but for adapters, for these and norms, or altogether. What is
trained has the head's rate."""

ADVERSARIAL_SGD: Section = section(
    name="sgd",
    lr=2.5e-4,
    schedule="mmseg_poly",
    power=0.9,
    weight_decay=5e-4,
    decay_vectors=True,
)
"""The segmentation network in AdaptSegNet and DANNet."""

ADVERSARIAL_ADAM: Section = section(
    name="adam",
    lr=1e-4,
    schedule="mmseg_poly",
    power=0.9,
    weight_decay=0.0,
    b2=0.99,
)
"""The discriminators in AdaptSegNet and DANNet."""

MMSEG_SGD: Section = section(
    name="sgd",
    lr=0.01,
    schedule="mmseg_poly",
    power=0.9,
    min_lr=1e-4,
    weight_decay=5e-4,
    decay_vectors=True,
)
"""mmsegmentation's DeepLabv3+, for batches of 8 and 80,000 steps."""

SWIN_ADAMW: Section = section(
    name="adamw",
    lr=6e-5,
    schedule="mmseg_poly",
    warmup=1500,
    weight_decay=0.01,
    groups=({"pattern": "relative_position_bias_table", "decay": 0.0},),
)
"""mmsegmentation's UPerNet on Swin, for batches of 8 and 80,000 steps."""

MASKRCNN_SGD: Section = section(
    name="sgd",
    lr=0.01,
    schedule="multistep",
    warmup=500,
    milestones=(18_000,),
    weight_decay=1e-4,
    groups=(
        {"pattern": r"/bn\d/|/downsample_1/", "lr": 0.0},
        {"pattern": r"/body/(conv1|layer1_)", "lr": 0.0},
        {"pattern": "bias$", "lr": 2.0, "decay": 0.0},
    ),
)
"""maskrcnn-benchmark's solver of its Cityscapes configs: norms, stem and first stage rest, biases go twice as fast."""

COSINE_SGD: Section = section(
    name="sgd",
    lr=0.01,
    momentum=0.9,
    weight_decay=1e-5,
    decay_vectors=True,
    schedule="cosine",
)
"""The UIT thesis' segmentation network."""

GAN_ADAM: Section = section(name="adam", lr=2e-4, b1=0.5, weight_decay=0.0, schedule="linear_tail")
"""The official programs of CycleGAN and pix2pixHD."""

UNIT_ADAM: Section = section(
    name="adam",
    lr=1e-4,
    b1=0.5,
    weight_decay=1e-4,
    decay_vectors=True,
    schedule="step",
)
"""UNIT's release of 2018."""
