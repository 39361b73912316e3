# SPDX-License-Identifier: Apache-2.0
"""Recipes and machines of the table that ``nightjax plan --all`` makes."""

DATA = "data=cityscapes_to_dark_zurich"

RECIPES = {
    "Supervised, DeepLab-v2 (ResNet-101)": f"supervised:{DATA},model=deeplab",
    "DACS, DAFormer (MiT-B5)": f"dacs:{DATA}",
    "DACS, HRDA (MiT-B5)": f"dacs:{DATA},model=hrda",
    "DSR+FPA, DeepLab-v2 (ResNet-101)": f"dsr_fpa:{DATA},model=deeplab",
    "DSR+FPA, DAFormer (MiT-B5)": f"dsr_fpa:{DATA}",
    "DSR+FPA, HRDA (MiT-B5)": f"dsr_fpa:{DATA},model=hrda",
    "VFM-UDA, ViT-S, adapters": f"vfm_uda:{DATA},model=dinov2_s,tune=adapters",
    "VFM-UDA, ViT-B, adapters": f"vfm_uda:{DATA},model=dinov2_b,tune=adapters",
    "VFM-UDA, ViT-L, adapters": f"vfm_uda:{DATA},model=dinov2_l,tune=adapters",
    "VFM-UDA, ViT-L": f"vfm_uda:{DATA},model=dinov2_l",
}
"""Name of a recipe to its config. Each is planned at its own batch, or at one example of each domain a chip."""

TARGETS = ("h200", "rtx4090", "v5e:2x4")
"""Machines of the table: a data center's GPU, a workstation's, and a TPU slice; see `zoo.machines`."""
