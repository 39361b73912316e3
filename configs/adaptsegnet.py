# SPDX-License-Identifier: Apache-2.0
"""AdaptSegNet: adversarial alignment of the output at one or two levels (arXiv 1802.10349).

    python -m nightjax.main --config=configs/supervised.py --workdir=runs/source
    python -m nightjax.main --config=configs/adaptsegnet.py --config.train.init=runs/source

This adapts a source-only network on NightStreet, on two CPU cores. Without the first command and ``train.init`` the
network learns from scratch. The small network has one level.

The official setting takes one GPU and batches of one image; the schedule is for 250,000 steps, of which the authors
report the 150,000th (hours are unmeasured here). It starts from Caffe's ImageNet weights, for which images enter as
``input=caffe``; a supervised run of ours without that needs ``input=torchvision``. The authors' mIoU from GTA5 to
Cityscapes: 42.4 with two levels, 44.1 with ``gan=least_squares`` on one. DANNet's paper gives it 30.4 on Dark Zurich
test.

    nightjax convert --input=DeepLab_resnet_pretrained_init.pth --allow_surplus='layer5.*' \\
        --allow_missing='head.*,auxiliary.*' --config=configs/adaptsegnet.py:data=gta5_to_cityscapes \\
        --output=pretrained/caffe
    python -m nightjax.main --config=configs/adaptsegnet.py:data=gta5_to_cityscapes \\
        --config.data.manual_dir=DIR --config.train.init=pretrained/caffe

Of the authors' initial file (names ``Scale.*``) only the backbone is taken: its ``layer5`` classifies other classes.
"""

from typing import Literal

import ml_collections

from nightjax.core.errors import choose
from nightjax.models.discriminator import VARIANTS
from nightjax.zoo import optimizers, recipes
from nightjax.zoo.models import MODELS

DISCRIMINATORS = {"network": {"features": 64, **VARIANTS["adaptsegnet"]}, "optimizer": optimizers.ADVERSARIAL_ADAM}
METHOD = {"name": "adaptsegnet", "discriminators": DISCRIMINATORS}
PAPER = recipes.Recipe(
    METHOD, "deeplab_multi", optimizers.ADVERSARIAL_SGD, steps=250_000, batch=1, changes={"checkpoint.keep": 5}
)
TOY = recipes.toy(
    METHOD | {"class_weights": "root_inverse"},
    changes={"method.discriminators.network.features": 16, "method.discriminators.optimizer.lr": 1e-3},
)
"""The discriminators learn at ten times the paper's rate, in a run this short."""

INPUT = {"toy": "torchvision", "paper": "caffe"}

WEIGHTS = {
    "2,vanilla": {"segmentation_weights": (0.1, 1.0), "adversarial_weights": (0.0002, 0.001)},
    "1,vanilla": {"segmentation_weights": (0.0, 1.0), "adversarial_weights": (0.0, 0.001)},
    "1,least_squares": {"segmentation_weights": (0.0, 1.0), "adversarial_weights": (0.0, 0.01)},
}
"""Number of levels and GAN to the weights of cross-entropy and adversarial loss at each level (official README)."""

FROZEN = r"^(head|auxiliary)/conv2d_list_[23]/|^backbone/(bn1|layer.*/(bn\d|downsample_1))/"
"""Branches without gradient, and the norms of backbone and stem."""

GROUPS = {
    "2": ({"pattern": FROZEN, "lr": 0.0}, {"pattern": "^(head|auxiliary)/", "lr": 10.0}),
    "1": (
        {"pattern": "^auxiliary/", "lr": 0.0},
        {"pattern": FROZEN, "lr": 0.0},
        {"pattern": "^(head|auxiliary)/", "lr": 10.0},
    ),
}
"""Number of levels to the optimizer's groups of ``deeplab_multi``."""

WHOLE = {"bicubic": True, "flip": False, "max_class_share": 1.0, "rare_class": None}
OFFICIAL = {
    "gta5_to_cityscapes": {
        "data.streams.source": WHOLE | {"crop": (720, 1280), "resize": (720, 1280)},
        "data.streams.target": WHOLE | {"crop": (512, 1024), "resize": (512, 1024)},
        "eval.sets.cityscapes_val.align_corners": True,
    }
}
"""Benchmark to the official data: whole images, not augmented."""

NAMES = {"deeplab": "deeplab_multi"}
"""The name of a network in AdaptSegNet's paper to ours, where they differ."""


def get_config(
    data: str = "nightstreet",
    model: str | None = None,
    steps: int | None = None,
    input: Literal["", "torchvision", "caffe"] = "",
    exposure: bool = False,
    levels: Literal["", "1", "2"] = "",
    gan: Literal["vanilla", "least_squares"] = "vanilla",
) -> ml_collections.ConfigDict:
    """Arguments are described above."""
    scale, model = recipes.scale_of(data), NAMES.get(model or "", model)
    recipe = {"toy": TOY, "paper": PAPER}[scale]
    named = model or recipe.model
    two = "auxiliary" in choose(MODELS, named, "config argument model") and gan == "vanilla"
    levels = levels or ("2" if two else "1")
    weights = choose(WEIGHTS, f"{levels},{gan}", "config arguments levels,gan")
    changes = [{"method": weights | {"discriminators": {"kind": gan}}, "data.streams.target.fields": ("image",)}]
    if scale == "paper":
        changes += [{"optim.groups": GROUPS[levels]}] if named == "deeplab_multi" else []
        changes += [OFFICIAL[data]] if data in OFFICIAL else []
    return recipes.make(
        recipe,
        data,
        ("source", "target"),
        model=model,
        steps=steps,
        input=input or INPUT[scale],
        exposure=exposure,
        changes=changes,
    )
