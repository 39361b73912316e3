# SPDX-License-Identifier: Apache-2.0
"""Benchmarks by name: which streams to train on, which sets to score, and by which protocol. Plain data.

Stream sections are those of `nightjax.data.loading.StreamSpec`, evaluation sections those of
`nightjax.metrics.protocol.EvalSet`. Sizes are (height, width). Cheaper forms of a data set go into the same streams:
with ``dark_zurich/prepared`` or ``cityscapes_seg/prepared`` as dataset, images are stored at the size that ``resize``
asks for.
"""

from typing import Any

from nightjax.core.class_merges import CAMVID_11
from nightjax.core.errors import choose

Section = dict[str, Any]

ACDC = ("fog", "night", "rain", "snow")
"""The conditions of ACDC."""

FULL_HD = {"native_size": (1080, 1920)}
HALF_HD = FULL_HD | {"input_size": (540, 960)}
HRDA_HD = FULL_HD | {"mode": "slide", "window": (1080, 1080), "stride": (420, 420), "batch": 1}
DANNET = {"antialias": True, "align_corners": True, "class_weight_std": 0.16}
"""Pillow's resize to 540x960, weighted logits, corners aligned (official evaluate.py)."""

_DARK_ZURICH = {"dataset": "dark_zurich/val", "split": "validation", "uiou": True}
_CITYSCAPES = {"dataset": "cityscapes_seg/full", "split": "validation", "native_size": (1024, 2048)}
_NIGHTCITY = {"split": "validation", "native_size": (512, 1024)}
_BDD = {"native_size": (720, 1280)}
_CAMVID = {"dataset": "camvid", "input_size": (180, 240), "merge": "camvid_11"}


def _nightstreet_sets(preset: str) -> dict[str, Section]:
    return {
        name: {"dataset": f"nightstreet/{preset}", "split": name} for name in ("val_night", "test_night", "val_day")
    }


EVAL_SETS: dict[str, Section] = {
    # DAFormer, SePiCo and the like: half size, whole image. The official DSR code means over all 19 classes ("zero").
    "dark_zurich_val": _DARK_ZURICH | HALF_HD,
    "dark_zurich_val_dsr": _DARK_ZURICH | HALF_HD | {"absent_classes": "zero"},
    "dark_zurich_val_windows": _DARK_ZURICH | HRDA_HD | {"absent_classes": "zero"},
    "dark_zurich_val_dannet": _DARK_ZURICH | HALF_HD | DANNET,
    "acdc_night_val": {"dataset": "acdc/night", "split": "validation", "uiou": True} | HALF_HD,
    "acdc_night_val_windows": {"dataset": "acdc/night", "split": "validation", "uiou": True} | HRDA_HD,
    "acdc_night_val_squeezed": {"dataset": "acdc/night", "split": "validation"}
    | FULL_HD
    | {"input_size": (1024, 1024)},
    "acdc_val": {"dataset": "+".join(f"acdc/{name}" for name in ACDC), "split": "validation"} | HALF_HD,
    "acdc_fog_val": {"dataset": "acdc/fog", "split": "validation"} | HALF_HD,
    "acdc_rain_val": {"dataset": "acdc/rain", "split": "validation"} | HALF_HD,
    "acdc_snow_val": {"dataset": "acdc/snow", "split": "validation"} | HALF_HD,
    "nighttime_driving": {"dataset": "nighttime_driving/original", "split": "test"} | HALF_HD,
    "nighttime_driving_corrected": {"dataset": "nighttime_driving/corrected", "split": "test"} | HALF_HD,
    "nighttime_driving_dannet": {"dataset": "nighttime_driving/original", "split": "test"} | HALF_HD | DANNET,
    "nighttime_driving_ltsp": {"dataset": "nighttime_driving/original", "split": "test"}
    | FULL_HD
    | {"input_size": (512, 1024)},
    "bdd100k_night": {"dataset": "bdd100k_night", "split": "test", "native_size": (720, 1280)},
    "bdd100k_val": {"dataset": "bdd100k_seg/full", "split": "validation"} | _BDD,
    "bdd100k_val_night": {"dataset": "bdd100k_seg/night", "split": "validation"} | _BDD,
    "bdd100k_val_day": {"dataset": "bdd100k_seg/day", "split": "validation"} | _BDD,
    "cityscapes_val": _CITYSCAPES | {"input_size": (512, 1024)},
    "cityscapes_val_windows": _CITYSCAPES | {"mode": "slide", "window": (1024, 1024), "stride": (512, 512), "batch": 1},
    "cityscapes_val_16": _CITYSCAPES | {"input_size": (512, 1024), "merge": "synthia_16"},
    "cityscapes_val_13": _CITYSCAPES | {"input_size": (512, 1024), "merge": "synthia_13"},
    "nightcity_val": {"dataset": "nightcity/original"} | _NIGHTCITY,
    "nightcity_plus_val": {"dataset": "nightcity/plus"} | _NIGHTCITY,
    "nightcity_fine_val": {"dataset": "nightcity/fine"} | _NIGHTCITY,
    "camvid_dusk_test": _CAMVID | {"split": "dusk_test"},
    "camvid_day_test": _CAMVID | {"split": "day_test"},
}
"""Name to protocol. ``_windows``: HRDA's sliding windows; ``_dannet``: DANNet's test; ``_ltsp``: squeezed to 2:1,
scored whole;
``_squeezed``: to a square, as DSR+FPA's HRDA sees sets that it was not trained on."""

