"""Networks, and the tables from names to them."""

import dataclasses
import difflib
import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax.numpy as jnp

from nightjax.core.errors import UserError
from nightjax.core.types import NUM_CLASSES
from nightjax.models.backbones import mit, resnet
from nightjax.models.heads.daformer import DAFormerHead
from nightjax.models.heads.deeplab import DeepLabV2Head
from nightjax.models.heads.fpn import FPNHead
from nightjax.models.heads.segformer import SegFormerHead
from nightjax.models.hrda import HRDA
from nightjax.models.segmenter import Segmenter

BACKBONES = {
    **{
        name: functools.partial(resnet.ResNet, **options)
        for name, options in resnet.VARIANTS.items()
    },
    **{name: functools.partial(mit.MiT, **options) for name, options in mit.VARIANTS.items()},
}
"""Name to a builder of a backbone; keyword arguments override the variant's."""

HEADS = {
    "daformer": DAFormerHead,
    "deeplab_v2": DeepLabV2Head,
    "fpn": FPNHead,
    "segformer": SegFormerHead,
}
"""Name to a builder of a head, which needs ``num_classes``."""


def build_segmenter(
    backbone: str,
    head: str,
    num_classes: int = NUM_CLASSES,
    *,
    hrda: bool = False,
    dtype: Any = jnp.float32,
    **kwargs: Any,
) -> Segmenter | HRDA:
    """A segmentation network by names.

    Args:
        backbone: key of ``BACKBONES``.
        head: key of ``HEADS``.
        num_classes: K.
        hrda: run it at two resolutions, fused by a SegFormer head as scale attention. Backbone and
            head must give logits at stride 4: a MiT, or a ResNet that pools, and any head but
            ``deeplab_v2``.
        dtype: compute dtype of all parts.
        **kwargs: attributes of the backbone, the head or HRDA's attention, with the prefix
            ``backbone_``, ``head_`` or ``attention_``, such as ``head_dropout=0.0``.

    Raises:
        UserError: for a name or an attribute that does not exist.
    """
    build_backbone = _lookup("backbone", backbone, BACKBONES)
    build_head = _lookup("head", head, HEADS)
    builders = {"backbone": build_backbone, "head": build_head}
    if hrda:
        builders["attention"] = SegFormerHead
    options = {part: {} for part in builders}
    known = [f"{part}_{name}" for part, builder in builders.items() for name in _attributes(builder)]
    for name, value in kwargs.items():
        if name not in known:
            raise UserError(
                f"no model option {name!r} for {backbone} + {head}; {_suggest(name, known)}"
            )
        part, _, attribute = name.partition("_")
        options[part][attribute] = tuple(value) if isinstance(value, list) else value
    parts = {
        "backbone": build_backbone(dtype=dtype, **options["backbone"]),
        "head": build_head(num_classes=num_classes, dtype=dtype, **options["head"]),
    }
    if not hrda:
        return Segmenter(**parts)
    attention = SegFormerHead(num_classes=num_classes, dtype=dtype, **options["attention"])
    return HRDA(**parts, hrda_scale_attention=attention)


def _lookup(kind: str, name: str, table: dict[str, Callable]) -> Callable:
    if name not in table:
        raise UserError(f"unknown {kind} {name!r}; {_suggest(name, table)}")
    return table[name]


def _attributes(builder: Callable) -> list[str]:
    """Attributes that may be overridden by the caller of ``build_segmenter``."""
    module = getattr(builder, "func", builder)
    reserved = ("parent", "name", "dtype", "num_classes")
    return [field.name for field in dataclasses.fields(module) if field.name not in reserved]


def _suggest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(sorted(known))}"
