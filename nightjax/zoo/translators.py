# SPDX-License-Identifier: Apache-2.0
"""What the recipes of the image translators (CycleGAN, pix2pixHD, UNIT) have in common."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from nightjax.zoo import optimizers, recipes
from nightjax.zoo.benchmarks import Section

CANDIDATES = {"checkpoint.every": 5000, "checkpoint.keep": 10}
"""Checkpoints of a translator on real data, among which FID chooses."""


def toy(method: Mapping[str, Any], model: Mapping[str, Any], **fields: Any) -> recipes.Recipe:
    """A narrow network that two cores train."""
    return recipes.toy(method, **{"model": model, "optim": optimizers.GAN_ADAM | {"lr": 1e-3}, "steps": 600} | fields)


def paper(method: Mapping[str, Any], model: Mapping[str, Any], **fields: Any) -> recipes.Recipe:
    """The published setting; translators compute in float32."""
    settings = {"optim": optimizers.GAN_ADAM, "steps": 50_000, "dtype": "float32", "changes": CANDIDATES}
    return recipes.Recipe(method, model, **settings | fields)


def images_of(data: str, domains: Sequence[str], own: Mapping[str, Any]) -> dict[str, Section]:
    """Streams of a benchmark as images alone, with changes.

    Raises:
        UserError: the benchmark has no such stream.
    """
    streams = copy.deepcopy(recipes.streams_of(data, domains))
    for stream in streams.values():
        stream.pop("rare_class", None)
    return {name: stream | {"fields": ("image",)} | dict(own) for name, stream in streams.items()}


def make(
    recipe: recipes.Recipe,
    streams: Mapping[str, Section],
    steps: int | None = None,
    changes: Sequence[recipes.Changes] = (),
) -> ml_collections.ConfigDict:
    """The config of a translator on these streams; see `recipes.build`."""
    return recipes.build(recipe, {"streams": dict(streams), "eval": {}}, steps=steps, changes=changes)
