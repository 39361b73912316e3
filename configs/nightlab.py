"""NightLab: two levels of segmentation, joined by a detector of hard regions (arXiv 2204.05538).

A reconstruction: the paper's body and code are not public. What is ours is marked so in `methods.two_level` and
`methods.nightlab`; every such choice is a key under ``method``. Each stage is a run that starts from the one before:

    python -m nightjax.main --config=configs/nightlab.py:stage=image --workdir=runs/image
    python -m nightjax.main --config=configs/nightlab.py:stage=regions,start=runs/image --workdir=runs/regions
    python -m nightjax.main --config=configs/nightlab.py:stage=detector,start=runs/regions --workdir=runs/rdn
    python -m nightjax.main --config=configs/nightlab.py:stage=hdm,start=runs/rdn --workdir=runs/hdm

``stage=detector`` is the paper's RDN, ``stage=hdm`` its HDM, ``stage=all`` trains all three networks together at a
hundredth of the rate. Every run is scored by the image level alone (``test_night_image_level``), merged with regions
around the truth (``test_night_oracle_boxes``) and, once the detector has been trained, by the two levels merged
(``test_night``). All three take the class weights of the loss off the logits (``method.unweight``); the image run's own
scores do not.

The hard classes are those with an IoU below ``tau`` in the image run's last evaluation of ``val_night``, which is no
result: beside this, it chooses the checkpoint that is kept; on NightCity the published ones. ``hard=5+6+17`` names them
    by train id,
``hard=val`` takes the evaluation set, which on NightCity is the test set: results are then not to be compared. The
paper (one GPU, hours and results on our side unmeasured):

    python -m nightjax.main --config=configs/nightlab.py:data=nightcity_plus,stage=image --config.data.manual_dir=DIR

with ``model=deeplabv3plus`` (default) or ``upernet_swin_b``, ``light=1`` for light adaptation and ``joint=1`` for
Cityscapes.
"""

import json
import pathlib

from configs import _base, supervised
from nightjax.core.config import choose, parse_arg
from nightjax.core.errors import UserError
from nightjax.metrics import hard_classes

STEPS = {
    "image": (1000, 80_000),
    "regions": (800, 40_000),
    "detector": (600, 24_000),
    "hdm": (300, 12_000),
    "all": (200, 10_000),
}
"""Stage to its steps on small benchmarks and on the others."""

RATE = {"image": (1.0, 1.0), "regions": (1.0, 0.1), "detector": (1.0, 1.0), "hdm": (0.1, 0.1), "all": (0.01, 0.01)}
"""Stage to the factor on the learning rates, likewise."""

OWN = {"stage": "image", "start": "", "tau": "0.5", "hard": ""}

SMALL = {
    "detector": "tiny",
    "proposals": {"before": 256, "after": 64, "total": 64},
    "region_size": 64,
    "min_side": 24.0,
    "min_area": 4,
    "max_boxes": 32,
}
"""Of benchmarks with images of about 128x256."""

PUBLISHED = ("nightcity", "nightcity_plus", "nightcity_with_cityscapes")
"""Benchmarks whose hard classes the paper gives."""

MASKRCNN = {
    "name": "sgd",
    "lr": 0.01,
    "schedule": "multistep",
    "warmup": 500,
    "milestones": (18_000,),
    "weight_decay": 1e-4,
    "groups": (
        {"pattern": r"/bn\d/|/downsample_1/", "lr": 0.0},
        {"pattern": r"/body/(conv1|layer1_)", "lr": 0.0},
        {"pattern": "bias$", "lr": 2.0, "decay": 0.0},
    ),
}
"""maskrcnn-benchmark's solver of its Cityscapes configs: norms, stem and first stage rest, biases go twice as fast."""


