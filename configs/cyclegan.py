# SPDX-License-Identifier: Apache-2.0
"""CycleGAN: night to day and back without pairs and labels (arXiv 1703.10593), NightLab's unpaired baseline.

    python -m nightjax.main --config=configs/cyclegan.py
    nightjax translate --workdir=runs/cyclegan --to=day --data=nightstreet/std --split=test_night

On NightStreet a narrow network learns on whole images, on two CPU cores. NightLab's setting (arXiv 2204.05538,
supplement C) takes 50,000 steps of 2 crops, NightCity's training nights against Cityscapes' training days. Crops of 256
in images 1024 wide, the identity weight of 0.5 and the schedule are our choice, since the paper does not give them.
Hours are unmeasured here.

    python -m nightjax.main --config=configs/cyclegan.py:data=nightcity --config.data.manual_dir=DIR

Then translate NightCity's training nights with each of the ten checkpoints (``--to=day``), choose the one with the best
FID to ``cityscapes_seg/half@train`` (``nightjax fid``), translate the test nights with it too, and train
``configs/supervised.py`` on the result.
"""

import ml_collections

from nightjax.zoo import recipes, translators

TOY = translators.toy({"name": "cyclegan", "discriminator_features": 8}, {"features": 8, "blocks": 3}, batch=2)
PAPER = translators.paper({"name": "cyclegan"}, {"features": 64, "blocks": 9}, batch=2)

NIGHTCITY = {"split": "train", "crop": (256, 256), "resize": (512, 1024), "fields": ("image",), "bicubic": True}
STREAMS = {
    "nightcity": {
        "source": NIGHTCITY | {"dataset": "cityscapes_seg/half"},
        "target": NIGHTCITY | {"dataset": "nightcity/original"},
    }
}
"""Days and nights of NightLab's baseline; labels are not read."""


def get_config(data: str = "nightstreet", steps: int | None = None) -> ml_collections.ConfigDict:
    """Arguments are described above."""
    if data in STREAMS:
        return translators.make(PAPER, STREAMS[data], steps)
    scale = recipes.scale_of(data)
    streams = translators.images_of(
        data, tuple(STREAMS["nightcity"]), {"toy": {}, "paper": {"crop": (256, 256)}}[scale]
    )
    return translators.make({"toy": TOY, "paper": PAPER}[scale], streams, steps)
