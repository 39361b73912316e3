# SPDX-License-Identifier: Apache-2.0
"""pix2pixHD: labels to days, and nights to days on pairs made with that (arXiv 1711.11585), NightLab's paired baseline.

    python -m nightjax.main --config=configs/pix2pixhd.py --workdir=runs/label2day
    nightjax pairs --workdir=runs/label2day --data=nightstreet/std --split=oracle_night --output=pairs
    python -m nightjax.main --config=configs/pix2pixhd.py:translates=image,data=folder --config.data.manual_dir=pairs \\
        --workdir=runs/pix2pixhd
    nightjax translate --workdir=runs/pix2pixhd --to=day --data=nightstreet/std --split=test_night

On NightStreet narrow networks learn on two CPU cores; ``translates=image`` alone learns from its coarsely aligned pairs
of night and day. NightLab's setting (arXiv 2204.05538, supplement C) takes 50,000 steps of 2 images each time. Sizes,
schedule and the encoding of labels without instances are our choice. Hours are unmeasured here.

    python -m nightjax.main --config=configs/pix2pixhd.py:data=nightcity,vgg=VGG19.npz --config.data.manual_dir=DIR
    nightjax pairs --workdir=RUN --data=nightcity/original --split=train --output=PAIRS --manual_dir=DIR
    python -m nightjax.main --config=configs/pix2pixhd.py:data=folder,translates=image,size=full,vgg=VGG19.npz \\
        --config.data.manual_dir=PAIRS

``vgg=`` names torchvision's VGG-19; without it there is no VGG loss. FID chooses among the ten checkpoints of a run on
real data (``nightjax fid``).
"""

from typing import Literal

import ml_collections

from nightjax.core.errors import UserError
from nightjax.zoo import recipes, translators

TOY = translators.toy(
    {"name": "pix2pixhd", "discriminator_features": 8},
    {"form": "global", "features": 8, "downsamplings": 3, "blocks": 3},
    batch=2,
)
PAPER = translators.paper({"name": "pix2pixhd"}, {"form": "global"}, batch=2)

FULL = {"split": "train", "crop": (512, 1024), "resize": (512, 1024), "max_class_share": 1.0}
DAYS = {"source": FULL | {"dataset": "cityscapes_seg/half", "fields": ("image", "label")}}
"""Labels and days of NightLab's first step."""

FIELDS = {"label": ("source", ("image", "label")), "image": ("target", ("image", "reference"))}
"""What is translated to the stream and the fields that hold it and what it should become."""

BY_SIZE = {"small": TOY, "full": PAPER}
FOLDER_SIZE = {"small": (128, 256), "full": FULL["crop"]}


def get_config(
    data: str = "nightstreet",
    steps: int | None = None,
    translates: Literal["label", "image"] = "label",
    size: Literal["", "small", "full"] = "",
    vgg: str = "",
) -> ml_collections.ConfigDict:
    """Arguments are described above."""
    stream, fields = FIELDS[translates]
    method = {"method.translates": translates, "method.vgg": {} if vgg else None, "train.frozen.vgg": vgg or None}
    if data == "nightcity" and translates == "image":
        raise UserError("data=nightcity has no days of its nights: make pairs with nightjax pairs and give data=folder")
    if data == "nightcity":
        return translators.make(BY_SIZE[size or "full"], DAYS, steps, [method])
    size = size or {"toy": "small", "paper": "full"}[recipes.scale_of(data)]
    own = {"fields": fields, "max_class_share": 1.0}
    if data == "folder":
        own |= {"split": "train", "crop": FOLDER_SIZE[size], "resize": FOLDER_SIZE[size]}
    streams = translators.images_of(data, (stream,), own)
    return translators.make(BY_SIZE[size], streams, steps, [method])
