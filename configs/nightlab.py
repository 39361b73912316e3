# SPDX-License-Identifier: Apache-2.0
"""NightLab: two levels of segmentation, joined by a detector of hard regions (arXiv 2204.05538).

This is a reconstruction: the paper's body and code are not public. Each choice of ours is marked "(ours)" in the
docstrings of the method's parts and is a key under ``method``. Each stage is a run that starts from the one before:

    python -m nightjax.main --config=configs/nightlab.py:stage=image --workdir=runs/image
    python -m nightjax.main --config=configs/nightlab.py:stage=regions,start=runs/image --workdir=runs/regions
    python -m nightjax.main --config=configs/nightlab.py:stage=detector,start=runs/regions --workdir=runs/rdn
    python -m nightjax.main --config=configs/nightlab.py:stage=hdm,start=runs/rdn --workdir=runs/hdm

``stage=detector`` is the paper's RDN and ``stage=hdm`` its HDM; ``stage=all`` trains all three networks together at a
hundredth of the rate. ``stage=regions,proposals=1`` is a second round that also learns from the detector's regions.
Every run is scored by the image level alone (``test_night_image_level``), merged with regions around the truth
(``test_night_oracle_boxes``) and, once the detector has been trained, by the two levels merged (``test_night``). All
three take the class weights of the loss off the logits (``method.logit_adjustment``); the image run's own scores do
not.

The hard classes are those with an IoU below ``tau`` in the image run's last evaluation of ``val_night``, which also
chooses the checkpoint and is no result. On NightCity they are the published ones. ``hard=5+6+17`` names them by train
id; ``hard=val`` takes the evaluation set, which on NightCity is the test set, so results are then not comparable. The
paper's setting (one GPU; hours and results are unmeasured here):

    python -m nightjax.main --config=configs/nightlab.py:data=nightcity_plus,stage=image --config.data.manual_dir=DIR

with ``model=deeplabv3plus`` (default) or ``upernet_swin_b``, ``relight=1`` for relighting and ``joint=1`` for
Cityscapes.
"""

import dataclasses
from typing import Literal

import ml_collections

