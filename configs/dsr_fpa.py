# SPDX-License-Identifier: Apache-2.0
"""DSR+FPA: dynamic and small object refinement with feature prototype alignment (arXiv 2310.04747).

    python -m nightjax.main --config=configs/dsr_fpa.py

On NightStreet: two CPU cores, 9 to 11 minutes; results in `docs/results.md`. The paper starts from a network trained by
day, and so should you. It is better by night and by day at the same total cost:

    python -m nightjax.main --config=configs/supervised.py --workdir=runs/source
    python -m nightjax.main --config=configs/dsr_fpa.py:steps=400 --config.train.init=runs/source --workdir=runs/adapted

Real CamVid, from day to dusk:

    python -m nightjax.main --config=configs/dsr_fpa.py:data=camvid_day_to_dusk --config.data.manual_dir=CAMVID

Day and night can be aligned by a matcher that is trained without labels (``configs/uawarpc.py``) or, as an upper bound,
by the true flow:

    python -m nightjax.main --config=configs/dsr_fpa.py:aligner=uawarpc,matcher=runs/uawarpc
    python -m nightjax.main --config=configs/dsr_fpa.py:aligner=true_flow

``parts=none|dsr|fpa|both`` is the paper's ablation (``none`` is its baseline); ``refign`` is Refign.

The paper's table: published mIoU on Dark Zurich test, one GPU, 40,000 steps of 2 + 2 crops; hours and results are
unmeasured here. ``DZ`` stands for ``data=cityscapes_to_dark_zurich,aligner=uawarpc,matcher=pretrained/uawarpc``. Each
row also needs ``--config.data.manual_dir=DIR`` and ``--config.train.init=FOLDER`` with the first weights:
SegFormer-B5's backbone after Cityscapes for ``hrda``, ImageNet's MiT-B5 or ResNet-101 for the others (``nightjax
convert`` makes the folder from a published file).

    65.2  DSR+FPA, HRDA        dsr_fpa.py:DZ,model=hrda
    53.7  DSR+FPA, DeepLab-v2  dsr_fpa.py:DZ,model=deeplab
    50.7  DSR+FPA, RefineNet   dsr_fpa.py:DZ,model=refinenet (the released program cannot run it: DSR-11 in
                               `docs/fidelity.md`)
    63.9  Refign-HRDA          dsr_fpa.py:DZ,model=hrda,parts=refign
    56.2  Refign-DAFormer      dsr_fpa.py:DZ,model=daformer,parts=refign (from Refign's own table)
    55.9  HRDA                 dacs.py:data=cityscapes_to_dark_zurich,model=hrda
    53.8  DAFormer             dacs.py:data=cityscapes_to_dark_zurich

The paper's source-only rows, 28.8 (DeepLab-v2) and 28.5 (RefineNet), are DANNet's, with DANNet's recipe of 150,000 SGD
steps. No command here trains that recipe; ``supervised.py:data=cityscapes_to_dark_zurich,model=deeplab`` is source-only
training with AdamW (ours).

No figure was published for ``model=daformer``, the default on real data. ``data=cityscapes_to_acdc_night`` has its own
schedule. The papers test the student; ``--config.eval.network=teacher`` tests the teacher.

``mem=80|48|24|11`` (GB) makes a step smaller. From 48 on, what lies between matrix products is computed twice, which
changes nothing but time: by the compiler's count HRDA then needs 18.2 GB of a GPU, and DAFormer 6.6 GB. At 11 GB, HRDA
has crops of 768, and images come one after another but for DAFormer: norms and the feature distance see one at a time.
Other networks, and HRDA at 11 GB, are unchecked. `docs/speed.md` ("Memory") has more such settings.

``fda=1`` adds a pass on source images that have the low frequencies of the step's night images (Fourier domain
adaptation, arXiv 2004.05498), under the source's labels. That is ours, too.

``masking=auto|target|source|both`` adds the masked pass of MIC (``configs/mic.py``), on the night images with their
refined pseudo-labels. Nobody has published that combination.
"""

from typing import Literal

import ml_collections

from nightjax.core.errors import UserError
from nightjax.interop.weight_files import SAVED, TORCH
from nightjax.zoo import optimizers, recipes
from nightjax.zoo.self_training import PAPER, TOY, Masking, common, with_masking

RECIPES = {
    "toy": TOY.replace(method={"name": "dsr_fpa"}),
    "paper": PAPER.replace(method={"name": "dsr_fpa"}, optim=optimizers.ADAMW),
}

FPA_START = {"cityscapes_to_dark_zurich": 9664, "cityscapes_to_acdc_night": 1600}
"""First step with FPA of the official 40,000: epoch 8 (DSR-5 in docs/fidelity.md). Shorter runs keep its share, others
begin after 24 %."""

