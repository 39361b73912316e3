# SPDX-License-Identifier: Apache-2.0
"""What each setting of a config means, taken from the docstrings of the dataclasses that the sections become.

The docstring is the one place where a meaning is written: the help of ``--config=NAME`` and the pages of the docs site
are both made from it.
"""

import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections

from nightjax import methods
from nightjax.core.config import part_of
from nightjax.core.optim import Optimizer
from nightjax.core.precision import compute_dtype
from nightjax.data.loading import StreamSpec
from nightjax.methods.parts.network import InputNormalization
from nightjax.metrics.protocol import EvalSet
from nightjax.models import build_segmenter
from nightjax.models.sections import PARTS
from nightjax.run.settings import SECTIONS, Run

NAMED = {"data.streams": StreamSpec, "eval.sets": EvalSet}
"""Sections that hold sections by name."""


def of_config(config: ml_collections.ConfigDict) -> dict[str, str]:
    """Dotted key to its meaning, in one sentence; "" for a setting that nobody has described."""
    values = config.to_dict()
    found = _of_section(Run, {"seed": values["seed"]}, "")
    sections = SECTIONS | {"method": methods.METHODS[values["method"]["name"]], "optim": Optimizer}
    for name, cls in sections.items():
        found |= _of_section(cls, values[name], f"{name}.")
    found["method.name"] = "which method; nightjax list methods has them all"
    return found | _of_model(values["method"]["name"], values["model"])


def described(thing: type | Callable[..., Any]) -> dict[str, str]:
    """The first sentence that a docstring has of each attribute or argument, those of base classes too."""
    found: dict[str, str] = {}
    docs = [base.__doc__ for base in reversed(thing.__mro__)] if isinstance(thing, type) else [thing.__doc__]
    for doc in filter(None, docs):
        name, inside = "", False
        for line in inspect.cleandoc(doc).splitlines():
            indent = len(line) - len(line.lstrip())
            if not indent and line:
                inside, name = line in ("Attributes:", "Args:"), ""
            elif inside and indent == 4:
                names, _, text = line.strip().partition(":")
                for name in names.split(", "):
                    found[name] = text.strip()
            elif inside and indent > 4 and name:
                found[name] += f" {line.strip()}"
    return {
        name: text.partition(". ")[0].rstrip(".").replace("``", "").replace("`", "") for name, text in found.items()
    }


def _of_section(cls: type, values: Mapping[str, Any], prefix: str) -> dict[str, str]:
    texts, hints = described(cls), typing.get_type_hints(cls)
    found = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        named, part = NAMED.get(key), part_of(hints[name]) if name in hints else None
        if isinstance(value, Mapping) and value and named is not None:
            for other, section in value.items():
                found |= {f"{key}.{other}": texts[name]} if section is None else {}
                found |= _of_section(named, section or {}, f"{key}.{other}.")
        elif isinstance(value, Mapping) and part is not None:
            found |= _of_section(part, value, f"{key}.")
        elif isinstance(value, Mapping) and value:
            found |= {f"{key}.{other}": texts.get(name, "") for other in value}
        else:
            found[key] = texts.get(name, "")
    return found


def _of_model(method: str, section: Mapping[str, Any]) -> dict[str, str]:
    """Meanings of the section ``model``: of the builder's arguments, and of the attributes of what it builds."""
    builder = methods.BUILDERS.get(method, build_segmenter)
    given = {name: value for name, value in section.items() if name != "input"}
    module = builder(**given | {"dtype": compute_dtype(section["dtype"])})
    texts = described(type(module)) | described(builder)
    for prefix, name in PARTS.items():
        if dataclasses.is_dataclass(part := getattr(module, name, None)):
            texts |= {f"{prefix}_{field}": text for field, text in described(type(part)).items()}
    found = {f"model.{name}": texts.get(name, "") for name in given}
    return found | _of_section(InputNormalization, section.get("input", {}), "model.input.")
