"""CycleGAN: night to day and back without pairs and without labels (arXiv 1703.10593), NightLab's unpaired translation
baseline.

    python -m nightjax.main --config=configs/cyclegan.py
    python -m nightjax.translate --workdir=runs/cyclegan --to=day --data=nightstreet/std --split=test_night

On the embedded benchmark a narrow network on whole pictures, two CPU cores. NightLab's setting (arXiv 2204.05538,
supplement C): 50,000 steps of 2 crops, NightCity's training nights against Cityscapes' training days; crop 256 of
pictures 1024 wide, identity weight 0.5 and the schedule are our choice, the paper does not give them. Hours on our
side: unmeasured.

    python -m nightjax.main --config=configs/cyclegan.py:data=nightcity --config.data.manual_dir=DIR

Then translate NightCity's training nights with each of its ten checkpoints (``--to=day``), choose the one of the best FID
to ``cityscapes_seg/half@train`` (the loop is in ``nightjax fid``), translate the test nights with that one too, and
train ``configs/supervised.py`` on the result.
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
    """See the file."""
    if data in STREAMS:
        return translators.make(PAPER, STREAMS[data], steps)
    scale = recipes.scale_of(data)
    streams = translators.images_of(
        data, tuple(STREAMS["nightcity"]), {"toy": {}, "paper": {"crop": (256, 256)}}[scale]
    )
    return translators.make({"toy": TOY, "paper": PAPER}[scale], streams, steps)