PARTS = {
    "none": {"mixing.mode": "classmix", "bank": None, "refinement": None, "alignment": None},
    "dsr": {"alignment": None},
    "fpa": {"mixing.mode": "classmix", "bank": None, "refinement": None},
    "both": {},
    "refign": {"mixing.mode": "dacs", "bank": None, "alignment": None},
}
"""``parts=``: the paper's ablation, and Refign, whose refinement is that of DSR."""

BY_MODEL = {
    "hrda": {"mixing.weight": 0.8, "alignment.mixed_weight": 0.01},
    "refinenet": {"feature_distance": None},
}
"""What the paper sets otherwise for a network."""

REFERENCE_SWAP = {
    "cityscapes_to_acdc_night": ("*",),
    "cityscapes_to_dark_zurich": ("deeplab", "refinenet", "parts=refign"),
}
"""Where the day view stands in for the night at every second step, as in the official configs: benchmark to
networks."""

MATCHERS = {"toy": "uawarpc_tiny", "paper": "uawarpc"}
"""Scale of the benchmark to the network of the matcher."""

HRDA_CROP = {11: (768, 768)}
"""``mem=``: HRDA's crop, where it differs from the paper's."""


def _memory(model: ml_collections.ConfigDict, gigabytes: int) -> dict[str, bool | int | str]:
    """What differs from the paper for so much memory: what lies between products is computed twice, and at 11 GB the
    images of a batch come one after another, but for DAFormer."""
    if gigabytes == 80:
        return {}
    changes: dict[str, bool | int | str] = {"model.backbone_remat": True, "model.backbone_stored": "products"}
    daformer = model.head == "daformer"
    if daformer:
        changes["model.head_remat"] = True
    if gigabytes == 11 and (model.get("hrda") or not daformer):
        changes["train.accumulate"] = 2
    return changes


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
    parts: Literal["none", "dsr", "fpa", "both", "refign"] = "both",
    fda: bool = False,
    aligner: Literal["none", "uawarpc", "true_flow"] = "none",
    matcher: str = "",
    mem: Literal["", "80", "48", "24", "11"] = "",
) -> ml_collections.ConfigDict:
    """Arguments are described above."""
    scale = recipes.scale_of(data)
    recipe = RECIPES[scale]
    config = recipes.make(
        recipe,
        data,
        ("source", "target"),
        model=model,
        steps=steps,
        input=input,
        exposure=exposure,
        tune=tune,
        changes=common(data, photometric, model),
    )
    paired = "reference" in config.data.streams.target.fields
    _check_aligner(data, aligner, matcher, paired)
    method = {"alignment.start_step": recipes.scaled(FPA_START.get(data, 9600), config.train.steps, 40_000)}
    method |= {} if (model, parts) == ("hrda", "refign") else BY_MODEL.get(model or "", {})
    if paired:
        swapped = REFERENCE_SWAP.get(data, ())
        method |= {"reference_swap": bool({"*", model, f"parts={parts}"} & set(swapped)), "refinement.aligner": aligner}
    else:
        method["refinement"] = None
    if aligner == "uawarpc":
        method["refinement.matcher"] = MATCHERS[scale]
        if not matcher.endswith((*SAVED, *TORCH)):  # A file of weights does not say what they were trained on.
            method["refinement.matcher_input"] = f"run:{matcher}:model.input"
    method |= PARTS[parts] | ({"translation": {"weight": 1.0}} if fda else {})
    changes = [{f"method.{key}": value for key, value in method.items()}, _memory(config.model, int(mem or 80))]
    if aligner == "true_flow":
        changes.append({"data.streams.target.fields": (*config.data.streams.target.fields, "flow", "flow_valid")})
    if aligner == "uawarpc":
        changes.append({"train.frozen.aligner": matcher})
    if config.model.get("hrda") and int(mem or 80) in HRDA_CROP:
        changes.extend({f"data.streams.{name}.crop": HRDA_CROP[int(mem)]} for name in config.data.streams)
    return with_masking(recipes.changed(config, changes), data, masking, mask_ratio, mask_block)


def _check_aligner(data, aligner, matcher, paired):
    if aligner == "uawarpc" and not paired:
        raise UserError(f"data={data} has no day references to align: aligner=uawarpc is not for it")
    if aligner == "uawarpc" and not matcher:
        raise UserError(
            "config argument aligner=uawarpc needs the matcher's weights: matcher=FOLDER, a run of configs/uawarpc.py "
            "or published weights converted by nightjax convert"
        )
    if matcher and aligner != "uawarpc":
        raise UserError(f"config argument matcher={matcher} needs aligner=uawarpc beside it")
