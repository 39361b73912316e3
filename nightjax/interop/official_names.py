"""Names of official checkpoints that are not built from a backbone and a head, in both directions.

DANNet and AdaptSegNet keep all modules of a network side by side. Each table gives, for the first
part (or parts) of an official name, ours; the rest of the name is the same. An empty official part
stands for every other name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

Value = TypeVar("Value")

_STAGES = {f"layer{i}": f"backbone.layer{i}" for i in (1, 2, 3, 4)}
_STEM = {"conv1": "backbone.conv1", "bn1": "backbone.bn1"}
_DEEP_STEM = {
    f"{kind}{i + 1}": f"backbone.stem.{3 * i + offset}"
    for i in range(3)
    for offset, kind in enumerate(("conv", "bn"))
}

DANNET = {
    "pspnet": {**_DEEP_STEM, **_STAGES, "head": "head", "dsn": "auxiliary"},
    "deeplab": {**_STEM, **_STAGES, "layer5": "auxiliary", "layer6": "head"},
    "refinenet": {**_STEM, **_STAGES, "": "head"},
}
"""By name of ``nightjax.models.DANNET_NETWORKS``. AdaptSegNet's network has the second's names."""


def from_official(state: Mapping[str, Value], table: Mapping[str, str]) -> dict[str, Value]:
    """A state dict under our names.

    Args:
        state: official names to arrays. A leading ``Scale.`` of all names, as in AdaptSegNet's
            initial checkpoint, is dropped.
        table: of this module.

    Returns:
        Our torch-style names to the same arrays; a name that the table does not know stays.
    """
    renamed = {}
    for name, value in state.items():
        name = name.removeprefix("Scale.")
        first, _, rest = name.partition(".")
        if first in table:
            name = f"{table[first]}.{rest}"
        elif "" in table:
            name = f"{table['']}.{name}"
        renamed[name] = value
    return renamed


def to_official(state: Mapping[str, Value], table: Mapping[str, str]) -> dict[str, Value]:
    """The inverse of ``from_official``, for names of ours."""
    renamed = {}
    for name, value in state.items():
        for official, ours in table.items():
            if name.startswith(f"{ours}."):
                rest = name[len(ours) + 1 :]
                name = f"{official}.{rest}" if official else rest
                break
        renamed[name] = value
    return renamed
