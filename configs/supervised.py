"""Supervised training: source-only, with exposure normalisation, with photometric augmentation, or the oracle.

    python -m nightjax.main --config=configs/supervised.py
    python -m nightjax.main --config=configs/supervised.py:train_on=oracle
    python -m nightjax.main --config=configs/supervised.py:exposure=1
    python -m nightjax.main --config=configs/supervised.py:photometric=1

``light=1`` puts DANNet's relighting network in front of the segmenter; ``joint=1`` trains on labelled nights and
labelled days, one of each in turn. NightLab's image level (arXiv 2204.05538; a reconstruction, its settings are
mmsegmentation's of the time), one GPU, 80,000 steps of 8, hours and result on our side unmeasured:

    python -m nightjax.main --config=configs/supervised.py:data=nightcity_plus,model=deeplabv3plus,light=1,joint=1

or ``model=upernet_swin_b``; weights of ImageNet come by ``--config.train.init``. Without light adaptation,
``data=nightcity_with_cityscapes`` mixes the two data sets as one. After DANNet, ``--config.train.init=runs/dannet``
fine-tunes it on labels.
"""

import copy

from configs import _base
from nightjax.core.config import parse_arg
from nightjax.core.errors import UserError
from nightjax.ops import color
from nightjax.zoo.benchmarks import BENCHMARKS

SWIN = {
    "name": "adamw",
    "lr": 6e-5,
    "schedule": "mmseg_poly",
    "warmup": 1500,
    "weight_decay": 0.01,
    "groups": ({"pattern": "relative_position_bias_table", "decay": 0.0},),
}
MMSEG = {
    "deeplabv3plus": {
        "name": "sgd",
        "lr": 0.01,
        "schedule": "mmseg_poly",
        "power": 0.9,
        "min_lr": 1e-4,
        "weight_decay": 5e-4,
        "decay_vectors": True,
    },
    "upernet_swin_t": SWIN,
    "upernet_swin_b": SWIN,
}
"""Model to mmsegmentation's optimiser for it, for batches of 8 and 80,000 steps."""

CITYSCAPES_DAY = BENCHMARKS["nightcity"]["streams"]["source"] | {"dataset": "cityscapes_seg/half"}
DAYS = {
    "nightcity": CITYSCAPES_DAY,
    "nightcity_plus": CITYSCAPES_DAY,
    "nightstreet": BENCHMARKS["nightstreet"]["streams"]["source"],
    "nightstreet_tiny": BENCHMARKS["nightstreet_tiny"]["streams"]["source"],
    "nightstreet_large": BENCHMARKS["nightstreet_large"]["streams"]["source"],
}
"""Benchmark to the labelled days that ``joint=1`` adds to its labelled nights."""


def get_config(arg=""):
    """Arguments: those of `_base.ARGS`, train_on (source or oracle), light and joint (0 or 1)."""
    args = parse_arg(arg, **_base.ARGS, train_on="source", light="0", joint="0")
    mmseg = args["model"] in MMSEG and args["data"] not in _base.FROM_SCRATCH
    config = _base.get_base(args, domains=("source",), steps=80_000 if mmseg else 40_000)
    config.method = {
        "name": "supervised",
        "input": _base.network_input(args),
        "class_weights": _base.class_weights() if args["data"] in _base.FROM_SCRATCH else None,
        "divisor": "valid" if mmseg else "all",
        "photometric": _base.photometric(args) if args["photometric"] == "1" or not mmseg else color.MMSEG_DISTORTION,
    }
    config.optim = MMSEG[args["model"]] if mmseg else _base.optim(args)
    if mmseg:
        config.train.batch = 8
        config.optim.warmup = min(config.optim.get("warmup", 0), config.train.steps // 4)
    if args["train_on"] == "oracle" or (args["joint"] == "1" and args["data"] in _base.FROM_SCRATCH):
        config.data.streams = _base.oracle_streams(args["data"])
    elif args["train_on"] != "source":
        raise UserError(f"config argument train_on={args['train_on']!r} is unknown; choose source or oracle")
    if args["light"] == "1":
        config.model.update(_base.SMALL_LIGHT if args["data"] in _base.FROM_SCRATCH else {"light": True})
    if args["joint"] == "1":
        if args["data"] not in DAYS:
            raise UserError(f"data={args['data']} has no nights and days to join: joint=1 is for {', '.join(DAYS)}")
        config.method.joint = True
        config.train.batch //= 2  # Of each domain.
        config.data.streams.day = copy.deepcopy(DAYS[args["data"]])
    return config
