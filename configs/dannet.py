# SPDX-License-Identifier: Apache-2.0
"""DANNet: relighting, adversarial alignment and static pseudo-labels in one stage (arXiv 2104.10834).

    python -m nightjax.main --config=configs/supervised.py --workdir=runs/source
    python -m nightjax.main --config=configs/dannet.py --config.train.init=runs/source

This adapts a source-only network on NightStreet, on two CPU cores (results in `docs/results.md`). Without the first
command and ``train.init`` the network learns from scratch. The ablation is ``without=light``, ``static``,
``adversarial``, or several joined by ``+``.

The official setting takes one GPU and 50,000 steps of 2 + 2 pairs (the authors: 25 h on an RTX 2080 Ti; unmeasured
here). It starts from the same network trained on Cityscapes, 150,000 steps there, and reports the checkpoint of step
35,000. The paper's mIoU on Dark Zurich test: DeepLab-v2 42.5, RefineNet 44.3, PSPNet 45.2 (source-only: 28.8, 28.5,
28.8); on Dark Zurich val, PSPNet: 36.76.

    python -m nightjax.main --config=configs/supervised.py:data=cityscapes_to_dark_zurich,model=pspnet,steps=150000 \\
        --config.data.manual_dir=DIR --workdir=runs/pspnet
    python -m nightjax.main --config=configs/dannet.py:data=cityscapes_to_dark_zurich,model=pspnet \\
        --config.data.manual_dir=DIR --config.train.init=runs/pspnet

``model=deeplab`` is DANNet's form of it here, which the first command calls ``model=deeplab_multi``. Networks compute
in bfloat16; the official program's float32 is ``--config.model.dtype=float32``.
"""

from typing import Literal

import ml_collections

from nightjax.core.errors import UserError
from nightjax.zoo import optimizers, recipes
from nightjax.zoo.benchmarks import evaluation_sets
from nightjax.zoo.models import RELIGHT

DISCRIMINATORS = {"network": {"features": 64}, "optimizer": optimizers.ADVERSARIAL_ADAM}
METHOD = {
    "name": "dannet",
    "class_weights": "dannet",
    "static": {"class_weights": "dannet"},
    "adversarial": {"discriminators": DISCRIMINATORS},
}
PAPER = recipes.Recipe(METHOD, "pspnet", optimizers.ADVERSARIAL_SGD, steps=50_000)
TOY = recipes.toy(
    METHOD | {"class_weights": "root_inverse"},
    optim=optimizers.SCRATCH_ADAMW | {"lr": 2e-3},
    batch=2,
    changes={
        "method.adversarial.discriminators.network.features": 8,
        "method.adversarial.discriminators.optimizer.lr": 1e-3,
    },
)
"""Batches of two, as in the paper, since every step passes three domains. In a run this short the discriminators learn
ten times faster than in the paper."""

FROZEN = {
    "pspnet": "^auxiliary/",
    "deeplab_multi": r"^(auxiliary/|head/conv2d_list_[23]/|backbone/layer.*/(bn\d|downsample_1)/)",
}
"""Network to what no step changes: classifiers and branches without gradient, and DeepLab's norms but that of the stem.

With all four of DeepLab's branches (``--config.model.head_summed=4``) take the last two out of ``optim.groups``.
"""

OFFICIAL_DATA = {
    "data.streams.source": {
        "resize": None,
        "bicubic": True,
        "scale_range": (0.5, 1.0),
        "rare_class": None,
        "max_class_share": 1.0,
    },
    "data.streams.target": {
        "resize": None,
        "bicubic": True,
        "scale_range": (0.9, 1.1),
        "crop": (960, 960),
        "crop_resize": (512, 512),
    },
    "method.target_size": (960, 960),
    "eval.sets": None,
    "checkpoint.keep": 4,
}
"""Crops and scales of the official code; the checkpoints of steps 35,000 to 50,000 are kept."""

OFFICIAL = {
    "cityscapes_to_dark_zurich": [
        OFFICIAL_DATA,
        {"eval.sets": evaluation_sets("", ("dark_zurich_val_dannet", "nighttime_driving_dannet"))},
    ]
}
"""Benchmark to the official data and test."""

WITHOUT = {
    "light": {},
    "static": {"method.static": None},
    "adversarial": {"method.adversarial": None},
}
"""``without=``: the ablation."""

NAMES = {"deeplab": "deeplab_multi"}
"""The name of a network in DANNet's paper to ours, where they differ."""


def get_config(
    data: str = "nightstreet",
    model: str | None = None,
    steps: int | None = None,
    input: Literal["torchvision", "caffe"] = "torchvision",
    exposure: bool = False,
    without: str = "",
) -> ml_collections.ConfigDict:
    """Arguments are described above."""
    removed = without.split("+") if without else []
    if unknown := sorted(set(removed) - set(WITHOUT)):
        raise UserError(f"config argument without={unknown[0]!r} is unknown; join any of {', '.join(WITHOUT)} by +")
    scale, model = recipes.scale_of(data), NAMES.get(model or "", model)
    recipe = {"toy": TOY, "paper": PAPER}[scale]
    changes = [] if "light" in removed else [{"model": RELIGHT[scale]}]
    if scale == "paper":
        frozen = FROZEN.get(model or "pspnet")
        changes += [{"optim.groups": ({"pattern": frozen, "lr": 0.0},)}] if frozen else []
        changes += OFFICIAL.get(data, [])
    changes += [WITHOUT[part] for part in removed]
    config = recipes.make(
        recipe,
        data,
        ("source", "target"),
        model=model,
        steps=steps,
        input=input,
        exposure=exposure,
        changes=changes,
    )
    if "reference" not in config.data.streams.target.fields:
        raise UserError(f"data={data} has no day views of its nights, which DANNet needs; try configs/adaptsegnet.py")
    return config
