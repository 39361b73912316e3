"""What all configs share: the schedule of logging, evaluation and saving, and the models by name.

Benchmarks by name (``data=``) are in `nightjax.zoo.benchmarks`.
"""

import copy
from collections.abc import Sequence

import ml_collections
import numpy as np

from nightjax.core.classes import CITYSCAPES
from nightjax.core.config import choose
from nightjax.core.errors import UserError
from nightjax.models import DANNET_NETWORKS
from nightjax.ops.color import MIDDLE_GREY
from nightjax.zoo.benchmarks import BENCHMARKS

MODELS = {
    "tiny": {"backbone": "resnet_tiny", "head": "fpn"},
    "resnet18": {"backbone": "resnet18", "head": "fpn", "head_channels": 128},
    "deeplab": {"backbone": "resnet101_v1c_d8", "head": "deeplab_v2"},
    "deeplab50": {"backbone": "resnet50_v1c_d8", "head": "deeplab_v2"},
    "daformer": {"backbone": "mit_b5", "head": "daformer"},
    "daformer_b0": {"backbone": "mit_b0", "head": "daformer", "head_embed_dim": 256, "head_channels": 256},
    "segformer": {"backbone": "mit_b5", "head": "segformer", "head_channels": 768},
    "mmseg_segformer": {"backbone": "mit_b5", "head": "segformer", "head_level_norm": True},
    "hrda": {"backbone": "mit_b5", "head": "daformer", "hrda": True},
    "deeplabv3plus": {"backbone": "resnet101_v1c_d8_contracted", "head": "deeplab_v3plus", "auxiliary": "fcn"},
    "upernet_swin_t": {"backbone": "swin_t", "head": "upernet", "auxiliary": "fcn"},
    "upernet_swin_b": {"backbone": "swin_b", "head": "upernet", "auxiliary": "fcn"},
    "pspnet": DANNET_NETWORKS["pspnet"],
    "deeplab_multi": DANNET_NETWORKS["deeplab"],
    "refinenet": DANNET_NETWORKS["refinenet"],
    "panoptic_fpn": {"backbone": "resnet101", "head": "panoptic_fpn_shared"},
    "panoptic_fpn_tiny": {
        "backbone": "resnet_tiny",
        "head": "panoptic_fpn_shared",
        "head_channels": 32,
        "head_width": 32,
    },
}
"""``model=``: name to backbone and head."""

SMALL_LIGHT = {"light": True, "light_features": 4, "light_blocks": 1}
"""Light adaptation of networks that learn from scratch; one form, so that DANNet's runs can be fine-tuned."""

FROM_SCRATCH = ("nightstreet", "nightstreet_tiny", "nightstreet_large", "camvid_day_to_dusk", "folder")
"""Benchmarks on which a small network learns from nothing within minutes; the others follow their papers."""

INPUTS = {
    "torchvision": {},
    "caffe": {
        "mean": (122.67891434 / 255, 116.66876762 / 255, 104.00698793 / 255),
        "std": (1 / 255, 1 / 255, 1 / 255),
        "order": "bgr",
    },
}
"""``input=``: how pixels enter, which the network's first weights decide."""

DROPPED_ROWS = {"gta5_to_cityscapes": (15, 120), "synthia_to_cityscapes": (15, 120)}
"""Top and bottom rows of Cityscapes crops without weight: sky and bonnet (DAFormer's rule for this target)."""

ADVERSARIAL_SGD = {
    "name": "sgd",
    "lr": 2.5e-4,
    "schedule": "mmseg_poly",
    "power": 0.9,
    "weight_decay": 5e-4,
    "decay_vectors": True,
}
ADVERSARIAL_ADAM = {"name": "adam", "lr": 1e-4, "schedule": "mmseg_poly", "power": 0.9, "weight_decay": 0.0, "b2": 0.99}
"""Of segmentation network and discriminators in AdaptSegNet and DANNet."""

ARGS = {"data": "nightstreet", "model": "", "steps": "", "input": "torchvision", "exposure": "0", "photometric": "0"}
"""Arguments that every config takes. Empty ones depend on ``data``: the tiny network and 1000 steps, or the paper's."""

ADVERSARIAL_ARGS = {name: value for name, value in ARGS.items() if name != "photometric"}
"""Of the methods that augment no colours."""

DANNET_NAMES = {"deeplab": "deeplab_multi"}
"""The name of a network in DANNet's and AdaptSegNet's papers to ours, where they differ."""


