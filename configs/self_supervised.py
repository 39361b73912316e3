# SPDX-License-Identifier: Apache-2.0
"""A start without labels and without published weights: a plain transformer predicts hidden patches (MaskFeat).

    python -m nightjax.main --config=configs/self_supervised.py --workdir=runs/start
    python -m nightjax.main --config=configs/supervised.py:model=vit_tiny --config.train.init=runs/start

The first command reads the images of both domains and no label, and trains the backbone of ``vit_tiny``, on NightStreet
on two CPU cores; any config with the same ``model=`` starts from it, and makes its head anew. Of your own frames
(`docs/own_data.md` says how folders are laid out):

    python -m nightjax.main --config=configs/self_supervised.py:data=folder \\
        --config.data.streams.source.dataset=folder:DAYS --config.data.streams.target.dataset=folder:NIGHTS

It predicts in which directions the brightness of hidden patches changes (arXiv 2112.09133): one pass of the network and
one linear map, and dark streets count as much as lit ones. The settings are ours but for the histograms and their
squared distance. Predicted pixels (SimMIM) were tried before: after 500 steps such a backbone was a worse start than a
random one (docs/results.md). ``configs/studies/plain_transformer.toml`` and ``plain_transformer_camvid.toml`` compare
runs with and without a start.

On real data ``model=dinov2_s|b|l[_reg]`` is for going on from published weights on your own frames
(``--config.train.init=pretrained/dinov2_b``), 5000 steps at DINOv2's slow rates; from scratch at that size it needs far
more images and steps than a few thousand.
"""

import ml_collections

from nightjax.zoo import optimizers, recipes

METHOD = {"name": "self_supervised"}
DOMAINS = ("source", "target")
RECIPES = {
    "toy": recipes.toy(METHOD, model="vit_tiny", optim=optimizers.SCRATCH_ADAMW | {"lr": 1e-3}),
    "paper": recipes.Recipe(METHOD, model="dinov2_b", steps=5000, evaluations=1),
}


def get_config(
    data: str = "nightstreet", model: str | None = None, steps: int | None = None, exposure: bool = False
) -> ml_collections.ConfigDict:
    """Arguments are described above."""
    images = [{f"data.streams.{name}": {"fields": ("image",), "rare_class": None}} for name in DOMAINS]
    changes = [recipes.unscored(), *images]
    recipe = RECIPES[recipes.scale_of(data)]
    return recipes.make(recipe, data, DOMAINS, model=model, steps=steps, exposure=exposure, changes=changes)