OVERLAPS = {
    "dark_zurich/val": ("acdc/night", "acdc/all"),
    "acdc/night": ("dark_zurich/",),
    "+".join(f"acdc/{name}" for name in ACDC): ("dark_zurich/",),
    "bdd100k_night": ("bdd100k_seg/",),  # 74 of its 87 images are from the training split.
}
"""Evaluation data set to the (beginnings of names of) training sets that hold frames of the same drives."""

RARE = {"temperature": 0.01, "min_pixels": 3000, "crop_ratio": 0.5}
"""Rare-class sampling of DAFormer's recipe on labeled sources."""

DROPPED_ROWS = (15, 120)
"""Top and bottom rows of Cityscapes crops whose pseudo-labels have no weight: sky and hood (DAFormer's rule)."""

FULL_RESOLUTION_TEST = {
    (1080, 1920): {"input_size": None, "mode": "slide", "window": (1080, 1080), "stride": (420, 420)},
    (1024, 2048): {"input_size": None, "mode": "slide", "window": (1024, 1024), "stride": (512, 512)},
    (720, 1280): {"input_size": (1080, 1080)},
}
"""Size of the labels to the test protocol of HRDA in the official configs; the last does not keep the aspect."""

_LABELLED = {"split": "train", "crop": (512, 512), "fields": ("image", "label")}
_PAIRS = {"split": "train", "crop": (512, 512), "resize": (540, 960), "fields": ("image", "reference")}
_CITY_SOURCE = _LABELLED | {"dataset": "cityscapes_seg/full", "resize": (512, 1024), "rare_class": RARE}
_CITY_TARGET = {
    "dataset": "cityscapes_seg/full",
    "split": "train",
    "crop": (512, 512),
    "resize": (512, 1024),
    "fields": ("image",),
}
_LTSP = {
    "split": "train",
    "crop": (512, 1024),
    "resize": (1024, 2048),
    "scale_range": (0.5, 2.0),
    "flip": False,
    "max_class_share": 1.0,
}
_NIGHT_SOURCE = _LABELLED | {"resize": (512, 1024), "scale_range": (0.5, 2.0)}
_BDD_SOURCE = _LABELLED | {"resize": (720, 1280), "scale_range": (0.5, 2.0)}
_NIGHT_DAY = _NIGHT_SOURCE | {"dataset": "cityscapes_seg/half"}


def _nightstreet(preset: str, crop: tuple[int, int]) -> Section:
    """Drawn streets of one size, adapted from day to night."""
    labeled, pairs, whole = f"nightstreet/{preset}", f"nightstreet/{preset}_pairs", {"crop": crop, "resize": crop}
    return {
        "streams": {
            "source": whole | {"dataset": labeled, "split": "source_day", "fields": ("image", "label")},
            "target": whole | {"dataset": pairs, "split": "target_pairs", "fields": ("image", "reference")},
        },
        "oracle": {"dataset": labeled, "split": "oracle_night"},
        "day": whole | {"dataset": labeled, "split": "source_day", "fields": ("image", "label")},
        "eval": _nightstreet_sets(preset),
        "select": "val_night",
        "scale": "toy",
    }