from nightjax.core import config as configs
from nightjax.core.errors import UserError
from nightjax.metrics.hard_classes import PUBLISHED
from nightjax.zoo import optimizers, recipes
from nightjax.zoo.benchmarks import BENCHMARKS


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage: its steps, and the factor on the learning rates, by scale of the benchmark."""

    steps: dict[str, int]
    rate: dict[str, float]


STAGES = {
    "image": Stage({"toy": 1000, "paper": 80_000}, {"toy": 1.0, "paper": 1.0}),
    "regions": Stage({"toy": 800, "paper": 40_000}, {"toy": 1.0, "paper": 0.1}),
    "detector": Stage({"toy": 600, "paper": 24_000}, {"toy": 1.0, "paper": 1.0}),
    "hdm": Stage({"toy": 300, "paper": 12_000}, {"toy": 0.1, "paper": 0.1}),
    "all": Stage({"toy": 200, "paper": 10_000}, {"toy": 0.01, "paper": 0.01}),
}

BY_SCALE = {
    "toy": {
        "method.detector": {"variant": "tiny", "proposals": {"before": 256, "after": 64, "total": 64}},
        "method.geometry": {"size": 64, "min_side": 24.0, "min_area": 4, "max_boxes": 32},
    },
    "paper": {},
}
"""Sizes for images of about 128x256."""

DETECTOR_OPTIM = {"toy": optimizers.SCRATCH_ADAMW | {"lr": 2e-3}, "paper": optimizers.MASKRCNN_SGD}
NETWORK = {"toy": None, "paper": "deeplabv3plus"}

PAPER_CLASSES = ("nightcity", "nightcity_plus", "nightcity_with_cityscapes")
"""Benchmarks whose hard classes the paper gives."""


def get_config(
    data: str = "nightstreet",
    model: str | None = None,
    steps: int | None = None,
    input: Literal["torchvision", "caffe"] = "torchvision",
    exposure: bool = False,
    photometric: bool = False,
    relight: bool = False,
    joint: bool = False,
    stage: Literal["image", "regions", "detector", "hdm", "all"] = "image",
    start: str = "",
    proposals: bool = False,
    tau: float = 0.5,
    hard: str = "",
) -> ml_collections.ConfigDict:
    """Arguments are described above."""
    scale = recipes.scale_of(data)
    nights_apart = "oracle" in BENCHMARKS[data] and (scale == "toy" or "day" in BENCHMARKS[data])
    train_on = "oracle" if nights_apart else "source"
    arguments = {
        "data": data,
        "model": model or NETWORK[scale],
        "steps": STAGES[stage].steps[scale] if steps is None else steps,
        "input": input,
        "exposure": exposure,
        "photometric": photometric,
        "relight": relight,
        "joint": joint,
        "train_on": train_on,
    }
    config = configs.call("supervised", **arguments)
    if stage == "image":
        return config
    if not start:
        raise UserError("config argument start= must be the folder of the run of the stage before")
    levels = stage != "regions" or proposals
    optim = recipes.fitted(DETECTOR_OPTIM[scale], config.train.steps)
    method = {
        "name": "nightlab",
        "stage": stage,
        "start": "levels" if levels else "image",
        "hard_classes": _hard_classes(data, start, tau, hard, levels, config),
        "sampling.detected": 0.5 if levels and stage in ("regions", "all") else 0.0,
        "detector.optimizer": _slowed(optim, stage, scale),
    }
    sets = _sets(config.eval.sets.to_dict(), scale, levels)
    best = config.checkpoint.best
    return recipes.changed(
        config,
        [
            {f"method.{key}": value for key, value in method.items()},
            BY_SCALE[scale],
            {"optim": _slowed(config.optim.to_dict(), stage, scale)},
            {"train.init": start, "eval.every": config.train.steps, "eval.sets": None},
            {"eval.sets": sets},
            {"checkpoint.best": best if best in ("", *sets) else f"{best}_oracle_boxes"},
        ],
    )


def _slowed(optim, stage, scale):
    """An optimizer at the stage's rate; a detector that only goes on does not wait for its milestones."""
    rest = {"milestones": ()} if stage in ("hdm", "all") and "milestones" in optim else {}
    return optim | {"lr": optim["lr"] * STAGES[stage].rate[scale]} | rest


def _sets(sets, scale, merged):
    """Sets of the night by the image level alone, with the true regions, and if ``merged`` as predicted; those of the
    day.

    Without a detector the method's own prediction is the image level's, so that is how the day is scored then.
    """
    every = {}
    for name, section in sets.items():
        section = section if scale == "toy" else section | {"batch": 1}
        day = name.endswith("_day")
        if merged or day:
            every[name] = section
        if not day:
            every |= {f"{name}_{other}": section | {"prediction": other} for other in ("image_level", "oracle_boxes")}
    return every


def _hard_classes(data, start, tau, hard, levels, config):
    """Train ids, or a reference to the run that decides them; of a run of two levels, the image level's scores
    count."""
    if hard not in ("", "val"):
        try:
            return tuple(map(int, hard.split("+")))
        except ValueError:
            raise UserError(f"config argument hard={hard} must be val or train ids such as 5+6+17") from None
    if levels and not hard:
        return f"run:{start}:method.hard_classes"
    if data in PAPER_CLASSES and hard != "val":
        if tau not in PUBLISHED:
            raise UserError(f"config argument tau={tau}: the paper gives classes for {', '.join(map(str, PUBLISHED))}")
        return PUBLISHED[tau]
    sets = list(config.eval.sets)
    chosen = "val_night" if "val_night" in sets else sets[0]
    return f"hard_classes:{start}:{chosen}_image_level:{tau}" if levels else f"hard_classes:{start}:{chosen}:{tau}"
