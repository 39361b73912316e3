# SPDX-License-Identifier: Apache-2.0
"""The trained segmentation network of another run, as a method uses it beside the one that it trains."""

from collections.abc import Mapping
from typing import Any

from nightjax.core import config as configs
from nightjax.core.classes import ClassSet
from nightjax.core.precision import compute_dtype
from nightjax.methods.parts.network import InputNormalization, SegmentationNetwork
from nightjax.models import build_segmenter


def frozen_segmenter(section: Mapping[str, Any], classes: ClassSet, where: str) -> SegmentationNetwork:
    """The network, and how pixels enter it.

    Args:
        section: the section ``model`` of its run.
        classes: that it tells apart.
        where: key of the section, for messages.

    Raises:
        UserError: the section is not one of a segmentation network.
    """
    model = dict(section)
    pixels = configs.build(InputNormalization, dict(model.pop("input", {})), f"{where}.input")
    model |= {"dtype": compute_dtype(model.get("dtype", "float32")), "num_classes": len(classes)}
    return SegmentationNetwork(build_segmenter(**model), input=pixels, classes=classes)
