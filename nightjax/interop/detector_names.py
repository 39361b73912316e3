"""Names of maskrcnn-benchmark's checkpoints of a region proposal network, in and out."""

from collections.abc import Mapping
from typing import TypeVar

Value = TypeVar("Value")

OTHER_HEADS = ("roi_heads.*", "rpn.anchor_generator.*")
"""What a checkpoint of a whole Mask R-CNN has beyond the proposals, for ``allow_surplus``."""


def from_maskrcnn(state: Mapping[str, Value]) -> dict[str, Value]:
    """A state dict under our names: without ``module.`` before all names, and ``stem`` in the ResNet."""
    return {name.removeprefix("module.").replace("body.stem.", "body."): value for name, value in state.items()}


def to_maskrcnn(state: Mapping[str, Value]) -> dict[str, Value]:
    """The inverse of `from_maskrcnn`."""
    stem = ("backbone.body.conv1.", "backbone.body.bn1.")
    return {
        name.replace("body.", "body.stem.", 1) if name.startswith(stem) else name: value
        for name, value in state.items()
    }
