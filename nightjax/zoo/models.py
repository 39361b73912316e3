# SPDX-License-Identifier: Apache-2.0
"""Named networks: what ``model=`` of a config chooses from. A value is the section ``model`` of a config."""

from typing import Any

Section = dict[str, Any]

PLAIN_VIT: Section = {"backbone_fit": "pad", "pyramid": "resample"}
"""Plain vision transformers read images of any size, and heads find features of four sizes."""

MODELS: dict[str, Section] = {
    "tiny": {"backbone": "resnet_tiny", "head": "fpn"},
    "fast": {"backbone": "fast_scnn", "head": "separable"},
    "resnet18": {"backbone": "resnet18", "head": "fpn", "head_channels": 128},
    "deeplab": {"backbone": "resnet101_v1c_d8", "head": "deeplab_v2"},
    "deeplab50": {"backbone": "resnet50_v1c_d8", "head": "deeplab_v2"},
    "daformer": {"backbone": "mit_b5", "head": "daformer"},
    **{f"daformer_b{i}": {"backbone": f"mit_b{i}", "head": "daformer"} for i in range(6)},
    "segformer": {"backbone": "mit_b5", "head": "segformer", "head_channels": 768},
    **{
        f"segformer_b{i}": {"backbone": f"mit_b{i}", "head": "segformer", "head_channels": 256 if i < 2 else 768}
        for i in range(6)
    },
    "mmseg_segformer": {"backbone": "mit_b5", "head": "segformer", "head_level_norm": True},
    "hrda": {"backbone": "mit_b5", "head": "daformer", "hrda": True},
    "deeplabv3plus": {"backbone": "resnet101_v1c_d8_contracted", "head": "deeplab_v3plus", "auxiliary": "fcn"},
    "upernet_swin_t": {"backbone": "swin_t", "head": "upernet", "auxiliary": "fcn"},
    "upernet_swin_b": {"backbone": "swin_b", "head": "upernet", "auxiliary": "fcn"},
    "pspnet": {
        "backbone": "resnet101_v1c_d8",
        "backbone_stem_features": 128,
        "backbone_pool": "ceil",
        "head": "psp",
        "auxiliary": "psp_auxiliary",
    },
    "deeplab_multi": {
        "backbone": "resnet101",
        "backbone_style": "caffe",
        "backbone_pool": "ceil",
        "backbone_strides": (1, 2, 1, 1),
        "backbone_dilations": (1, 1, 2, 4),
        "head": "deeplab_v2",
        "head_summed": 2,
        "auxiliary": "deeplab_v2",
        "auxiliary_summed": 2,
        "auxiliary_stage": "stage3",
    },
    "refinenet": {"backbone": "resnet101", "head": "refinenet"},
    "panoptic_fpn": {"backbone": "resnet101", "head": "panoptic_fpn_shared"},
    "panoptic_fpn_tiny": {
        "backbone": "resnet_tiny",
        "head": "panoptic_fpn_shared",
        "head_channels": 32,
        "head_width": 32,
    },
    **{
        f"dinov2_{size}{registers}": PLAIN_VIT | {"backbone": f"dinov2_{size}{registers}", "head": "daformer"}
        for registers in ("", "_reg")
        for size in ("s", "b", "l", "g")
    },
    "vit_tiny": PLAIN_VIT | {"backbone": "vit_tiny", "head": "fpn"},
}
"""``daformer`` and ``segformer`` have a MiT-B5. ``pspnet``, ``deeplab_multi`` and ``refinenet`` are DANNet's networks;
``deeplab_multi`` is AdaptSegNet's too, where its auxiliary classifier is the first of two levels. ``dinov2_*`` are for
published weights (docs/dinov2.md) and ``vit_tiny``, the same network, for small images."""

TRANSFORMERS = ("mit", "swin", "dinov2", "vit")
"""Beginnings of the names of backbones that may have adapters."""

FULL_RESOLUTION = ("hrda",)
"""Networks that read crops of 1024 of images at their full size, and are tested by windows of that size."""

RELIGHT = {"toy": {"relight": True, "relight_features": 4, "relight_blocks": 1}, "paper": {"relight": True}}
"""Scale of a benchmark to DANNet's relighting in front of a network; one form a scale, so that runs can be
fine-tuned."""

INPUTS = {
    "torchvision": {},
    "caffe": {
        "mean": (122.67891434 / 255, 116.66876762 / 255, 104.00698793 / 255),
        "std": (1 / 255, 1 / 255, 1 / 255),
        "order": "bgr",
    },
}
"""``input=``: how pixels enter, which the network's first weights decide. A value is the section ``model.input``."""
