# SPDX-License-Identifier: Apache-2.0
"""The section ``model`` of a config with every attribute that its network has, those left to their default too."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn

from nightjax.core.config import convert
from nightjax.core.errors import UserError, first_line
from nightjax.core.precision import compute_dtype

PARTS = {
    "backbone": "backbone",
    "head": "head",
    "auxiliary": "auxiliary",
    "relight": "relight",
    "pyramid": "pyramid",
    "attention": "hrda_scale_attention",
}
"""Prefix of a segmenter's settings to the name of its submodule."""

SWITCHES = {"hrda": False, "auxiliary": None, "relight": False, "pyramid": None}
"""Settings of a segmenter that say which submodules it has, with their defaults."""

FIXED = ("parent", "name", "dtype", "num_classes")


def with_defaults(builder: Callable[..., nn.Module], section: Mapping[str, Any]) -> dict[str, Any]:
    """Completes a section.

    Args:
        builder: of the network, from the section.
        section: its arguments, ``dtype`` as text.

    Raises:
        UserError: the builder knows no such network or attribute, or an attribute has another type or is out of range.
    """
    given = {"dtype": "float32"} | dict(section)
    for name, parameter in inspect.signature(builder).parameters.items():
        required = parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
        if required and name not in given:
            raise UserError(f"model.{name} is missing; see any file of configs/ for an example")
    try:
        module = builder(**given | {"dtype": compute_dtype(given["dtype"])})
    except (TypeError, ValueError) as error:  # The builders take numbers for what they are.
        raise UserError(f"model: no network can be built of these settings ({first_line(error)})") from error
    for name in SWITCHES.keys() & given.keys():
        convert(type(SWITCHES[name]) if SWITCHES[name] is not None else str | None, given[name], f"model.{name}")
    parts = {prefix: getattr(module, name, None) for prefix, name in PARTS.items()}
    if not isinstance(parts["backbone"], nn.Module):
        return _settings(module, "") | given if "variant" not in given else given
    found: dict[str, Any] = dict(SWITCHES)
    for prefix, part in parts.items():
        if isinstance(part, nn.Module):
            found |= _settings(part, f"{prefix}_")
    return found | given


def _settings(module: nn.Module, prefix: str) -> dict[str, Any]:
    """The attributes of a module that are plain data, checked."""
    found = {}
    for field in dataclasses.fields(module):
        value = getattr(module, field.name)
        if field.name not in FIXED and (_is_data(value) or isinstance(value, Mapping)):
            if not (isinstance(value, str) and ":" in value):  # A reference, which is followed when a run starts.
                convert(field.type, value, f"model.{prefix}{field.name}")
            found[f"{prefix}{field.name}"] = value
    return found


def _is_data(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(_is_data(item) for item in value)
    return value is None or isinstance(value, (bool, int, float, str))
