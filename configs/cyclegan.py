"""CycleGAN: night to day and back without pairs and without labels (arXiv 1703.10593), NightLab's unpaired translation
baseline.

    python -m nightjax.main --config=configs/cyclegan.py
    python -m nightjax.translate --workdir=runs/cyclegan --to=a --data=nightstreet/std --split=test_night

On the embedded benchmark a narrow network on whole pictures, two CPU cores. NightLab's setting (arXiv 2204.05538,
supplement C): 50,000 steps of 2 crops, NightCity's training nights against Cityscapes' training days; crop 256 of
pictures 1024 wide, identity weight 0.5 and the schedule are our choice, the paper does not give them. Hours on our
side: unmeasured.

    python -m nightjax.main --config=configs/cyclegan.py:data=nightcity --config.data.manual_dir=DIR

Then translate NightCity's training nights with each of its ten checkpoints (``--to=a``), choose the one of the best FID
to ``cityscapes_seg/half@train`` (the loop is in ``nightjax fid``), translate the test nights with that one too, and
train ``configs/supervised.py`` on the result.
"""

from configs import _base
from nightjax.core.config import parse_arg

CROP = {"crop": (256, 256), "resize": (512, 1024), "split": "train", "fields": ("image",), "bicubic": True}
NIGHTCITY = {
    "source": CROP | {"dataset": "cityscapes_seg/half"},
    "target": CROP | {"dataset": "nightcity/original"},
}
"""Days and nights of NightLab's baseline; labels are not read."""

CANDIDATES = {"every": 5000, "keep": 10}
"""Checkpoints of a translator on real data, among which FID chooses."""


def get_config(arg=""):
    """Arguments: data (nightcity, or a benchmark with a target), steps."""
    args = parse_arg(arg, data="nightstreet", steps="")
    paper, small = args["data"] == "nightcity", args["data"] in _base.FROM_SCRATCH
    data = "cityscapes_to_dark_zurich" if paper else args["data"]
    length = args["steps"] or ("600" if small else "50000")
    config = _base.get_base(_base.ARGS | {"data": data, "steps": length})
    config.data.streams = NIGHTCITY if paper else unlabelled(config.data.streams.to_dict(), small)
    config.eval.sets, config.checkpoint.best = {}, ""
    config.checkpoint.update({} if small else CANDIDATES)
    config.train.batch = 2
    config.model = {"features": 8 if small else 64, "blocks": 3 if small else 9, "dtype": "float32"}
    config.method = {"name": "cyclegan", "discriminator_features": 8 if small else 64}
    config.optim = adam(1e-3 if small else 2e-4)
    return config


def adam(lr):
    """Adam of the official programs of CycleGAN and pix2pixHD."""
    return {"name": "adam", "lr": lr, "b1": 0.5, "weight_decay": 0.0, "schedule": "linear_tail"}


def unlabelled(streams, small):
    """Images alone, in crops of 256 but for the embedded benchmark's."""
    crop = {} if small else {"crop": (256, 256)}
    return {
        name: {key: value for key, value in stream.items() if key != "rare_class"} | crop | {"fields": ("image",)}
        for name, stream in streams.items()
    }
