r"""Training on labelled day, translated night and pseudo-labelled real night: the UIT thesis of 2021 and its journal
form.

"Semantic image segmentation in the dark with domain adaptation method" (UIT, VNU-HCM, 2021); "Nighttime scene
understanding with label transfer scene parser" (Image and Vision Computing 151, 2024). Rounds are joined by what is on
disk; on NightStreet:

    python -m nightjax.main --config=configs/self_training.py:night=NIGHT --workdir=runs/first
    python -m nightjax.select --rule=fid_point --pool=POOL --reference=REFERENCE --count=200 --output=selected
    python -m nightjax.pseudo_label --workdir=runs/first --images=POOL --list=selected/selected.csv --split=source_day \
        --output=pseudo
    python -m nightjax.main --config=configs/self_training.py:night=NIGHT,pseudo=pseudo,loss=combined \
        --config.train.init=runs/first --workdir=runs/second

NIGHT is a translated data set, such as ``translated/unit`` (nightjax translate); POOL and REFERENCE are
folders or DATASET@SPLIT. Without ``train.init`` the student starts from scratch; ``runs/first@best`` is that run's
checkpoint with the best score on ``checkpoint.best`` instead of its last. With
``unlabelled=DATASET,split=SPLIT,teacher=RUN`` the teacher labels crops in the step instead (``labels=hard`` or
``soft``, ``threshold=0.9``). All rows of the thesis: ``scripts/sweep_thesis.py``.

The thesis' setting, one GPU, 60 epochs of 1488 steps of 4 crops of 512x1024 (hours and results on our side:
unmeasured). It reports 27.5 mIoU on Nighttime Driving from day alone and 40.7 with everything; ``zigzag=1488`` is its
rate, which rises and falls:

    python -m nightjax.main --config=configs/self_training.py:data=cityscapes_to_nighttime_driving --config.data.manual_dir=DIR
"""

from configs import _base
from nightjax.core.config import choose, parse_arg
from nightjax.core.errors import UserError

LOSSES = {"ce": None, "focal": {"beta": 0.0}, "combined": {"beta": 0.5}}
"""``loss=``: cross-entropy; focal loss with factor 0.5 and exponent 2, per pixel; the mean of both."""

TESTS = {"cityscapes_to_nighttime_driving": "nighttime_driving_ltsp"}
"""Benchmark to the set whose pictures ``converted=`` replaces; ``test_night`` elsewhere."""


def get_config(arg=""):
    """Arguments: those of `_base.ARGS`; labelled (day, night or both), night, pseudo, loss (ce, focal, combined),
    zigzag (steps in which the rate falls, 0 for the whole run), converted (test pictures translated to day);
    unlabelled, split, teacher, labels (hard, soft), threshold."""
    args = parse_arg(
        arg,
        **_base.ARGS,
        labelled="",
        night="",
        pseudo="",
        loss="ce",
        zigzag="",
        converted="",
        unlabelled="",
        split="",
        teacher="",
        labels="hard",
        threshold="0.0",
    )
    domains = ("source", "target") if args["unlabelled"] else ("source",)
    config = _base.get_base(args, domains, model="panoptic_fpn", steps=60 * 1488)
    small = args["data"] in _base.FROM_SCRATCH
    source = config.data.streams.source
    source.dataset = "+".join(_labelled(args, source.dataset))
    if not small:
        for stream in config.data.streams.values():
            stream.antialias = True
    config.train.batch = 4
    config.method = {
        "name": "supervised",
        "input": _base.network_input(args),
        "class_weights": _base.class_weights() if small else None,
        "divisor": "all" if small else "valid",
        "loss": choose(LOSSES, args["loss"], "config argument loss"),
        "photometric": _base.photometric(args),
    }
    if args["unlabelled"]:
        _label_in_the_step(config, args)
    config.optim = _base.optim(args) if small else _sgd(args)
    if args["converted"]:
        test = config.eval.sets[TESTS.get(args["data"], "test_night")].to_dict()
        config.eval.sets.converted = test | {"dataset": args["converted"]}
    return config


def _labelled(args, day):
    """The data sets to join, each picture as likely as any other."""
    labelled = args["labelled"] or ("both" if args["night"] else "day")
    if labelled not in ("day", "night", "both"):
        raise UserError(f"config argument labelled={labelled!r} is unknown; choose day, night or both")
    if labelled != "day" and not args["night"]:
        raise UserError(f"config argument labelled={labelled} needs night=DATASET, the translated data set")
    parts = {"day": [day], "night": [args["night"]], "both": [day, args["night"]]}[labelled]
    return [*parts, f"folder:{args['pseudo']}"] if args["pseudo"] else parts


def _label_in_the_step(config, args):
    if not args["teacher"] or not args["split"]:
        raise UserError(
            "config argument unlabelled needs teacher=RUN, whose network labels it, and split=SPLIT, its part to read"
        )
    target = config.data.streams.target
    target.dataset, target.split, target.fields = args["unlabelled"], args["split"], ("image",)
    config.train.frozen = {"teacher": args["teacher"]}
    config.method.update({"name": "self_training", "labels": args["labels"], "threshold": float(args["threshold"])})


def _sgd(args):
    return {
        "name": "sgd",
        "lr": 0.01,
        "momentum": 0.9,
        "weight_decay": 1e-5,
        "decay_vectors": True,
        "schedule": "cosine",
        "cosine_steps": int(args["zigzag"] or 0),
    }
