# SPDX-License-Identifier: Apache-2.0
"""Networks, and the tables from names to them."""

import dataclasses
import functools
from typing import Any

import jax.numpy as jnp

from nightjax.core.classes import CITYSCAPES
from nightjax.core.config import choose, suggestion
from nightjax.core.errors import UserError
from nightjax.models.backbones import dinov2, mit, resnet, swin
from nightjax.models.backbones.fast_scnn import FastSCNN
from nightjax.models.fit import fit_of
from nightjax.models.heads.bn_linear import BNLinearHead
from nightjax.models.heads.daformer import DAFormerHead
from nightjax.models.heads.deeplab import DeepLabV2Head
from nightjax.models.heads.deeplabv3plus import DeepLabV3PlusHead
from nightjax.models.heads.fcn import FCNHead
from nightjax.models.heads.fpn import FPNHead
from nightjax.models.heads.panoptic_fpn import PanopticFPNHead, SharedPanopticFPNHead
from nightjax.models.heads.psp import PSPAuxiliaryHead, PSPHead
from nightjax.models.heads.refinenet import RefineNetHead
from nightjax.models.heads.segformer import SegFormerHead
from nightjax.models.heads.separable import SeparableHead
from nightjax.models.heads.upernet import UPerNetHead
from nightjax.models.heads.upscale import UpscaleHead, UpscalePyramidHead
from nightjax.models.hrda import HRDA
from nightjax.models.pyramid import DeconvPyramid, ResamplePyramid
from nightjax.models.relight import RelightNet
from nightjax.models.segmenter import Segmenter

BACKBONES = {
    **{name: functools.partial(resnet.ResNet, **options) for name, options in resnet.VARIANTS.items()},
    **{name: functools.partial(mit.MiT, **options) for name, options in mit.VARIANTS.items()},
    **{name: functools.partial(swin.Swin, **options) for name, options in swin.VARIANTS.items()},
    **{name: functools.partial(dinov2.DinoV2, **options) for name, options in dinov2.VARIANTS.items()},
    "fast_scnn": FastSCNN,
}
"""Name to a builder of a backbone; keyword arguments override the variant's."""

HEADS = {
    "bn_linear": BNLinearHead,
    "daformer": DAFormerHead,
    "deeplab_v2": DeepLabV2Head,
    "deeplab_v3plus": DeepLabV3PlusHead,
    "fcn": FCNHead,
    "fpn": FPNHead,
    "panoptic_fpn": PanopticFPNHead,
    "panoptic_fpn_shared": SharedPanopticFPNHead,
    "psp": PSPHead,
    "psp_auxiliary": PSPAuxiliaryHead,
    "refinenet": RefineNetHead,
    "segformer": SegFormerHead,
    "separable": SeparableHead,
    "upernet": UPerNetHead,
    "upscale": UpscaleHead,
    "upscale_pyramid": UpscalePyramidHead,
}
"""Name to a builder of a head, which needs ``num_classes``."""

PYRAMIDS = {"resample": ResamplePyramid, "deconv": DeconvPyramid}
"""Name to what makes levels of four sizes of a plain transformer's features."""


def build_segmenter(
    backbone: str,
    head: str,
    num_classes: int = len(CITYSCAPES),
    *,
    hrda: bool = False,
    auxiliary: str | None = None,
    relight: bool = False,
    pyramid: str | None = None,
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
        auxiliary: key of ``HEADS`` for a second classifier; not together with ``hrda``.
        relight: relight images in front of the backbone with DANNet's network; not with ``hrda``.
        pyramid: key of ``PYRAMIDS``, what makes features of four sizes of a plain transformer's for heads that expect
            them; not with ``hrda``.
        dtype: compute dtype of all parts.
        **kwargs: attributes of the backbone, the heads, HRDA's attention or the relighting network,
            with the prefix ``backbone_``, ``head_``, ``auxiliary_``, ``attention_`` or ``relight_``,
            such as ``head_dropout=0.0``.

    Raises:
        UserError: for a name or an attribute that does not exist, or ``hrda`` together with
            ``auxiliary``, ``relight`` or a backbone of one stride.
    """
    builders = {
        "backbone": choose(BACKBONES, backbone, "model.backbone"),
        "head": choose(HEADS, head, "model.head"),
    }
    if hrda and (auxiliary or relight):
        raise UserError("HRDA has no auxiliary classifier and no relighting; leave out hrda, or auxiliary and relight")
    if hrda:
        builders["attention"] = SegFormerHead
    if auxiliary:
        builders["auxiliary"] = choose(HEADS, auxiliary, "model.auxiliary")
    if relight:
        builders["relight"] = RelightNet
    if pyramid:
        builders["pyramid"] = choose(PYRAMIDS, pyramid, "model.pyramid")
    options = {part: {} for part in builders}
    known = {f"{part}_{name}": (part, name) for part, builder in builders.items() for name in _attributes(builder)}
    for name, value in kwargs.items():
        if name not in known:
            raise UserError(f"no model option {name!r} for {backbone} + {head}{suggestion(name, known)}")
        part, attribute = known[name]
        options[part][attribute] = tuple(value) if isinstance(value, list) else value
    parts = {}
    for part, builder in builders.items():
        classes = {} if part in ("backbone", "relight", "pyramid") else {"num_classes": num_classes}
        parts[part] = builder(**classes, dtype=dtype, **options[part])
    if hrda and (pyramid or fit_of(parts["backbone"])):
        raise UserError(
            f"HRDA needs a backbone of strides 4 to 32, and {backbone} has one stride: leave out hrda, or choose a MiT"
        )
    if hrda:
        attention = parts.pop("attention")
        return HRDA(**parts, hrda_scale_attention=attention)
    return Segmenter(**parts)


def _attributes(builder: Any) -> list[str]:
    """Attributes that may be overridden by the caller of ``build_segmenter``."""
    module = getattr(builder, "func", builder)
    reserved = ("parent", "name", "dtype", "num_classes")
    return [field.name for field in dataclasses.fields(module) if field.name not in reserved]
