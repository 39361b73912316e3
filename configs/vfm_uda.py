# SPDX-License-Identifier: Apache-2.0
"""VFM-UDA: self-training of a plain vision transformer, DINOv2, with a light head (arXiv 2406.09896).

    python -m nightjax.main --config=configs/vfm_uda.py

On NightStreet a small transformer learns from scratch, so it knows less there than a small convolutional network: after
500 steps of source-only training, 400 steps of this take 17 minutes on one CPU core and have 13.3 % mIoU by night
(`docs/results.md`). The published setting starts from DINOv2's weights, which `docs/dinov2.md` says how to get:

    nightjax convert --input=dinov2_vitb14_pretrain.pth --allow_missing='head.*' \\
        --config=configs/vfm_uda.py:data=cityscapes_to_dark_zurich --output=pretrained/dinov2_b
    python -m nightjax.main --config=configs/vfm_uda.py:data=cityscapes_to_dark_zurich \\
        --config.train.init=pretrained/dinov2_b --config.data.manual_dir=DIR

``model=dinov2_b`` is the default; ``dinov2_s``, ``dinov2_l`` and those with ``_reg``, registers, are the others. The
authors train 40,000 steps of 8 + 8 crops on four A100, about 20 hours for ViT-L; here a step has 2 + 2 crops of
1024x1024, which the network sees at 1120x1120, and time and memory are unmeasured. Published mIoU:

    78.4  GTA5 to Cityscapes val        ViT-L    vfm_uda.py:data=gta5_to_cityscapes,model=dinov2_l
    77.1  GTA5 to Cityscapes val        ViT-B    vfm_uda.py:data=gta5_to_cityscapes
    68.7  Cityscapes to Dark Zurich     ViT-L    VFM-UDA++ (arXiv 2503.10685), with a ViT-Adapter, which is not here

The first two are of the official repository, re-trained by its authors. The last is of VFM-UDA++'s README, which does
not say on which split. With such a backbone a network without any target can be as good (Rein, DINOv2-L, Cityscapes
alone: 77.6 on ACDC's four conditions), so train the source-only network of the same backbone as well, and report both:

    python -m nightjax.main --config=configs/vfm_uda.py:data=cityscapes_to_dark_zurich,source_only=1

``tune=adapters`` leaves DINOv2 as it is and trains low-rank adapters and the head; ``tune=norms`` the backbone's norms
too, ``tune=head`` the head alone. ``distance=1`` adds DAFormer's feature distance to the initial backbone, which
lowers results by the authors of VFM-UDA++. ``foundation=RUN`` is their own: the features of both domains are
distilled from a frozen DINOv2-L with registers, whose weights are in the folder RUN (``nightjax convert`` makes it, see
`docs/dinov2.md`); on NightStreet from a run of ``vit_tiny``. It costs a pass of the student and one of that network a
domain, its checkpoints hold it, and results are unmeasured here. ``masking=block`` hides blocks of 64 pixels instead of
tokens, ``none`` nothing. VFM-1 to VFM-9 in `docs/fidelity.md` say what differs from the official program.
"""

from typing import Literal

import ml_collections

from nightjax.core.errors import UserError
from nightjax.zoo import recipes
from nightjax.zoo.self_training import PAPER, TOY, common

MODEL = {
    "head": "upscale",
    "pyramid": None,
    "backbone_fit": "resize",
    "backbone_remat": True,
}
"""VFM-UDA's head on the last feature, and every crop a tenth larger."""

WEAK = {"jitter": {"probability": 0.9, "strength": 1.0, "ranges": (32 / 255, 0.5, 0.5, 0.05)}, "blur": None}
"""Augmentation of the source."""

MASKING = {
    "none": None,
    "token": {"mode": "target", "kind": "token", "ratio": 0.7},
    "block": {"mode": "target", "kind": "block", "ratio": 0.7, "block": 64},
}


def get_config(
    data: str = "nightstreet",
    model: str | None = None,
    steps: int | None = None,
    exposure: bool = False,
    tune: recipes.Tune = "full",
    masking: Literal["none", "token", "block"] = "token",
    distance: bool = False,
    foundation: str = "",
    source_only: bool = False,
) -> ml_collections.ConfigDict:
    """Arguments are described above."""
    if foundation and source_only:
        raise UserError("config argument foundation= distills on two domains: leave out source_only=1")
    toy = recipes.scale_of(data) == "toy"
    recipe = TOY if toy else PAPER
    changes: list[recipes.Changes] = []
    domains = ("source",) if source_only else ("source", "target")
    if not toy:
        changes.append({"optim.schedule": "warmup_line", **{f"model.{name}": value for name, value in MODEL.items()}})
        changes += [{f"data.streams.{name}.scale_range": (0.9, 1.1)} for name in domains]
    if source_only:
        recipe = recipe.replace(changes={})
        changes.append({"method": {"name": "supervised", "photometric": None if toy else WEAK}})
        if toy:
            changes.append({"method.loss.class_weights": "root_inverse"})
    else:
        changes += [*common(data, photometric=False, full_resolution=True), {"data.streams.target.fields": ("image",)}]
        changes.append({"method.masking": MASKING[masking], "method.pseudo_labels.flip": not toy})
        changes.append({"method.feature_distance": {} if distance else None})
        changes.append({"method.source_photometric": None if toy else WEAK})
    if foundation:
        crop = recipes.streams_of(data, ("target",))["target"]["crop"]
        small = {"backbone": "vit_tiny", "size": min(crop)}
        changes.append({"method.distillation": small if toy else {}, "train.frozen.foundation": foundation})
    return recipes.make(
        recipe.replace(method={"name": "dacs"}),
        data,
        domains,
        model=model or ("vit_tiny" if toy else "dinov2_b"),
        steps=steps,
        exposure=exposure,
        tune=tune,
        full_resolution=True,
        changes=changes,
    )