def get_base(
    args: dict[str, str], domains: Sequence[str] = ("source", "target"), *, model: str = "daformer", steps: int = 40_000
) -> ml_collections.ConfigDict:
    """The sections that every config has, to be filled with ``method`` and ``optim``.

    Args:
        args: values of `ARGS`.
        model, steps: the paper's, for the benchmarks not in `FROM_SCRATCH`.
        domains: the streams that the method reads; others of the benchmark are left out.
    """
    benchmark = copy.deepcopy(choose(BENCHMARKS, args["data"], "config argument data"))
    if lacking := sorted(set(domains) - set(benchmark["streams"])):
        raise UserError(
            f"data={args['data']} has no {lacking[0]} stream: choose another benchmark, or a supervised config"
        )
    streams = {name: benchmark["streams"][name] for name in domains}
    small = args["data"] in FROM_SCRATCH
    length = args["steps"] or str(1000 if small else steps)
    if not length.isdigit() or int(length) < 1:
        raise UserError(f"config argument steps={length!r} must be a number above 0")
    steps = int(length)
    model = args["model"] or ("tiny" if small else model)
    if not small and MODELS.get(model, {}).get("hrda"):
        _full_resolution(benchmark, streams)
    every = max(steps // (4 if small else 10), 1)
    return ml_collections.ConfigDict(
        {
            "seed": 0,
            "model": dict(choose(MODELS, model, "config argument model"), dtype="float32" if small else "bfloat16"),
            "train": {"steps": steps, "batch": 4 if small else 2, "accumulate": 1, "devices": 0, "init": ""},
            "data": {"dir": "", "manual_dir": "", "workers": 0 if small else 4, "threads": 2, "streams": streams},
            "eval": {"every": every, "which": "student", "sets": benchmark["eval"]},
            "checkpoint": {"every": every, "keep": 2, "best": benchmark.get("select", "")},
            "log": {"every": 50, "baseline": "", "profile_steps": 0},
        }
    )


FULL_RESOLUTION_TEST = {
    (1080, 1920): {"input_size": None, "mode": "slide", "window": (1080, 1080), "stride": (420, 420)},
    (1024, 2048): {"input_size": None, "mode": "slide", "window": (1024, 1024), "stride": (512, 512)},
    (720, 1280): {"input_size": (1080, 1080)},
}
"""Size of the labels to the test protocol of HRDA in the official configs; the last does not keep the aspect."""


def _full_resolution(benchmark: dict, streams: dict) -> None:
    """What HRDA reads: crops of 1024 of images at their full size, and windows of that size in the test."""
    for stream in streams.values():
        stream |= {"crop": (1024, 1024), "resize": None}
        if "rare_class" in stream:
            stream["rare_class"] = stream["rare_class"] | {"crop_ratio": 2.0}
    for section in benchmark["eval"].values():
        section |= FULL_RESOLUTION_TEST.get(section.get("native_size"), {}) | {"batch": 1}


def optim(args: dict[str, str]) -> dict:
    """AdamW: for small networks from scratch, or with the backbone at a tenth of the rate (DAFormer, Refign, DSR+FPA).

    Runs that are shorter than usual warm up for at most a quarter.
    """
    small = args["data"] in FROM_SCRATCH
    warmup = min(100 if small else 1500, int(args["steps"] or 40_000) // 4)
    if small:
        return {"name": "adamw", "lr": 4e-3, "warmup": warmup, "power": 0.9, "weight_decay": 0.01, "clip_norm": 1.0}
    return {
        "name": "adamw",
        "lr": 6e-4,
        "warmup": warmup,
        "weight_decay": 0.01,
        "groups": ({"pattern": "^student/backbone/", "lr": 0.1},),
    }


def daformer_optim(args: dict[str, str], backbone: str) -> dict:
    """`optim` as DAFormer has it on real data: poly from the first step; all but the backbone's layer norms decays."""
    if args["data"] in FROM_SCRATCH:
        return optim(args)
    rest = {"pattern": "^student/backbone/", "lr": 0.1}
    norms = {"pattern": "^student/backbone/.*norm", "lr": 0.1, "decay": 0.0}
    groups = (norms, rest) if backbone.startswith(("mit", "swin")) else (rest,)
    return optim(args) | {"schedule": "mmseg_poly", "decay_vectors": True, "groups": groups}


def network_input(args: dict[str, str]) -> dict:
    """``exposure=1`` brings every image, day and night, to one log-mean luminance; see also `INPUTS`."""
    own = choose(INPUTS, args["input"], "config argument input")
    return own | {"exposure": MIDDLE_GREY if args["exposure"] == "1" else 0.0}


def class_weights() -> tuple[float, ...]:
    """Inverse root of each class's share in Cityscapes, mean 1 over its pixels, at most 8.

    Ours, not any paper's: within a short run from scratch an unweighted loss leaves the rare classes unlearnt.
    """
    share = np.array(CITYSCAPES.pixel_share).round(5)
    weights = share**-0.5
    weights /= (share * weights).sum()
    return tuple(float(w) for w in weights.clip(max=8).round(3))


def photometric(args: dict[str, str]) -> dict | None:
    """``photometric=1`` gives source images the strong photometric augmentation of DACS."""
    return {} if args["photometric"] == "1" else None


def self_training(args: dict[str, str]) -> dict:
    """Settings of student and teacher that depend on the benchmark; the papers' are the defaults of the methods.

    Within a short run from scratch there is no pretrained network to stay close to, so the feature distance is off, and
    the teacher follows faster.
    """
    top, bottom = DROPPED_ROWS.get(args["data"], (0, 0))
    settings = {
        "input": network_input(args),
        "source_photometric": photometric(args),
        "ignore_top": top,
        "ignore_bottom": bottom,
    }
    if args["data"] in FROM_SCRATCH:
        settings |= {
            "class_weights": class_weights(),
            "feature_weight": 0.0,
            "teacher_decay": 0.99,
        }
    return settings


def oracle_streams(data: str) -> dict:
    """Streams whose source is the labelled night: the upper bound of every adaptation method."""
    benchmark = copy.deepcopy(BENCHMARKS[data])
    if "oracle" not in benchmark:
        raise UserError(f"data={data} has no labelled target to train on: train_on=oracle is not for it")
    return {"source": benchmark["streams"]["source"] | benchmark["oracle"]}
