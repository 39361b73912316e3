"""pix2pixHD: labels to days, and nights to days on pairs made with that (arXiv 1711.11585), NightLab's paired baseline.

    python -m nightjax.main --config=configs/pix2pixhd.py --workdir=runs/label2day
    python -m nightjax.pairs --workdir=runs/label2day --data=nightstreet/std --split=oracle_night --output=pairs
    python -m nightjax.main --config=configs/pix2pixhd.py:translates=image,data=folder --config.data.manual_dir=pairs
    python -m nightjax.translate --workdir=runs/pix2pixhd --to=a --data=nightstreet/std --split=test_night

On the embedded benchmark narrow networks, two CPU cores; ``translates=image`` alone learns from its coarsely aligned
pairs of night and day. NightLab's setting (arXiv 2204.05538, supplement C), 50,000 steps of 2 pictures each time;
sizes, schedule and the encoding of labels without instances are our choice, the paper does not give them. Hours on our
side: unmeasured.

    python -m nightjax.main --config=configs/pix2pixhd.py:data=nightcity,vgg=VGG19.npz --config.data.manual_dir=DIR
    python -m nightjax.pairs --workdir=RUN --data=nightcity/original --split=train --output=PAIRS --manual_dir=DIR
    python -m nightjax.main --config=configs/pix2pixhd.py:data=folder,translates=image,size=full,vgg=VGG19.npz \\
        --config.data.manual_dir=PAIRS

``vgg=`` names torchvision's VGG-19; without it there is no VGG loss. The ten checkpoints of a run on real data are
there for FID to
choose from: see ``nightjax fid``.
"""

from configs import _base
from configs.cyclegan import CANDIDATES, adam
from nightjax.core.config import choose, parse_arg
from nightjax.core.errors import UserError

FULL = {"split": "train", "crop": (512, 1024), "resize": (512, 1024), "max_class_share": 1.0}
DAYS = {"source": FULL | {"dataset": "cityscapes_seg/half", "fields": ("image", "label")}}
"""Labels and days of NightLab's first step."""

FIELDS = {"label": ("source", ("image", "label")), "image": ("target", ("image", "reference"))}
"""What is translated to the stream and the fields that hold it and what it should become."""


def get_config(arg=""):
    """Arguments: data (nightcity, folder, or a benchmark), steps, translates (label or image), size (small or full),
    vgg (file)."""
    args = parse_arg(arg, data="nightstreet", steps="", translates="label", size="", vgg="")
    stream, fields = choose(FIELDS, args["translates"], "config argument translates")
    paper, small = args["data"] == "nightcity", args["data"] in _base.FROM_SCRATCH
    if args["size"]:
        small = choose({"small": True, "full": False}, args["size"], "config argument size")
    if paper and args["translates"] == "image":
        raise UserError(
            "data=nightcity has no days of its nights: make pairs with nightjax pairs and give data=folder"
        )
    data = "cityscapes_to_dark_zurich" if paper else args["data"]
    length = args["steps"] or ("600" if small else "50000")
    config = _base.get_base(_base.ARGS | {"data": data, "steps": length})
    own = config.data.streams[stream].to_dict() | {"fields": fields, "max_class_share": 1.0}
    own.pop("rare_class", None)
    if args["data"] == "folder":
        size = (128, 256) if small else FULL["crop"]
        own |= {"split": "train", "crop": size, "resize": size}
    config.data.streams = DAYS if paper else {stream: own}
    config.eval.sets, config.checkpoint.best = {}, ""
    config.checkpoint.update({} if small else CANDIDATES)
    config.train.batch, config.train.frozen = 2, {"vgg": args["vgg"]} if args["vgg"] else {}
    config.model = {"form": "global", "dtype": "float32"}
    config.method = {"name": "pix2pixhd", "translates": args["translates"], "vgg": bool(args["vgg"])}
    config.optim = adam(1e-3 if small else 2e-4)
    if small:
        config.model.update(features=8, downsamplings=3, blocks=3)
        config.method.discriminator_features = 8
    return config
