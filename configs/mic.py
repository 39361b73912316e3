# SPDX-License-Identifier: Apache-2.0
"""MIC: masked image consistency on DACS with DAFormer's or HRDA's network (arXiv 2212.01322).

    python -m nightjax.main --config=configs/mic.py:data=nightstreet

On NightStreet a small network learns on two CPU cores; a step takes one pass of the student more than DACS. Compare it
with ``mic.py:masking=none``, which is DACS itself.

The paper's setting takes one GPU and 40,000 steps of 2 + 2 crops. The authors used a Titan RTX (24 GB) for HRDA and an
RTX 2080 Ti (11 GB) for DAFormer; hours and results are unmeasured here. Each row also needs
``--config.data.manual_dir=DIR`` and ``--config.train.init=FOLDER`` with ImageNet's MiT-B5 (``nightjax convert`` makes
the folder from a published file). Published mIoU, in brackets without masking:

    60.2 (55.9)  Dark Zurich test  HRDA      mic.py:data=cityscapes_to_dark_zurich,model=hrda
    70.4 (68.0)  ACDC test         HRDA      mic.py:data=cityscapes_to_acdc,model=hrda
    75.9 (73.8)  Cityscapes val    HRDA      mic.py:data=gta5_to_cityscapes,model=hrda
    67.3 (65.8)  Cityscapes val    HRDA      mic.py:data=synthia_to_cityscapes,model=hrda
    -    (53.8)  Dark Zurich test  DAFormer  mic.py:data=cityscapes_to_dark_zurich
    -    (55.4)  ACDC test         DAFormer  mic.py:data=cityscapes_to_acdc
    -            Cityscapes val    DAFormer  mic.py:data=gta5_to_cityscapes

The numbers are from the abstract and the charts of the official repository; where there is a dash, we could not read
the paper's number. Test scores come from the benchmarks' servers (``nightjax submit``). The authors warn that on Dark
Zurich validation and test differ much; a user of their program reports 56 to 59 on the test over several runs. On ACDC
night alone (``data=cityscapes_to_acdc_night``) nothing was published.

``masking=target|source|both`` says which images are masked, ``auto`` (the default) as published: source and target in
their own colors on Dark Zurich and ACDC, elsewhere the target in changed colors. ``mask_ratio=`` is the share of masked
pixels, 0.7 by default. ``mask_block=`` is the side of a block in pixels: by default 64 for crops of 1024, 32 for crops
of 512, and in proportion for others. ``dacs.py``, ``dsr_fpa.py`` and ``t2s_da.py`` take the same arguments, and mask
nothing by default. `docs/masked_consistency.md` explains the method, and MIC-1 to MIC-12 in `docs/fidelity.md` are our
decisions.
"""

from typing import Literal

import ml_collections

from nightjax.core.config import call
from nightjax.zoo.self_training import Masking


def get_config(
    data: str = "nightstreet",
    model: str | None = None,
    steps: int | None = None,
    input: Literal["torchvision", "caffe"] = "torchvision",
    exposure: bool = False,
    photometric: bool = False,
    masking: Masking = "auto",
    mask_ratio: float | None = None,
    mask_block: int | None = None,
) -> ml_collections.ConfigDict:
    """Arguments are described above."""
    return call(
        "dacs",
        data=data,
        model=model,
        steps=steps,
        input=input,
        exposure=exposure,
        photometric=photometric,
        masking=masking,
        mask_ratio=mask_ratio,
        mask_block=mask_block,
    )
