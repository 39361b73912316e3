"""What all configs share: the schedule of logging, evaluation and saving, the benchmarks by name, the models by name."""

import ml_collections

from nightjax.core.config import choose
from nightjax.core.errors import UserError

MODELS = {
    "tiny": {"backbone": "resnet_tiny", "head": "fpn", "head_channels": 48},
    "resnet18": {"backbone": "resnet18", "head": "fpn", "head_channels": 128},
    "deeplab": {"backbone": "resnet101_v1c_d8", "head": "deeplab_v2"},
    "deeplab50": {"backbone": "resnet50_v1c_d8", "head": "deeplab_v2"},
}
"""``model=``: name to backbone and head."""


def nightstreet(preset: str = "std", crop: tuple[int, int] = (128, 256)) -> dict:
    """The embedded benchmark: rendered streets, day to night."""
    labelled, pairs = f"nightstreet/{preset}", f"nightstreet/{preset}_pairs"
    return {
        "streams": {
            "source": {"dataset": labelled, "split": "source_day", "crop": crop, "fields": ("image", "label")},
            "target": {"dataset": pairs, "split": "target_pairs", "crop": crop, "fields": ("image", "reference")},
        },
        "oracle": {"dataset": labelled, "split": "oracle_night"},
        "eval": {
            "val_night": {"dataset": labelled, "split": "val_night"},
            "test_night": {"dataset": labelled, "split": "test_night"},
            "val_day": {"dataset": labelled, "split": "val_day"},
        },
        "select": "val_night",
    }


def camvid_day_to_dusk() -> dict:
    """CamVid's day sequences to its dusk sequence, 180x240, scored on CamVid's 11 classes."""
    size = (180, 240)
    stream = {"dataset": "camvid", "crop": size, "resize": size}
    protocol = {"dataset": "camvid", "input_size": size, "merge": "camvid_11"}
    return {
        "streams": {
            "source": stream | {"split": "day", "fields": ("image", "label")},
            "target": stream | {"split": "dusk_train", "fields": ("image",)},
        },
        "oracle": {"split": "dusk_train"},
        "eval": {
            "dusk_test": protocol | {"split": "dusk_test"},
            "day_test": protocol | {"split": "day_test"},
        },
        "select": "",
    }


DATA = {
    "nightstreet": nightstreet,
    "nightstreet_tiny": lambda: nightstreet("tiny", (64, 128)),
    "nightstreet_large": lambda: nightstreet("large", (256, 512)),
    "camvid_day_to_dusk": camvid_day_to_dusk,
}
"""``data=``: name to streams and evaluation sets."""


ARGS = {"data": "nightstreet", "model": "tiny", "steps": "1200", "exposure": "0", "photometric": "0"}
"""Arguments that every config takes, with their defaults."""


def get_base(args: dict[str, str]) -> ml_collections.ConfigDict:
    """The sections that every config has, to be filled with ``method`` and ``optim``."""
    benchmark = choose(DATA, args["data"], "config argument data")()
    if not args["steps"].isdigit() or int(args["steps"]) < 1:
        raise UserError(f"config argument steps={args['steps']!r} must be a number above 0")
    steps = int(args["steps"])
    every = max(steps // 4, 1)
    return ml_collections.ConfigDict(
        {
            "seed": 0,
            "model": dict(choose(MODELS, args["model"], "config argument model"), dtype="float32"),
            "train": {"steps": steps, "batch": 4, "accumulate": 1, "devices": 0, "init": ""},
            "data": {"dir": "", "manual_dir": "", "workers": 0, "threads": 2, "streams": benchmark["streams"]},
            "eval": {"every": every, "which": "student", "sets": benchmark["eval"]},
            "checkpoint": {"every": every, "keep": 2, "best": benchmark["select"]},
            "log": {"every": 50},
        }
    )


def optim() -> dict:
    """AdamW for small networks trained from scratch."""
    return {"name": "adamw", "lr": 2e-3, "warmup": 100, "power": 0.9, "weight_decay": 0.01, "clip_norm": 1.0}


def network_input(args: dict[str, str]) -> dict:
    """``exposure=1`` brings every image, day and night, to one log-mean luminance."""
    return {"exposure": 0.18 if args["exposure"] == "1" else 0.0}


def photometric(args: dict[str, str]) -> dict | None:
    """``photometric=1`` is the strong photometric augmentation of source images."""
    return {"jitter_strength": 0.4} if args["photometric"] == "1" else None


def self_training(args: dict[str, str]) -> dict:
    """Settings of a teacher that learns within a short run from scratch.

    There is no pretrained network to stay close to, so the feature distance is off; the teacher follows faster than in a run of
    40,000 steps, where its decay is 0.999.
    """
    return {
        "input": network_input(args),
        "source_photometric": photometric(args),
        "feature_weight": 0.0,
        "teacher_decay": 0.99,
    }


def oracle_streams(data: str) -> dict:
    """Streams whose source is the labelled night: the upper bound of every adaptation method."""
    benchmark = DATA[data]()
    return {"source": benchmark["streams"]["source"] | benchmark["oracle"]}
