# SPDX-License-Identifier: Apache-2.0
"""UNIT: day to night and back without pairs and labels (arXiv 1703.00848; NVIDIA's release of 2018).

    python -m nightjax.main --config=configs/unit.py
    nightjax translate --workdir=runs/unit --data=nightstreet/std --split=source_day

On NightStreet a narrow network with one downsampling, on 96x96 crops, learns in about 10 minutes of one CPU core to
make nights of the same streets, somewhat blurred. The Fréchet distance of random features (``nightjax fid
--features=random``) from days to nights falls from 10.5 to 0.3.

The thesis' setting takes one GPU and 330,000 steps of one 256x256 crop of an image with 512 pixels on the shorter side,
discriminators with layer norm, and the perceptual loss of a VGG-16 (hours and memory are unmeasured here; about 4.7 GB
were reported):

    python -m nightjax.main --config=configs/unit.py:data=nexet,vgg=VGG16.npz --config.data.manual_dir=DIR

The weights are Caffe's (``conv1_1.weight``, ...), or torchvision's with
``--config.method.perceptual.pixels=imagenet_rgb``. Without them, the features of your own day's segmentation network do
(ours; unmeasured): ``unit.py:segmenter=runs/source``. With neither there is no perceptual loss. ``form=unit2017`` is
the paper's network and losses, with shared blocks.
Reported FID of translated Cityscapes to real nights: 98.39 without, 97.68 with the perceptual loss. Its maintainers
advise the perceptual loss from 512-pixel crops on, and none at 256. FID chooses among the last ten checkpoints, 5000
steps apart (``nightjax fid``).
"""

from typing import Literal

import ml_collections

from nightjax.core.errors import UserError
from nightjax.zoo import optimizers, recipes, translators

FORMS = {
    "unit2018": {"discriminator": {"form": "unit2018"}},
    "unit2017": {
        "discriminator": {"form": "unit2017", "norm": "none"},
        "adversarial": "vanilla",
        "noisy_code_loss": True,
        "weights": {"adversarial": 10.0, "reconstruction": 100.0, "code": 0.1, "cycle": 100.0, "cycle_code": 0.1},
    },
}
SMALL = {"features": 16, "blocks": 2, "downsamplings": 1}
TOY = translators.toy(
    {"name": "unit"},
    SMALL,
    optim=optimizers.UNIT_ADAM | {"lr": 5e-4},
    steps=1000,
    batch=1,
    changes={"method.discriminator": {"features": 16, "scales": 2}},
)
PAPER = translators.paper({"name": "unit"}, {}, optim=optimizers.UNIT_ADAM, steps=330_000, batch=1)

BY_FORM = {
    "unit2018": {"steps": 330_000, "crop": (256, 256), "optim.schedule": "step"},
    "unit2017": {"steps": 500_000, "crop": (480, 640), "optim.schedule": "constant"},
}
"""Steps of the thesis' checkpoint, and of the paper's street scenes; crops; schedule."""

NEXET = {
    stream: {"dataset": f"nexet/{light}_agree", "split": "train", "resize": (512, 910), "fields": ("image",)}
    for stream, light in (("source", "day"), ("target", "night"))
}
"""Photos whose tag and brightness agree; one in four, ``test``, is left out."""


def get_config(
    data: str = "nightstreet",
    steps: int | None = None,
    form: Literal["unit2018", "unit2017"] = "unit2018",
    vgg: str = "",
    segmenter: str = "",
) -> ml_collections.ConfigDict:
    """Arguments are described above."""
    own = BY_FORM[form]
    scale = "paper" if data == "nexet" else recipes.scale_of(data)
    recipe = {"toy": TOY, "paper": PAPER.replace(steps=own["steps"])}[scale]
    pixels = {"toy": {"crop": (96, 96)}, "paper": {"crop": own["crop"], "antialias": True}}[scale]
    if data == "nexet":
        streams = {name: stream | pixels for name, stream in NEXET.items()}
    else:
        streams = translators.images_of(data, tuple(NEXET), pixels)
    changes = [
        {"method": FORMS[form], "model.form": form, "optim.schedule": own["optim.schedule"]},
        recipe.changes,
        {"method.perceptual": _perceptual(vgg, segmenter)},
        {"train.frozen.vgg": vgg or None, "train.frozen.segmenter": segmenter or None},
    ]
    return translators.make(recipe, streams, steps, changes)


def _perceptual(vgg: str, segmenter: str) -> dict[str, str] | None:
    if vgg and segmenter:
        raise UserError(f"config arguments vgg={vgg} and segmenter={segmenter}: the perceptual loss has one network")
    return {"segmenter": f"run:{segmenter}:model"} if segmenter else {} if vgg else None
