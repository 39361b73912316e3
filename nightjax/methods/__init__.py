"""The table of methods, and how a config becomes one."""

from collections.abc import Mapping
from typing import Any

from nightjax.core import config as configs
from nightjax.core.method import Method
from nightjax.core.optim import Optimizer
from nightjax.core.precision import compute_dtype
from nightjax.methods.dacs import Dacs
from nightjax.methods.dsr_fpa import DsrFpa
from nightjax.methods.supervised import Supervised
from nightjax.models import build_segmenter

METHODS = {"supervised": Supervised, "dacs": Dacs, "dsr_fpa": DsrFpa}


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
            "model": build_segmenter(**model),
            "optimizer": configs.build(Optimizer, config["optim"], "optim"),
            "steps": train["steps"],
            "accumulate": train["accumulate"],
            "seed": config["seed"],
        },
        "method",
    )
