"""AdaptSegNet: adversarial alignment of the output at one or two levels (arXiv 1802.10349).

    python -m nightjax.main --config=configs/supervised.py --workdir=runs/source
    python -m nightjax.main --config=configs/adaptsegnet.py --config.train.init=runs/source

adapts a source-only network on the embedded benchmark, two CPU cores; without the first command and ``train.init`` it
learns from nothing. There the network has one level.

The official setting is one GPU and batches of one image; the schedule is for 250,000 steps, of which the authors report
the 150,000th (hours on our side: unmeasured). It starts from Caffe's ImageNet weights, for which images enter as
``input=caffe``; a supervised run of ours that was trained without it needs ``input=torchvision``. The authors' mIoU
from GTA5 to Cityscapes: 42.4 with two levels, 44.1 with ``gan=least_squares`` on one. DANNet's paper gives it 30.4 on
    Dark Zurich test.

    python -m nightjax.convert --input=DeepLab_resnet_pretrained_init.pth --allow_surplus='layer5.*' \\
        --allow_missing='head.*,auxiliary.*' --config=configs/adaptsegnet.py:data=gta5_to_cityscapes --output=pretrained/caffe
    python -m nightjax.main --config=configs/adaptsegnet.py:data=gta5_to_cityscapes \\
        --config.data.manual_dir=DIR --config.train.init=pretrained/caffe

Of the authors' initial file (names ``Scale.*``) only the backbone is taken: its ``layer5`` is a classifier of other
classes.
"""

from configs import _base
from nightjax.core.config import choose, parse_arg
from nightjax.models.discriminator import VARIANTS

WEIGHTS = {
    ("2", "vanilla"): ((0.1, 1.0), (0.0002, 0.001)),
    ("1", "vanilla"): ((0.0, 1.0), (0.0, 0.001)),
    ("1", "least_squares"): ((0.0, 1.0), (0.0, 0.01)),
}
"""Number of levels and GAN to the weights of cross-entropy and adversarial loss at each level (official README)."""

FROZEN = r"^student/(head|auxiliary)/conv2d_list_[23]/|^student/backbone/(bn1|layer.*/(bn\d|downsample_1))/"
"""Branches without gradient, and the norms of backbone and stem."""


def get_config(arg=""):
    """Arguments: those of `_base.ADVERSARIAL_ARGS`, levels (1 or 2), gan (vanilla or least_squares)."""
    args = parse_arg(arg, **(_base.ADVERSARIAL_ARGS | {"input": ""}), levels="", gan="vanilla")
    args["model"] = _base.DANNET_NAMES.get(args["model"], args["model"])
    small = args["data"] in _base.FROM_SCRATCH
    args["input"] = args["input"] or ("torchvision" if small else "caffe")
    config = _base.get_base(args, model="deeplab_multi", steps=250_000)
    levels = args["levels"] or ("2" if "auxiliary" in config.model and args["gan"] == "vanilla" else "1")
    table = {",".join(key): weights for key, weights in WEIGHTS.items()}
    segmentation, adversarial = choose(table, f"{levels},{args['gan']}", "config arguments levels,gan")
    config.method = {
        "name": "adaptsegnet",
        "input": _base.network_input(args),
        "segmentation_weights": segmentation,
        "adversarial_weights": adversarial,
        "adversarial": args["gan"],
        "discriminator": {"features": 64, **VARIANTS["adaptsegnet"]},
        "discriminator_optimizer": _base.ADVERSARIAL_ADAM,
    }
    config.data.streams.target.fields = ("image",)
    if small:
        config.method.class_weights = _base.class_weights()
        config.method.discriminator.features = 16
        config.method.discriminator_optimizer.lr = 1e-3  # Ten times the paper's, in a run this short.
        config.optim = _base.optim(args)
        return config
    config.optim = _base.ADVERSARIAL_SGD
    if args["model"] in ("", "deeplab_multi"):
        unused = ({"pattern": "^student/auxiliary/", "lr": 0.0},) if levels == "1" else ()
        heads = {"pattern": "^student/(head|auxiliary)/", "lr": 10.0}
        config.optim.groups = (*unused, {"pattern": FROZEN, "lr": 0.0}, heads)
    config.train.batch = 1
    config.eval.every = config.checkpoint.every = max(config.train.steps // 10, 1)
    config.checkpoint.keep = 5
    if args["data"] == "gta5_to_cityscapes":
        _official_data(config)
    return config


def _official_data(config):
    """Whole images, not augmented."""
    common = {"bicubic": True, "flip": False, "max_class_share": 1.0, "rare_class": None}
    sizes, streams = {"source": (720, 1280), "target": (512, 1024)}, config.data.streams.to_dict()
    config.data.streams = {
        name: streams[name] | common | {"crop": size, "resize": size} for name, size in sizes.items()
    }
    for section in config.eval.sets.values():
        section.align_corners = True
