"""The table of methods, and how a config becomes one."""

from collections.abc import Mapping
from typing import Any

import ml_collections

from nightjax.core import config as configs
from nightjax.core.method import Method
from nightjax.core.optim import Optimizer
from nightjax.core.precision import compute_dtype
from nightjax.methods.adaptsegnet import AdaptSegNet
from nightjax.methods.cyclegan import CycleGAN
from nightjax.methods.dacs import Dacs
from nightjax.methods.dannet import Dannet
from nightjax.methods.dsr_fpa import DsrFpa
from nightjax.methods.matching import MatcherTraining
from nightjax.methods.nightlab import NightLab
from nightjax.methods.pix2pixhd import Pix2PixHD
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
    "dacs": Dacs,
    "dsr_fpa": DsrFpa,
    "dannet": Dannet,
    "adaptsegnet": AdaptSegNet,
    "nightlab": NightLab,
    "t2s_da": T2sDa,
    "t2s_dg": T2sDg,
    "uawarpc": MatcherTraining,
    "unit": Unit,
    "cyclegan": CycleGAN,
    "pix2pixhd": Pix2PixHD,
}

MODELS = {
    "uawarpc": build_matcher,
    "unit": build_unit,
    "cyclegan": build_resnet_generator,
    "pix2pixhd": build_generator,
}
"""Method to the builder of its network from the section ``model``, where that is no segmenter."""


GIVEN_ELSEWHERE = ("model", "optimizer", "steps", "accumulate", "seed")
"""Fields of a method that `build` takes from other sections than ``method``."""


def with_defaults(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The locked config with every setting of its method and optimiser, those left to their default too.

    So every setting can be given as a flag and is kept with the run. A config without a known method comes back as it
    is.
    """
    section, optim = config.get("method"), config.get("optim")
    if not isinstance(section, ml_collections.ConfigDict) or not isinstance(optim, ml_collections.ConfigDict):
        return config
    cls = METHODS.get(section.get("name"))
    if cls is None:
        return config
    filled = ml_collections.ConfigDict(config.to_dict())
    filled.method = configs.with_defaults(cls, section.to_dict(), GIVEN_ELSEWHERE)
    filled.optim = configs.with_defaults(Optimizer, optim.to_dict())
    return filled.lock()


def build(config: Mapping[str, Any]) -> Method:
    """Builds the method of a config from its sections ``method``, ``model``, ``optim`` and ``train``.

    Raises:
        UserError: an unknown method, model or setting; the message suggests the nearest.
    """
    section = dict(config["method"])
    cls = configs.choose(METHODS, section.pop("name", ""), "method.name")
    model, train = dict(config["model"]), config["train"]
    model["dtype"] = compute_dtype(model.get("dtype", "float32"))
    return configs.build(
        cls,
        section
        | {
            "model": MODELS.get(config["method"]["name"], build_segmenter)(**model),
            "optimizer": configs.build(Optimizer, config["optim"], "optim"),
            "steps": train["steps"],
            "accumulate": train["accumulate"],
            "seed": config["seed"],
        },
        "method",
    )