def get_config(arg=""):
    """Arguments: those of `_base.ARGS`, light, joint, and of `OWN`."""
    args = parse_arg(arg, **_base.ARGS, light="0", joint="0", **OWN)
    own = {name: args.pop(name) for name in OWN}
    stage, small = own["stage"], args["data"] in _base.FROM_SCRATCH
    steps = choose(STEPS, stage, "config argument stage")
    args["steps"] = args["steps"] or str(steps[0 if small else 1])
    args["model"] = args["model"] or ("" if small else "deeplabv3plus")
    args["train_on"] = "oracle" if small and args["data"] != "folder" else "source"
    config = supervised.get_config(",".join(f"{name}={value}" for name, value in args.items()))
    if stage == "image":
        return config
    saved = _read_method(own["start"])
    levels = saved["name"] == "nightlab"
    detects = levels and (saved.get("stage", "regions") != "regions" or saved.get("proposal_share", 0) > 0)
    if stage != "regions" and not levels:
        raise UserError(
            f"stage={stage} starts from a run of this config's stage=regions or later; {own['start']} is none"
        )
    known = _hard_classes(own, args["data"], list(config.eval.sets), levels)
    config.method = config.method.to_dict() | {
        "name": "nightlab",
        "stage": stage,
        "start": "levels" if levels else "image",
        "hard_classes": tuple(saved["hard_classes"]) if levels and not own["hard"] else known(),
        "proposal_share": 0.5 if detects and stage in ("regions", "all") else 0.0,
        "detector_optimizer": _scaled(_base.optim(args) | {"lr": 2e-3} if small else MASKRCNN, stage, small),
    }
    if small:
        config.method.update(SMALL)
    config.optim = _scaled(config.optim.to_dict(), stage, small)
    config.train.init = own["start"]
    config.eval.every = config.train.steps
    merged = detects or stage != "regions"
    config.eval.sets = _sets(config.eval.sets.to_dict(), small, merged)
    if config.checkpoint.best not in ("", *config.eval.sets):
        config.checkpoint.best += "_oracle_boxes"
    return config


def _scaled(optimizer, stage, small):
    """An optimiser at the stage's rate; a detector that only goes on does not wait for its milestones."""
    rest = {"milestones": ()} if stage in ("hdm", "all") and "milestones" in optimizer else {}
    return optimizer | {"lr": optimizer["lr"] * RATE[stage][0 if small else 1]} | rest


def _sets(sets, small, merged):
    """Sets of the night by the image level alone, with the true regions, and if ``merged`` as predicted; those of the
    day.

    Without a detector the method's own prediction is the image level's, so that is how the day is scored then.
    """
    every = {}
    for name, section in sets.items():
        section = section if small else section | {"batch": 1}
        day = name.endswith("_day")
        if merged or day:
            every[name] = section
        if not day:
            every |= {f"{name}_{other}": section | {"prediction": other} for other in ("image_level", "oracle_boxes")}
    return every


def _read_method(start):
    """The section ``method`` of the run to start from."""
    path = pathlib.Path(start) / "config.json"
    if not start or not path.exists():
        raise UserError(f"config argument start={start!r} must be the folder of the run of the stage before")
    return json.loads(path.read_text())["method"]


def _hard_classes(own, data, sets, levels):
    """Where to take the hard classes from, as a function; of a run of two levels, the image level's scores count."""
    try:
        threshold = float(own["tau"])
        named = tuple(map(int, own["hard"].split("+"))) if own["hard"] not in ("", "val") else ()
    except ValueError:
        raise UserError(
            f"tau={own['tau']} must be a number, hard={own['hard']} val or train ids such as 5+6+17"
        ) from None
    if named:
        return lambda: named
    if data in PUBLISHED and own["hard"] != "val":
        table = {str(key): value for key, value in hard_classes.PUBLISHED.items()}
        return lambda: choose(table, str(threshold), "config argument tau")
    chosen = "val_night" if "val_night" in sets else sets[0]
    if chosen != "val_night":
        print(f"hard classes by {chosen}, a set that is reported: do not compare its results with others'", flush=True)
    folder = f"{chosen}_image_level" if levels else chosen
    return lambda: hard_classes.from_evaluation(own["start"], folder, threshold)
