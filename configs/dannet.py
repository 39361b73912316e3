"""DANNet: relighting, adversarial alignment and static pseudo-labels in one stage (arXiv 2104.10834).

    python -m nightjax.main --config=configs/supervised.py --workdir=runs/source
    python -m nightjax.main --config=configs/dannet.py --config.train.init=runs/source

adapts a source-only network on the embedded benchmark, two CPU cores (results in `docs/results.md`); without the first
command and ``train.init`` it learns from nothing. The ablation is ``without=light``, ``static``, ``adversarial``, or
several joined by ``+``.

The official setting is one GPU, 50,000 steps of 2 + 2 pairs (the authors: 25 h on an RTX 2080 Ti; on our side
unmeasured). It starts from the same network trained on Cityscapes, 150,000 steps there, and reports the checkpoint of
step 35,000. Dark Zurich
test mIoU in the paper: DeepLab-v2 42.5, RefineNet 44.3, PSPNet 45.2 (source-only 28.8, 28.5, 28.8); validation, PSPNet:
    36.76.

    python -m nightjax.main --config=configs/supervised.py:data=cityscapes_to_dark_zurich,model=pspnet,steps=150000 \\
        --config.data.manual_dir=DIR --workdir=runs/pspnet
    python -m nightjax.main --config=configs/dannet.py:data=cityscapes_to_dark_zurich,model=pspnet \\
        --config.data.manual_dir=DIR --config.train.init=runs/pspnet

``model=deeplab`` here is DANNet's form of it, which the first command calls ``model=deeplab_multi``. Networks compute
in bfloat16; the official program's float32 is ``--config.model.dtype=float32``.
"""

import numpy as np

from configs import _base
from nightjax.core.classes import CITYSCAPES
from nightjax.core.config import parse_arg
from nightjax.core.errors import UserError
from nightjax.losses.segmentation import class_weights
from nightjax.zoo.benchmarks import evaluation_sets

FROZEN = {
    "pspnet": "^student/auxiliary/",
    "deeplab_multi": r"^student/(auxiliary/|head/conv2d_list_[23]/|backbone/layer.*/(bn\d|downsample_1)/)",
}
"""Network to what no step changes: classifiers and branches without gradient, and DeepLab's norms but that of the stem.

With all four of DeepLab's branches (``--config.model.head_summed=4``) take the last two out of ``optim.groups``.
"""

PARTS = ("light", "static", "adversarial")


def get_config(arg=""):
    """Arguments: those of `_base.ADVERSARIAL_ARGS` (model: pspnet, deeplab, refinenet or any other), without."""
    args = parse_arg(arg, **_base.ADVERSARIAL_ARGS, without="")
    args["model"] = _base.DANNET_NAMES.get(args["model"], args["model"])
    without = args["without"].split("+") if args["without"] else ()
    if unknown := sorted(set(without) - set(PARTS)):
        raise UserError(f"config argument without={unknown[0]!r} is unknown; join any of {', '.join(PARTS)} by +")
    config = _base.get_base(args, model="pspnet", steps=50_000)
    if "reference" not in config.data.streams.target.fields:
        raise UserError(
            f"data={args['data']} has no day views of its nights, which DANNet needs; try configs/adaptsegnet.py"
        )
    weights = tuple(float(weight) for weight in class_weights(np.array(CITYSCAPES.pixel_share), 0.05).round(7))
    config.model.light = "light" not in without
    config.method = {
        "name": "dannet",
        "input": _base.network_input(args),
        "class_weights": weights,
        "static_class_weights": weights,
        "static_weight": 0.0 if "static" in without else 1.0,
        "adversarial_weight": 0.0 if "adversarial" in without else 0.01,
        "discriminator": {"features": 64},
        "discriminator_optimizer": _base.ADVERSARIAL_ADAM,
    }
    if args["data"] in _base.FROM_SCRATCH:
        return _small(config, args)
    config.optim = _base.ADVERSARIAL_SGD
    if frozen := FROZEN.get(args["model"] or "pspnet"):
        config.optim.groups = ({"pattern": frozen, "lr": 0.0},)
    if args["data"] == "cityscapes_to_dark_zurich":
        _official_data(config)
    return config


def _small(config, args):
    """Networks that two cores train: batches of two, as in the paper, since every step passes three domains.

    In a run this short the discriminators learn ten times faster than in the paper.
    """
    config.method.class_weights = _base.class_weights()
    config.method.discriminator.features = 8
    config.method.discriminator_optimizer.lr = 1e-3
    if config.model.light:
        config.model.update(_base.SMALL_LIGHT)
    config.train.batch = 2
    config.optim = _base.optim(args) | {"lr": 2e-3}
    return config


def _official_data(config):
    """Crops, scales and the test of the official code; the checkpoints of steps 35,000 to 50,000 are kept."""
    common = {"resize": None, "bicubic": True}
    changes = {
        "source": {"scale_range": (0.5, 1.0), "rare_class": None, "max_class_share": 1.0},
        "target": {"scale_range": (0.9, 1.1), "crop": (960, 960), "crop_resize": (512, 512)},
    }
    streams = config.data.streams.to_dict()
    config.data.streams = {name: streams[name] | common | change for name, change in changes.items()}
    config.method.target_size = (960, 960)
    config.eval.sets = evaluation_sets("", ("dark_zurich_val_dannet", "nighttime_driving_dannet"))
    config.eval.every = config.checkpoint.every = max(config.train.steps // 10, 1)
    config.checkpoint.keep = 4
