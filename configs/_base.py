"""What all configs share: the schedule of logging, evaluation and saving, the benchmarks by name, the models by name."""

import ml_collections

from nightjax.core.config import choose

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


def get_base(data: str, model: str, steps: int, batch: int) -> ml_collections.ConfigDict:
    """The sections that every config has, to be filled with ``method`` and ``optim``."""
    benchmark = choose(DATA, data, "config argument data")()
    every = max(steps // 4, 1)
    return ml_collections.ConfigDict(
        {
            "seed": 0,
            "model": dict(choose(MODELS, model, "config argument model"), dtype="float32"),
            "train": {"steps": steps, "batch": batch, "accumulate": 1, "devices": 0, "init": ""},
            "data": {
                "dir": "",
                "manual_dir": "",
                "workers": 0,
                "threads": 2,
                "streams": benchmark["streams"],
            },
            "eval": {"every": every, "which": "student", "sets": benchmark["eval"]},
            "checkpoint": {"every": every, "keep": 2, "best": benchmark["select"]},
            "log": {"every": 50},
        }
    )


def oracle_streams(data: str) -> dict:
    """Streams whose source is the labelled night: the upper bound of every adaptation method."""
    benchmark = DATA[data]()
    return {"source": benchmark["streams"]["source"] | benchmark["oracle"]}
