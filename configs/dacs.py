# SPDX-License-Identifier: Apache-2.0
"""DACS self-training with DAFormer's recipe (arXiv 2111.14887).

    python -m nightjax.main --config=configs/dacs.py

On NightStreet: two CPU cores, about 5 minutes; results in `docs/results.md`. DAFormer's setting takes one GPU and
40,000 steps of 2 + 2 crops. The authors report 53.8 mIoU on Dark Zurich test; hours and result are unmeasured here:

    python -m nightjax.main --config=configs/dacs.py:data=cityscapes_to_dark_zurich --config.data.manual_dir=DIR

``masking=auto|target|source|both`` adds the masked pass of MIC, whose rows are in ``configs/mic.py``.
"""

from typing import Literal

import ml_collections

from nightjax.zoo import recipes
from nightjax.zoo.self_training import PAPER, TOY, Masking, common, optimizer, with_masking


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
) -> ml_collections.ConfigDict:
    """Arguments are described above."""
    scale = recipes.scale_of(data)
    recipe = {"toy": TOY, "paper": PAPER.replace(optim=optimizer(model))}[scale].replace(method={"name": "dacs"})
    changes = [*common(data, photometric, model), {"data.streams.target.fields": ("image",)}]
    config = recipes.make(
        recipe,
        data,
        ("source", "target"),
        model=model,
        steps=steps,
        input=input,
        exposure=exposure,
        tune=tune,
        changes=changes,
    )
    return with_masking(config, data, masking, mask_ratio, mask_block)
