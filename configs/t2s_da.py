# SPDX-License-Identifier: Apache-2.0
"""T2S-DA: pulling target to source, for adaptation and for generalization (arXiv 2305.13752).

    python -m nightjax.main --config=configs/t2s_da.py

On NightStreet: two CPU cores (results in `docs/results.md`). The structure is the paper's and the constants are ours,
since neither the paper's body nor its training code could be read: see T2S-1 to T2S-17 in `docs/fidelity.md`. So there
is no published number to compare with.

Adaptation takes one GPU and 40,000 steps of 2 + 2 crops (hours and results are unmeasured here). ``data`` may also be
``cityscapes_to_acdc_night``, ``gta5_to_cityscapes`` or ``synthia_to_cityscapes``:

    python -m nightjax.main --config=configs/t2s_da.py:data=cityscapes_to_dark_zurich --config.data.manual_dir=DIR

Generalization reads no target. With the style randomizer (``nightjax convert --style`` makes the file), or without:

    python -m nightjax.main --config=configs/t2s_da.py:data=gta5_to_cityscapes,mode=dg,style=style.npz \\
        --config.data.manual_dir=DIR
    python -m nightjax.main --config=configs/t2s_da.py:mode=dg

The ablation: ``parts=none`` (DACS itself), ``uniform`` (the pull with equal class weights), ``full`` (the default, with
re-weighting), ``source_negatives``, ``untranslated`` (queries from the source as it is), ``real_target`` (queries from
the target too) and ``fda`` (translated source images under cross-entropy, no pull).

``masking=auto|target|source|both`` adds the masked pass of MIC (``configs/mic.py``) to adaptation. Nobody has published
that combination.
"""

from typing import Literal

import ml_collections

from nightjax.core.errors import UserError
from nightjax.zoo import recipes
from nightjax.zoo.self_training import PAPER, TOY, Masking, common, common_of_source, optimizer, with_masking

METHODS = {"uda": "t2s_da", "dg": "t2s_dg"}
DOMAINS = {"uda": ("source", "target"), "dg": ("source",)}
"""Mode to the domains that are read."""

PRESETS = {
    "default": {"pull.temperature": 0.2},
    "u2pl": {"pull.temperature": 0.5},
}
"""With U2PL's temperature the loss of a perfect separation is 0.65, with 0.2 it is 0.002."""

PARTS = {
    "none": {"translation": None, "pull": None},
    "fda": {"translation.weight": 1.0, "pull": None},
    "uniform": {"pull.exponent": 0.0},
    "full": {},
    "source_negatives": {"pull.negatives.domains": "source"},
    "untranslated": {"translation": None},
    "real_target": {"pull.real_target": True},
}
"""``parts=``: what is left out or added."""

NEEDS_TARGET = ("source_negatives", "real_target")

TOY_PULL = {"pull.channels": 64, "pull.queries": 64}
"""As little as a small network on a CPU needs."""


def get_config(
    data: str = "nightstreet",
    model: str | None = None,
    steps: int | None = None,
    input: Literal["torchvision", "caffe"] = "torchvision",
    exposure: bool = False,
    tune: recipes.Tune = "full",
    photometric: bool = False,
    masking: Masking = "none",
    mask_ratio: float | None = None,
    mask_block: int | None = None,
    mode: Literal["uda", "dg"] = "uda",
    preset: Literal["default", "u2pl"] = "default",
    parts: Literal["none", "fda", "uniform", "full", "source_negatives", "untranslated", "real_target"] = "full",
    style: str = "",
) -> ml_collections.ConfigDict:
    """Arguments are described above."""
    if mode == "dg" and parts in NEEDS_TARGET:
        known = ", ".join(name for name in PARTS if name not in NEEDS_TARGET)
        raise UserError(f"config argument parts={parts} needs a target, and mode=dg has none; choose {known}")
    if mode == "dg" and masking != "none":
        raise UserError(f"config argument masking={masking} needs a target, and mode=dg has none; use mode=uda")
    scale = recipes.scale_of(data)
    recipe = {"toy": TOY, "paper": PAPER.replace(optim=optimizer(model))}[scale]
    method = {"translation.kind": "style" if style else "fda", **PRESETS[preset]}
    method |= TOY_PULL if scale == "toy" else {}
    method |= {"pull.negatives.domains": "source"} if mode == "dg" else {}
    method |= PARTS[parts]
    changes = common(data, photometric, model) if mode == "uda" else common_of_source(photometric)
    changes.append({f"method.{key}": value for key, value in method.items()})
    if mode == "uda":
        changes.append({"data.streams.target.fields": ("image",)})
    if style and method.get("translation", "") is not None:
        changes.append({"train.frozen.style": style})
    config = recipes.make(
        recipe.replace(method={"name": METHODS[mode]}),
        data,
        DOMAINS[mode],
        model=model,
        steps=steps,
        input=input,
        exposure=exposure,
        tune=tune,
        changes=changes,
    )
    return with_masking(config, data, masking, mask_ratio, mask_block)