def _nightstreet_weather(condition: str) -> Section:
    """The streets of ``nightstreet`` under another condition; splits and evaluation sets keep their names."""
    section, target = _nightstreet("std", (128, 256)), f"nightstreet/std_{condition}"
    section["streams"]["target"]["dataset"] = f"{target}_pairs"
    section["oracle"]["dataset"] = target
    for name in ("val_night", "test_night"):
        section["eval"][name]["dataset"] = target
    return section


def _camvid_day_to_dusk() -> Section:
    stream = {"dataset": "camvid", "crop": (180, 240), "resize": (180, 240)}
    day = stream | {"split": "day", "fields": ("image", "label")}
    return {
        "streams": {"source": day, "target": stream | {"split": "dusk_train", "fields": ("image",)}},
        "oracle": {"split": "dusk_train"},
        "day": day,
        "eval": {"dusk_test": EVAL_SETS["camvid_dusk_test"], "day_test": EVAL_SETS["camvid_day_test"]},
        "scale": "toy",
        "classes": "",
        "merges": {"cityscapes": CAMVID_11.by_name},
    }


def _sets(*names: str, optional: tuple[str, ...] = ()) -> dict[str, Section]:
    """Evaluation sets by name; the ``optional`` ones are left out where their files are not there."""
    return {name: EVAL_SETS[name] | ({"optional": True} if name in optional else {}) for name in (*names, *optional)}


def _cityscapes_to_acdc(conditions: tuple[str, ...], sets: tuple[str, ...]) -> Section:
    """Splits and sizes of DAFormer and Refign: 400 training images of a condition with their references, half size."""
    dataset = "+".join(f"acdc/{name}" for name in conditions)
    return {
        "streams": {"source": _CITY_SOURCE, "target": _PAIRS | {"dataset": dataset}},
        "oracle": {"dataset": dataset, "resize": (540, 960)},
        "eval": _sets(*sets),
    }


