"""The section ``model`` of a config with every attribute that its network has, those left to their default too."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn

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
        UserError: the builder knows no such network or attribute.
    """
    given = {"dtype": "float32"} | dict(section)
    module = builder(**given | {"dtype": compute_dtype(given["dtype"])})
    parts = {prefix: getattr(module, name, None) for prefix, name in PARTS.items()}
    if not isinstance(parts["backbone"], nn.Module):
        return _settings(module, "") | given if "variant" not in given else given
    found: dict[str, Any] = dict(SWITCHES)
    for prefix, part in parts.items():
        if isinstance(part, nn.Module):
            found |= _settings(part, f"{prefix}_")
    return found | given


def _settings(module: nn.Module, prefix: str) -> dict[str, Any]:
    """The attributes of a module that are plain data."""
    values = {field.name: getattr(module, field.name) for field in dataclasses.fields(module)}
    return {f"{prefix}{name}": value for name, value in values.items() if name not in FIXED and _is_data(value)}


def _is_data(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(_is_data(item) for item in value)
    return value is None or isinstance(value, (bool, int, float, str))
