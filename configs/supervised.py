# SPDX-License-Identifier: Apache-2.0
"""Supervised training: source-only, with exposure normalization or photometric augmentation, or on labeled nights.

    python -m nightjax.main --config=configs/supervised.py
    python -m nightjax.main --config=configs/supervised.py:train_on=oracle
    python -m nightjax.main --config=configs/supervised.py:exposure=1
    python -m nightjax.main --config=configs/supervised.py:photometric=1

On NightStreet a small network learns in about 5 minutes on two CPU cores (results: `docs/results.md`). ``relight=1``
puts DANNet's relighting in front of the segmenter. ``joint=1`` trains on labeled nights (CamVid: dusk) and labeled
days, one of each in turn. After DANNet, ``--config.train.init=runs/dannet`` fine-tunes it on labels.

NightLab's image level (arXiv 2204.05538; a reconstruction with mmsegmentation's settings) takes one GPU and 80,000
steps of 8 images; hours and result are unmeasured here:

    python -m nightjax.main --config=configs/supervised.py:data=nightcity_plus,model=deeplabv3plus,relight=1,joint=1

``model=upernet_swin_b`` is its other network; ImageNet weights come by ``--config.train.init``. Without relighting,
``data=nightcity_with_cityscapes`` mixes both data sets as one.
"""

from typing import Literal

import ml_collections

from nightjax.core.errors import UserError, choose
from nightjax.zoo import optimizers, recipes
from nightjax.zoo.benchmarks import BENCHMARKS
from nightjax.zoo.models import RELIGHT

LOSS = {"normalizer": "all"}
TOY = recipes.toy({"name": "supervised", "loss": LOSS | {"class_weights": "root_inverse"}})
PAPER = recipes.Recipe({"name": "supervised", "loss": LOSS})

MMSEG_DISTORTION = {
    "jitter": {"probability": 1.0, "strength": 1.0, "ranges": (32 / 255, 0.5, 0.5, 0.1), "each": 0.5, "order": "mmseg"},
    "blur": None,
}
"""mmsegmentation's augmentation: brightness +- 32 levels, contrast and saturation 0.5 to 1.5, hue +- 36 degrees, each
in half of the images, contrast before or after the other two."""

MMSEG = recipes.Recipe(
    {"name": "supervised", "loss": {"normalizer": "valid"}, "photometric": MMSEG_DISTORTION}, steps=80_000, batch=8
)
BY_MODEL = {
    "deeplabv3plus": MMSEG.replace(optim=optimizers.MMSEG_SGD),
    "upernet_swin_t": MMSEG.replace(optim=optimizers.SWIN_ADAMW),
    "upernet_swin_b": MMSEG.replace(optim=optimizers.SWIN_ADAMW),
}
"""NightLab's networks on real data, by mmsegmentation's recipes."""


def get_config(
    data: str = "nightstreet",
    model: str | None = None,
    steps: int | None = None,
    input: Literal["torchvision", "caffe"] = "torchvision",
    exposure: bool = False,
    tune: recipes.Tune = "full",
    photometric: bool = False,
    train_on: Literal["source", "oracle"] = "source",
    relight: bool = False,
    joint: bool = False,
) -> ml_collections.ConfigDict:
    """Arguments are described above."""
    scale = recipes.scale_of(data)
    recipe = TOY if scale == "toy" else BY_MODEL.get(model or "", PAPER)
    changes = []
    benchmark = choose(BENCHMARKS, data, "config argument data")
    if train_on == "oracle" or (joint and "oracle" in benchmark):  # Where there are nights of their own to join.
        changes.append(recipes.oracle(data))
    if photometric:
        changes.append({"method.photometric": None, "method.photometric.jitter": {}})
    if relight:
        changes.append({"model": RELIGHT[scale]})
    if joint:
        days = benchmark.get("day")
        if days is None:
            known = ", ".join(name for name, benchmark in BENCHMARKS.items() if "day" in benchmark)
            raise UserError(f"data={data} has no nights and days to join: joint=1 is for {known}")
        recipe = recipe.replace(batch=recipe.batch // 2)  # Of each domain.
        changes.append({"method.joint": True, "data.streams.day": days})
    return recipes.make(
        recipe, data, ("source",), model=model, steps=steps, input=input, exposure=exposure, tune=tune, changes=changes
    )
