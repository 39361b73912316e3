"""UNIT: day to night and back without pairs and without labels (arXiv 1703.00848; NVIDIA's release of 2018).

    python -m nightjax.main --config=configs/unit.py
    python -m nightjax.translate --workdir=runs/unit --data=nightstreet/std --split=source_day

On the embedded benchmark a narrow network with one halving, on 96x96 crops, learns in about 10 minutes of one CPU core,
beside other work, to make nights of the same streets, somewhat blurred; half as wide it had painted white markings
black. The Fréchet distance of random features (``nightjax fid --features=random``) from days to nights falls from
10.5 to 0.3.

The thesis' setting, one GPU, 330,000 steps of one 256x256 crop of a picture with 512 pixels on the shorter side,
discriminators with layer norm, perceptual loss of a VGG-16 (hours and memory on our side: unmeasured; about 4.7 GB were
reported):

    python -m nightjax.main --config=configs/unit.py:data=nexet,vgg=VGG16.npz --config.data.manual_dir=DIR

The weights are Caffe's (``conv1_1.weight``, ...), or torchvision's with
``--config.method.perceptual.pixels=imagenet_rgb``; without ``vgg=`` it is the thesis' run without that loss.
``form=unit2017`` is the paper's network and losses, with shared blocks.
Reported FID of translated Cityscapes to real nights: 98.39 without, 97.68 with the perceptual loss. Maintainers advise
    the
perceptual loss from 512-pixel crops on, and none at 256. The last ten checkpoints, 5000 steps apart, are there for FID
to choose
from: see ``nightjax fid``.
"""

import copy

from configs import _base
from configs.cyclegan import CANDIDATES
from nightjax.core.config import choose, parse_arg

NEXET = {
    stream: {
        "dataset": f"nexet/{light}_agree",
        "split": "train",
        "crop": (256, 256),
        "resize": (512, 910),
        "fields": ("image",),
    }
    for stream, light in (("source", "day"), ("target", "night"))
}
"""Photos whose tag and brightness agree; one in four, ``test``, is left out."""

LENGTH = {"unit2018": "330000", "unit2017": "500000"}
"""Steps of the thesis' checkpoint, and of the paper's street scenes."""

CROP = {"unit2018": (256, 256), "unit2017": (480, 640)}
SCHEDULE = {"unit2018": "step", "unit2017": "constant"}

FORMS = {
    "unit2018": {"discriminator": {"form": "unit2018"}, "weights": {}},
    "unit2017": {
        "discriminator": {"form": "unit2017", "norm": "none"},
        "adversarial": "vanilla",
        "noisy_code_loss": True,
        "weights": {"adversarial": 10.0, "reconstruction": 100.0, "code": 0.1, "cycle": 100.0, "cycle_code": 0.1},
    },
}


def get_config(arg=""):
    """Arguments: data (a benchmark, or nexet), steps, form (unit2018 or unit2017), vgg (file; "" for no perceptual
    loss)."""
    args = parse_arg(arg, data="nightstreet", steps="", form="unit2018", vgg="")
    nexet, small = args["data"] == "nexet", args["data"] in _base.FROM_SCRATCH
    form = choose(FORMS, args["form"], "config argument form")
    length = args["steps"] or ("1000" if small else LENGTH[args["form"]])
    data = "cityscapes_to_dark_zurich" if nexet else args["data"]
    config = _base.get_base(_base.ARGS | {"data": data, "steps": length})
    streams = NEXET if nexet else config.data.streams.to_dict()
    own = {"crop": (96, 96)} if small else {"crop": CROP[args["form"]], "antialias": True}
    config.data.streams = {name: _stream(stream, own) for name, stream in streams.items()}
    config.eval.sets, config.checkpoint.best = {}, ""
    config.checkpoint.update({} if small else CANDIDATES)
    config.train.batch, config.train.frozen = 1, {"vgg": args["vgg"]} if args["vgg"] else {}
    config.model = {"form": args["form"], "dtype": "float32"}
    config.method = {"name": "unit"} | copy.deepcopy(form)
    config.method.weights.perceptual = 1.0 if args["vgg"] else 0.0
    config.method.perceptual = {"pixels": "caffe_bgr"}
    config.optim = {
        "name": "adam",
        "lr": 1e-4,
        "b1": 0.5,
        "weight_decay": 1e-4,
        "decay_vectors": True,
        "schedule": SCHEDULE[args["form"]],
    }
    if small:
        config.model.update({"features": 16, "blocks": 2, "downsamplings": 1})
        config.method.discriminator.update({"features": 16, "scales": 2})
        config.optim.lr = 5e-4
    return config


def _stream(stream, own):
    """Images alone, with settings of our own."""
    kept = {name: value for name, value in stream.items() if name != "rare_class"}
    return kept | {"fields": ("image",)} | own
