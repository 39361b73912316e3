# SPDX-License-Identifier: Apache-2.0
"""Recipes: what a config file is made of. A recipe, a benchmark and a few changes give a whole config."""

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import ml_collections

from nightjax.core import config as configs
from nightjax.core.class_weights import RULES
from nightjax.core.classes import CLASS_SETS
from nightjax.core.errors import UserError, choose
from nightjax.zoo import optimizers
from nightjax.zoo.benchmarks import BENCHMARKS, FULL_RESOLUTION_TEST
from nightjax.zoo.models import FULL_RESOLUTION, INPUTS, MODELS, TRANSFORMERS

Changes = Mapping[str, Any]
"""Values by dotted key of the config."""

Scale = Literal["toy", "paper"]

Tune = Literal["full", "adapters", "norms", "head"]
"""``tune=``: what is trained: everything; adapters of the backbone, and head; these and the backbone's norms; the head
alone."""

ADAPTER_RANK = 16
"""Rank of the adapters that ``tune=`` brings; with the default ``alpha`` their outputs are not scaled."""

MIDDLE_GRAY = 0.46
"""Middle gray in sRGB, the log-mean luminance that ``exposure=1`` brings images to."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a method is trained at one scale.

    Attributes:
        method: the section ``method``, as far as it differs from the defaults.
        model: a name in `MODELS`, or the section ``model`` itself.
        optim: the section ``optim``.
        steps: length of the run.
        batch: examples of each domain a step.
        dtype: compute type of the network.
        evaluations: how often a run is evaluated and saved.
        workers: reading processes.
        changes: of any other keys.
    """

    method: Mapping[str, Any]
    model: str | Mapping[str, Any] = "daformer"
    optim: Mapping[str, Any] = dataclasses.field(default_factory=lambda: optimizers.ADAMW)
    steps: int = 40_000
    batch: int = 2
    dtype: str = "bfloat16"
    evaluations: int = 10
    workers: int = 4
    changes: Changes = dataclasses.field(default_factory=dict)

    def replace(self, **fields: Any) -> "Recipe":
        """A copy with other fields."""
        return dataclasses.replace(self, **fields)


def toy(method: Mapping[str, Any], **fields: Any) -> Recipe:
    """A recipe by which a small network learns from scratch on a CPU within minutes (ours)."""
    small = {
        "model": "tiny",
        "optim": optimizers.SCRATCH_ADAMW,
        "steps": 1000,
        "batch": 4,
        "dtype": "float32",
        "evaluations": 4,
        "workers": 0,
    }
    return Recipe(method, **small | fields)


def scale_of(data: str) -> Scale:
    """Whether a benchmark is trained at toy scale or by the paper's recipe."""
    return choose(BENCHMARKS, data, "config argument data").get("scale", "paper")


def reads_full_resolution(data: str, model: str | None, wanted: bool = False) -> bool:
    """Whether crops of 1024 are read of images at their full size: real ones, for a network of `FULL_RESOLUTION` or
    because a recipe wants it."""
    return scale_of(data) == "paper" and (wanted or model in FULL_RESOLUTION)


def make(
    recipe: Recipe,
    data: str,
    domains: Sequence[str],
    *,
    model: str | None = None,
    steps: int | None = None,
    input: str = "torchvision",
    exposure: bool = False,
    tune: Tune = "full",
    full_resolution: bool = False,
    changes: Sequence[Changes] = (),
) -> ml_collections.ConfigDict:
    """The config of a recipe on a benchmark.

    A plain vision transformer with published weights is trained at VFM-UDA's rates where the recipe has AdamW.

    Args:
        recipe: of the method at the benchmark's scale.
        data: key of `BENCHMARKS`.
        domains: the streams that the method reads; others of the benchmark are left out.
        model: key of `MODELS`, instead of the recipe's.
        steps: length of the run, instead of the recipe's; evaluation and warm-up follow it.
        input: key of `INPUTS`.
        exposure: bring every image, day and night, to one log-mean luminance.
        tune: what is trained.
        full_resolution: read crops of 1024 of images at their full size, as the networks of `FULL_RESOLUTION` do.
        changes: last words, in turn.

    Raises:
        UserError: an unknown name, a benchmark without one of the domains, or senseless steps.
    """
    streams = streams_of(data, domains)
    benchmark = copy.deepcopy(BENCHMARKS[data] | {"streams": streams})
    named = model or recipe.model
    if isinstance(named, str):
        recipe = recipe.replace(model=choose(MODELS, named, "config argument model"))
        if reads_full_resolution(data, named, full_resolution):
            _read_full_resolution(benchmark)
    backbone = cast(Mapping[str, Any], recipe.model).get("backbone", "")
    if tune in ("adapters", "norms") and not backbone.startswith(TRANSFORMERS):
        raise UserError(f"config argument tune={tune} needs a transformer, and {backbone} has no place for adapters")
    if backbone.startswith("dinov2_") and recipe.optim["name"] == "adamw":
        large = backbone.startswith(("dinov2_l", "dinov2_g"))
        recipe = recipe.replace(optim=optimizers.VIT_L_ADAMW if large else optimizers.VIT_ADAMW)
    pixels = dict(choose(INPUTS, input, "config argument input"))
    own = {"model.input": pixels | {"exposure": MIDDLE_GRAY if exposure else 0.0}}
    return build(recipe, benchmark, steps=steps, changes=[own, *tuned(tune), *changes])


