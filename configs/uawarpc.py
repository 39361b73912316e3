# SPDX-License-Identifier: Apache-2.0
"""UAWarpC: matching day with night without labels, to align the two in DSR+FPA (Refign, arXiv 2207.06825).

    python -m nightjax.main --config=configs/uawarpc.py
    nightjax match --workdir=runs/uawarpc
    python -m nightjax.main --config=configs/dsr_fpa.py:aligner=uawarpc,matcher=runs/uawarpc

On NightStreet a tiny matcher learns from scratch on unlabeled pairs; the true flow only scores it. A step takes about a
second on two CPU cores. Its features are compared after their mean is taken off (ours): without that, 1500 steps taught
nothing. With it, the error on its own random warps falls from 17 to 7 pixels and is still falling at the end, but
day and night are hardly matched yet: 12.6 pixels, where no motion at all has 12.9. It is not ready to align with.

On other benchmarks (``data=cityscapes_to_dark_zurich``) the network is Refign's, which starts from ImageNet's VGG-16
(``--config.train.init``) and keeps those features fixed. The authors trained on MegaDepth for 400,000 + 225,000 steps
of 6 pairs. Use their published weights where you have them:

    nightjax convert --input=uawarpc.ckpt --config=configs/uawarpc.py:data=cityscapes_to_dark_zurich \\
        --output=pretrained/uawarpc
"""

import ml_collections

from nightjax.zoo import optimizers, recipes

TOY = recipes.toy(
    {"name": "uawarpc", "homography": 0.1},
    model={"variant": "uawarpc_tiny"},
    optim=optimizers.SCRATCH_ADAMW | {"lr": 2e-3, "weight_decay": 1e-4},
    steps=1500,
    batch=2,
)
PAPER = recipes.Recipe(
    {"name": "uawarpc", "homography": 0.15},
    {"variant": "uawarpc"},
    optimizers.section(
        name="adam", lr=1e-4, weight_decay=4e-4, groups=({"pattern": "^alignment_backbone/", "lr": 0.0},)
    ),
    steps=225_000,
    batch=6,
    dtype="float32",
)


def get_config(
    data: str = "nightstreet", steps: int | None = None, exposure: bool = False
) -> ml_collections.ConfigDict:
    """Arguments are described above."""
    recipe = {"toy": TOY, "paper": PAPER}[recipes.scale_of(data)]
    length = recipe.steps if steps is None else steps
    changes = [recipes.unscored(), {"method.visible_from": length // 2}]
    changes.append({"data.streams.target.fields": ("image", "reference")})
    return recipes.make(recipe, data, ("target",), steps=steps, exposure=exposure, changes=changes)