BENCHMARKS: dict[str, Section] = {
    "nightstreet": _nightstreet("std", (128, 256)),
    "nightstreet_tiny": _nightstreet("tiny", (64, 128)),
    "nightstreet_large": _nightstreet("large", (256, 512)),
    **{f"nightstreet_{name}": _nightstreet_weather(name) for name in ("fog", "rain", "night_fog", "night_rain")},
    "camvid_day_to_dusk": _camvid_day_to_dusk(),
    "cityscapes_to_dark_zurich": {
        "streams": {"source": _CITY_SOURCE, "target": _PAIRS | {"dataset": "dark_zurich/pairs"}},
        "eval": _sets("dark_zurich_val", optional=("nighttime_driving", "bdd100k_night")),
    },
    "cityscapes_to_nighttime_driving": {
        "streams": {
            "source": _LTSP | {"dataset": "cityscapes_seg/full", "fields": ("image", "label")},
            "target": _LTSP | {"dataset": "nexet/night", "fields": ("image",)},
        },
        "eval": _sets("nighttime_driving_ltsp", "cityscapes_val"),
    },
    # The primary score of "all" is over the 406 images together, as on ACDC's server.
    "cityscapes_to_acdc": _cityscapes_to_acdc(ACDC, ("acdc_val", *(f"acdc_{name}_val" for name in ACDC))),
    **{f"cityscapes_to_acdc_{name}": _cityscapes_to_acdc((name,), (f"acdc_{name}_val",)) for name in ACDC},
    # NightCity's own split, 2998 nights without labels and 1299 to score; the sizes are DAFormer's for Cityscapes
    # (ours). The labels of NightCity+ are scored too where they are there.
    "cityscapes_to_nightcity": {
        "streams": {
            "source": _CITY_SOURCE,
            "target": _NIGHT_SOURCE
            | {"dataset": "nightcity/original", "fields": ("image",), "scale_range": (1.0, 1.0)},
        },
        "oracle": {"dataset": "nightcity/original"},
        "eval": _sets("nightcity_val", optional=("nightcity_plus_val",)),
    },
    # Day and night together: 7000 images for training and 1000 for validation, at their own size; scales are ours.
    "bdd100k": {
        "streams": {"source": _BDD_SOURCE | {"dataset": "bdd100k_seg/full"}},
        "eval": _sets("bdd100k_val"),
    },
    # By the attribute timeofday, dawn and dusk left out (ours: no published split could be read). Methods for labeled
    # nights (nightlab, joint=1) train on the nights' labels.
    "bdd100k_day_to_night": {
        "streams": {
            "source": _LABELLED | {"dataset": "bdd100k_seg/day", "resize": (720, 1280), "rare_class": RARE},
            "target": _LABELLED | {"dataset": "bdd100k_seg/night", "resize": (720, 1280), "fields": ("image",)},
        },
        "oracle": {"dataset": "bdd100k_seg/night"},
        "day": _BDD_SOURCE | {"dataset": "bdd100k_seg/day"},
        "eval": _sets("bdd100k_val_night", "bdd100k_val_day"),
    },
    "gta5_to_cityscapes": {
        "dropped_rows": DROPPED_ROWS,
        "streams": {
            "source": _LABELLED | {"dataset": "gta5/full", "resize": (720, 1280), "rare_class": RARE},
            "target": _CITY_TARGET,
        },
        "oracle": {"dataset": "cityscapes_seg/full", "resize": (512, 1024)},
        "eval": _sets("cityscapes_val"),
    },
    "synthia_to_cityscapes": {
        "dropped_rows": DROPPED_ROWS,
        "streams": {
            "source": _LABELLED | {"dataset": "synthia/full", "resize": (760, 1280), "rare_class": RARE},
            "target": _CITY_TARGET,
        },
        "oracle": {"dataset": "cityscapes_seg/full", "resize": (512, 1024)},
        "eval": _sets("cityscapes_val_16", "cityscapes_val_13"),
    },
    "nightcity": {
        "streams": {"source": _NIGHT_SOURCE | {"dataset": "nightcity/original"}},
        "day": _NIGHT_DAY,
        "eval": _sets("nightcity_val"),
    },
    "nightcity_plus": {
        "streams": {"source": _NIGHT_SOURCE | {"dataset": "nightcity/plus"}},
        "day": _NIGHT_DAY,
        "eval": _sets("nightcity_plus_val"),
    },
    "nightcity_with_cityscapes": {
        "streams": {"source": _NIGHT_SOURCE | {"dataset": "nightcity/plus+cityscapes_seg/half"}},
        "eval": _sets("nightcity_plus_val", "cityscapes_val"),
    },
    "folder": {  # Splits and sizes are chosen when a run starts, see `nightjax.run.own_data`.
        "streams": {
            "source": _LABELLED | {"dataset": "folder", "split": "auto", "resize": (0, 0)},
            "target": _LABELLED | {"dataset": "folder", "split": "auto", "resize": (0, 0), "fields": ("image",)},
        },
        "eval": {"val": {"dataset": "folder", "split": "auto", "input_size": (0, 0)}},
        "scale": "toy",
        "classes": "",
    },
}
"""Name to what it consists of:

``streams``: domain to stream; ``eval``: set name to protocol; ``oracle``: what the source becomes for training on the
labeled target; ``day``: labeled days to join to labeled nights; ``select``: the set whose best checkpoint is kept;
``dropped_rows``; ``scale``: ``"toy"`` where a small network learns from scratch within minutes, otherwise
``"paper"``; ``classes``: the class set, Cityscapes' by default, or "" where it is the data's own and its pixel
shares are measured when a run starts; ``merges``: what other sets' classes become, as in ``classes.merges``.

Real benchmarks select nothing: their validation sets are small, and papers report the last checkpoint.
"""


def evaluation_sets(benchmark: str = "", names: tuple[str, ...] = (), own: dict[str, Section] | None = None) -> dict:
    """Chooses evaluation sets.

    Args:
        benchmark: key of `BENCHMARKS`, or "" for ``own``.
        names: keys of these sets or of `EVAL_SETS`; all of these sets if empty.
        own: sets of a run.

    Returns:
        Set name to protocol; what was named is not optional.

    Raises:
        UserError: unknown benchmark or set.
    """
    known = choose(BENCHMARKS, benchmark, "benchmark")["eval"] if benchmark else dict(own or {})
    if not names:
        return known
    chosen = {name: choose(EVAL_SETS | known, name, "evaluation set") for name in names}
    return {
        name: section | ({"optional": False} if section.get("optional") else {}) for name, section in chosen.items()
    }