def tuned(tune: Tune) -> list[Changes]:
    """What a config changes to train less than the whole network."""
    if tune == "full":
        return []
    rank = {} if tune == "head" else {"model.backbone_lora_rank": ADAPTER_RANK}
    return [rank | {"optim.groups": choose(optimizers.TUNED, tune, "config argument tune")}]


def streams_of(data: str, domains: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Some streams of a benchmark.

    Raises:
        UserError: an unknown benchmark, or one without one of the domains.
    """
    streams = choose(BENCHMARKS, data, "config argument data")["streams"]
    if lacking := sorted(set(domains) - set(streams)):
        raise UserError(f"data={data} has no {lacking[0]} stream: choose another benchmark, or a supervised config")
    return {name: streams[name] for name in domains}


def build(
    recipe: Recipe, benchmark: Mapping[str, Any], *, steps: int | None = None, changes: Sequence[Changes] = ()
) -> ml_collections.ConfigDict:
    """The config of a recipe on ``streams``, ``eval`` and ``select``, as in `BENCHMARKS`, all of them read."""
    steps = recipe.steps if steps is None else steps
    if steps < 1:
        raise UserError(f"config argument steps={steps} must be 1 or more")
    every = max(steps // recipe.evaluations, 1)
    config = {
        "seed": 0,
        "model": {"dtype": recipe.dtype} | dict(cast(Mapping[str, Any], recipe.model)),
        "train": {"steps": steps, "batch": recipe.batch},
        "data": {"workers": recipe.workers, "streams": benchmark["streams"]},
        "eval": {"every": every, "sets": benchmark["eval"]},
        "checkpoint": {"every": every, "best": benchmark.get("select", "")},
        "method": dict(recipe.method),
        "optim": fitted(recipe.optim, steps),
    }
    if "merges" in benchmark:
        config["classes"] = {"merges": benchmark["merges"]}
    config = changed(ml_collections.ConfigDict(config), [recipe.changes, *changes])
    classes = benchmark.get("classes", "cityscapes")
    if classes:
        config = ml_collections.ConfigDict(_weighted(config.to_dict(), CLASS_SETS[classes].pixel_share))
    return config


def _weighted(section: dict[str, Any], pixel_share: Sequence[float]) -> dict[str, Any]:
    """A section with numbers in the place of rules of class weights; see `core.class_weights.RULES`."""
    found = {}
    for name, value in section.items():
        if isinstance(value, dict):
            value = _weighted(value, pixel_share)
        elif name == "class_weights" and isinstance(value, str):
            value = choose(RULES, value, "class_weights")(pixel_share)
        found[name] = value
    return found


def changed(config: ml_collections.ConfigDict, changes: Sequence[Changes]) -> ml_collections.ConfigDict:
    """A config with changes, in turn."""
    return ml_collections.ConfigDict(configs.merged(config.to_dict(), *changes))


def fitted(optim: Mapping[str, Any], steps: int) -> dict[str, Any]:
    """An optimizer's section for a run of ``steps`` steps: it warms up for at most a quarter of them."""
    warmup = {"warmup": min(optim["warmup"], steps // 4)} if "warmup" in optim else {}
    return dict(optim) | warmup


def scaled(start: int, steps: int, of: int) -> int:
    """A step of a recipe of ``of`` steps at the same share of a run of ``steps``."""
    return round(start / of * steps)


def oracle(data: str) -> Changes:
    """The source becomes the labeled night: the upper bound of every adaptation method."""
    benchmark = choose(BENCHMARKS, data, "config argument data")
    if "oracle" not in benchmark:
        raise UserError(f"data={data} has no labeled target to train on: train_on=oracle is not for it")
    return {"data.streams": None, "data.streams.source": benchmark["streams"]["source"] | benchmark["oracle"]}


def unscored() -> Changes:
    """Nothing to evaluate and no best checkpoint: of methods that name no classes."""
    return {"eval.sets": None, "checkpoint.best": ""}


def _read_full_resolution(benchmark: dict[str, Any]) -> None:
    """What HRDA reads: crops of 1024 of images at their full size, and windows of that size in the test."""
    for stream in benchmark["streams"].values():
        stream |= {"crop": (1024, 1024), "resize": None}
        if "rare_class" in stream:
            stream["rare_class"] = stream["rare_class"] | {"crop_ratio": 2.0}
    for section in benchmark["eval"].values():
        section |= FULL_RESOLUTION_TEST.get(section.get("native_size"), {}) | {"batch": 1}
