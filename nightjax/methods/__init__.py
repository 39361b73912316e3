# SPDX-License-Identifier: Apache-2.0
"""The table of methods, and how a config becomes one."""

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from typing import Any, cast

import ml_collections

from nightjax.core import class_section
from nightjax.core import config as configs
from nightjax.core.class_weights import RULES
from nightjax.core.classes import ClassSet
from nightjax.core.errors import UserError, choose
from nightjax.core.method import Trainable
from nightjax.core.optim import Optimizer
from nightjax.core.precision import compute_dtype
from nightjax.core.step import Training
from nightjax.methods.adaptsegnet import AdaptSegNet
from nightjax.methods.cyclegan import CycleGAN
from nightjax.methods.dacs import Dacs
from nightjax.methods.dannet import Dannet
from nightjax.methods.distill import Distill
from nightjax.methods.dsr_fpa import DsrFpa
from nightjax.methods.matching import MatcherTraining
from nightjax.methods.nightlab import NightLab
from nightjax.methods.parts.network import InputNormalization, SegmentationNetwork
from nightjax.methods.parts.segmenting import WithMixing
from nightjax.methods.pix2pixhd import Pix2PixHD
from nightjax.methods.self_supervised import SelfSupervised
from nightjax.methods.self_training import SelfTraining
from nightjax.methods.supervised import Supervised
from nightjax.methods.t2s_da import T2sDa
from nightjax.methods.t2s_dg import T2sDg
from nightjax.methods.unit import Unit
from nightjax.models import build_segmenter
from nightjax.models.cyclegan import build_resnet_generator
from nightjax.models.matcher import build_matcher
from nightjax.models.pix2pixhd import build_generator
from nightjax.models.unit import build_unit

METHODS = {
    "supervised": Supervised,
    "self_training": SelfTraining,
    "self_supervised": SelfSupervised,
    "dacs": Dacs,
    "dsr_fpa": DsrFpa,
    "dannet": Dannet,
    "distill": Distill,
    "adaptsegnet": AdaptSegNet,
    "nightlab": NightLab,
    "t2s_da": T2sDa,
    "t2s_dg": T2sDg,
    "uawarpc": MatcherTraining,
    "unit": Unit,
    "cyclegan": CycleGAN,
    "pix2pixhd": Pix2PixHD,
}

BUILDERS = {
    "uawarpc": build_matcher,
    "unit": build_unit,
    "cyclegan": build_resnet_generator,
    "pix2pixhd": build_generator,
}
"""Method to the builder of its module from the section ``model``, where that is no segmenter."""

GIVEN_ELSEWHERE = ("network", "model", "input", "classes", "optimizer", "training")
"""Fields of a method that `build` takes from other sections than ``method``."""


def with_defaults(section: Mapping[str, Any]) -> dict[str, Any]:
    """The section ``method`` with every setting of its method, those left to their default too."""
    cls = choose(METHODS, section.get("name", ""), "method.name")
    return configs.with_defaults(cls, section, GIVEN_ELSEWHERE)


def sees_pixels(name: str) -> bool:
    """Whether the section ``model`` of this method has an ``input``, that is, settings of how pixels enter it."""
    fields = {field.name for field in dataclasses.fields(choose(METHODS, name, "method.name"))}
    return bool(fields & {"network", "input"})


def build(config: Mapping[str, Any] | ml_collections.ConfigDict) -> Trainable:
    """Builds the method of a config from its sections ``method``, ``model``, ``classes``, ``optim`` and ``train``.

    Raises:
        UserError: an unknown method, model or setting; the message suggests the nearest. Or class weights of another
            number than there are classes.
    """
    section = dict(config["method"])
    name = section.pop("name", "")
    cls = choose(METHODS, name, "method.name")
    model, train = dict(config["model"]), config["train"]
    parts: dict[str, Any] = {}
    if sees_pixels(name):
        parts["input"] = configs.build(InputNormalization, dict(model.pop("input", {})), "model.input")
    model["dtype"] = compute_dtype(model.get("dtype", "float32"))
    classes, fields = class_section.of_section(config.get("classes")), typing.get_type_hints(cls)
    section = _with_class_weights(section, classes)
    if "network" in fields:
        model.setdefault("num_classes", len(classes))
        parts = {"network": SegmentationNetwork(build_segmenter(**model), classes=classes, **parts)}
    else:
        parts["model"] = BUILDERS[name](**model)
        parts |= {"classes": classes} if "classes" in fields else {}
    parts["optimizer"] = configs.build(Optimizer, config["optim"], "optim")
    parts["training"] = Training(train["steps"], config["seed"], train["accumulate"], train.get("passes", "together"))
    method = configs.build(cls, section | parts, "method")
    if train.get("passes") == "apart" and _count_of_passes(method) < 2:
        raise UserError(
            f"train.passes=apart has no effect: the losses of method {name!r} with these settings share more than "
            "parameters; use train.accumulate or model.backbone_remat for less memory"
        )
    return method


def _count_of_passes(method: object) -> int:
    """How many losses of the student share nothing but parameters."""
    return len(method.passes) if isinstance(method, WithMixing) else 1


def _with_class_weights(section: Mapping[str, Any], classes: ClassSet, where: str = "method") -> dict[str, Any]:
    """The section with numbers in the place of rules of class weights, as many as there are classes.

    Training measures the shares that a rule goes by; a network that is only imported or planned has none, and all ones.
    """
    found: dict[str, Any] = {}
    for name, value in section.items():
        key = f"{where}.{name}"
        if isinstance(value, (Mapping, ml_collections.ConfigDict)):
            value = _with_class_weights(cast(Mapping[str, Any], value), classes, key)
        elif name == "class_weights" and value is not None:
            if isinstance(value, str):
                rule = choose(RULES, value, key)
                value = rule(classes.pixel_share) if classes.pixel_share else (1.0,) * len(classes)
            if isinstance(value, Sequence) and len(value) != len(classes):  # Other kinds are refused as a field is.
                raise UserError(f"{key} has {len(value)} numbers; give one for each of {len(classes)} classes")
        found[name] = value
    return found
