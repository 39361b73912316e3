# SPDX-License-Identifier: Apache-2.0
"""Training on labeled days, translated nights and pseudo-labeled real nights (UIT thesis of 2021 and its journal form).

"Semantic image segmentation in the dark with domain adaptation method" (UIT, VNU-HCM, 2021); "Nighttime scene
understanding with label transfer scene parser" (Image and Vision Computing 151, 2024). Each round reads what the round
before left on disk. On NightStreet:

    python -m nightjax.main --config=configs/self_training.py:night=NIGHT --workdir=runs/first
    nightjax select --rule=fid_point --pool=POOL --reference=REFERENCE --count=200 --output=selected
    nightjax pseudo-label --workdir=runs/first --images=POOL --list=selected/selected.csv --split=source_day \\
        --output=pseudo
    python -m nightjax.main --config=configs/self_training.py:night=NIGHT,pseudo=pseudo,loss=combined \\
        --config.train.init=runs/first --workdir=runs/second

NIGHT is a translated data set such as ``translated/unit`` (``nightjax translate``); POOL and REFERENCE are folders or
DATASET@SPLIT. Without ``train.init`` the student starts from scratch; ``runs/first@best`` is that run's best checkpoint
instead of its last. With ``unlabeled=DATASET,split=SPLIT,teacher=RUN`` the teacher labels crops in the step instead
(``labels=hard`` or ``soft``, ``threshold=0.9``). ``nightjax study --study=thesis`` runs all rows of the thesis.

The thesis' setting takes one GPU and 60 epochs of 1488 steps of 4 crops of 512x1024 (hours and results are unmeasured
here). It reports 27.5 mIoU on Nighttime Driving from day alone and 40.7 with everything. ``zigzag=1488`` is its rate,
which falls and rises:

    python -m nightjax.main --config=configs/self_training.py:data=cityscapes_to_nighttime_driving \\
        --config.data.manual_dir=DIR
"""

from typing import Literal

import ml_collections

from nightjax.core.errors import UserError
from nightjax.zoo import optimizers, recipes

TOY = recipes.toy({"name": "supervised", "loss": {"normalizer": "all", "class_weights": "root_inverse"}})
PAPER = recipes.Recipe(
    {"name": "supervised", "loss": {"normalizer": "valid"}},
    "panoptic_fpn",
    optimizers.COSINE_SGD,
    steps=60 * 1488,
    batch=4,
    changes={"data.streams.source.antialias": True},
)

LOSSES = {"ce": None, "focal": {"beta": 0.0}, "combined": {"beta": 0.5}}
"""``loss=``: cross-entropy; focal loss with factor 0.5 and exponent 2, per pixel; the mean of both."""

TESTS = {"cityscapes_to_nighttime_driving": "nighttime_driving_ltsp"}
"""Benchmark to the set whose images ``converted=`` replaces; ``test_night`` elsewhere."""

JOINED = {"day": "{day}", "night": "{night}", "both": "{day}+{night}"}
"""``labeled=``: the data sets to join, each image as likely as any other."""


def get_config(
    data: str = "nightstreet",
    model: str | None = None,
    steps: int | None = None,
    input: Literal["torchvision", "caffe"] = "torchvision",
    exposure: bool = False,
    photometric: bool = False,
    labeled: Literal["", "day", "night", "both"] = "",
    night: str = "",
    pseudo: str = "",
    loss: Literal["ce", "focal", "combined"] = "ce",
    zigzag: int = 0,
    converted: str = "",
    unlabeled: str = "",
    split: str = "",
    teacher: str = "",
    labels: Literal["hard", "soft"] = "hard",
    threshold: float = 0.0,
) -> ml_collections.ConfigDict:
    """Arguments are described above."""
    scale = recipes.scale_of(data)
    labeled = labeled or ("both" if night else "day")
    if labeled != "day" and not night:
        raise UserError(f"config argument labeled={labeled} needs night=DATASET, the translated data set")
    if unlabeled and not (teacher and split):
        raise UserError(
            "config argument unlabeled needs teacher=RUN, whose network labels it, and split=SPLIT, its part to read"
        )
    domains = ("source", "target") if unlabeled else ("source",)
    config = recipes.make(
        {"toy": TOY, "paper": PAPER}[scale],
        data,
        domains,
        model=model,
        steps=steps,
        input=input,
        exposure=exposure,
        changes=[{"method.loss.focal": LOSSES[loss]}],
    )
    day = JOINED[labeled].format(day=config.data.streams.source.dataset, night=night)
    changes = [{"data.streams.source.dataset": f"{day}+folder:{pseudo}" if pseudo else day}]
    if photometric:
        changes.append({"method.photometric": {}})
    if scale == "paper":
        changes.append({"optim.cosine_steps": zigzag})
    if unlabeled:
        target = {"dataset": unlabeled, "split": split, "fields": ("image",)}
        antialias = {"antialias": True} if scale == "paper" else {}
        changes.append(
            {
                "data.streams.target": target | antialias,
                "train.frozen.teacher": teacher,
                "method": {"name": "self_training", "labels": labels, "threshold": threshold},
            }
        )
    if converted:
        test = config.eval.sets[TESTS.get(data, "test_night")].to_dict()
        changes.append({"eval.sets.converted": test | {"dataset": converted}})
    return recipes.changed(config, changes)
