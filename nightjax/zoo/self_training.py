# SPDX-License-Identifier: Apache-2.0
"""What the recipes of the self-training methods (DACS, DSR+FPA, T2S-DA) have in common."""

import math
from typing import Literal

import ml_collections

from nightjax.core.errors import UserError, choose
from nightjax.zoo import optimizers, recipes
from nightjax.zoo.benchmarks import ACDC, BENCHMARKS
from nightjax.zoo.models import MODELS

TOY = recipes.toy(
    {},
    changes={
        "method.loss.class_weights": "root_inverse",
        "method.feature_distance": None,
        "method.teacher.decay": 0.99,
    },
)
"""Within a short run from scratch there is no pretrained network to stay close to, so there is no feature distance, and
the teacher follows faster."""

PAPER = recipes.Recipe({})
"""DAFormer's, but for the optimizer, which depends on the network: see `optimizer`."""

TRANSFORMERS = ("mit", "swin")

Masking = Literal["none", "auto", "target", "source", "both"]
"""``masking=``: which images the masked pass sees. ``"auto"``: as published on the benchmark."""

MASKED_AS_THEY_ARE = (
    "cityscapes_to_dark_zurich",
    "cityscapes_to_acdc",
    *(f"cityscapes_to_acdc_{condition}" for condition in ACDC),
)
"""Benchmarks on which MIC masks source and target images in their own colors. Elsewhere it masks target images in
changed colors."""


def common(
    data: str, photometric: bool, model: str | None = None, full_resolution: bool = False
) -> list[recipes.Changes]:
    """Changes by benchmark and argument.

    Args:
        data: key of `BENCHMARKS`, whose dropped rows count pixels of images at half size.
        photometric: whether source images get the strong photometric augmentation of DACS.
        model: key of `MODELS`, or None for the recipe's.
        full_resolution: whether the recipe reads images at their full size with any network.
    """
    rows = choose(BENCHMARKS, data, "config argument data").get("dropped_rows", (0, 0))
    scale = 2 if recipes.reads_full_resolution(data, model, full_resolution) else 1
    top, bottom = (scale * row for row in rows)
    changes: list[recipes.Changes] = [{"method.pseudo_labels": {"ignore_top": top, "ignore_bottom": bottom}}]
    return changes + common_of_source(photometric)


def common_of_source(photometric: bool) -> list[recipes.Changes]:
    """The part of `common` that is about the source alone."""
    return [{"method.source_photometric": {}}] if photometric else []


def optimizer(model: str | None) -> dict:
    """DAFormer's optimizer for a network of `MODELS`; transformers have groups for their norms."""
    backbone = MODELS.get(model or "daformer", {}).get("backbone", "")
    return optimizers.DAFORMER_ADAMW if backbone.startswith(TRANSFORMERS) else optimizers.DAFORMER_CNN_ADAMW


def with_masking(
    config: ml_collections.ConfigDict, data: str, masking: Masking, ratio: float | None, block: int | None
) -> ml_collections.ConfigDict:
    """A self-training config with masked consistency (MIC, arXiv 2212.01322).

    Args:
        config: with its last crops.
        data: key of `BENCHMARKS`.
        masking: ``"none"`` leaves the config as it is.
        ratio: expected share of masked pixels, instead of 0.7.
        block: side of a block in pixels, instead of `mask_block`.

    Raises:
        UserError: a ratio or a block size without masking.
    """
    given = {"mask_ratio": ratio, "mask_block": block}
    if masking == "none":
        if useless := [name for name, value in given.items() if value is not None]:
            raise UserError(
                f"config argument {useless[0]}={given[useless[0]]} has no use without masking: add masking=auto, or "
                "target, source or both"
            )
        return config
    plain = data in MASKED_AS_THEY_ARE
    section = {
        "mode": ("both" if plain else "target") if masking == "auto" else masking,
        "ratio": 0.7 if ratio is None else ratio,
        "block": mask_block(config.data.streams.target.crop) if block is None else block,
    }
    colors = {"photometric": None} if plain else {}
    return recipes.changed(config, [{"method.masking": section | colors}])


def mask_block(crop: tuple[int, int]) -> int:
    """MIC's block side for a crop (height, width): 64 for 1024 x 1024, in proportion to the shorter side for others.

    The nearest number within a quarter that divides both sides, if there is one.
    """
    wanted = 64 * min(crop) / 1024
    fitting = [n for n in range(1, min(crop) + 1) if math.gcd(*crop) % n == 0 and abs(n - wanted) <= wanted / 4]
    return min(fitting, key=lambda n: abs(n - wanted)) if fitting else max(1, round(wanted))
