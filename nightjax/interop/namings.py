# SPDX-License-Identifier: Apache-2.0
"""Families of published checkpoints: how each calls our parameters, and what of it we do not need.

Facts: the goldens' lists of names, NVlabs/SegFormer, open-mmlab/mmsegmentation (mit2mmseg.py),
huggingface/transformers (models/segformer), lhoyer/DAFormer, HRDA and MIC, brdav/refign,
W-zx-Y/DANNet, wasidennis/AdaptSegNet, torchvision.
"""

import dataclasses
import fnmatch
from collections.abc import Callable, Collection, Iterable, Mapping

import numpy as np

from nightjax.core.config import choose
from nightjax.core.errors import UserError
from nightjax.interop.dinov2_names import HUB, TRANSFORMERS_FILES, TRANSFORMERS_STATE, check_registers, unwrapped
from nightjax.interop.mit_names import HUGGINGFACE_FILES, HUGGINGFACE_STATE, mmseg_mit
from nightjax.interop.official_names import DANNET, LayoutChange, from_official, renameable, to_official
from nightjax.interop.swin_names import SWIN, SWIN_CHANGES
from nightjax.interop.wrappers import AVERAGES, prefixes, unwrap

State = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Naming:
    """One family.

    Attributes:
        about: what is published under these names.
        signature: glob of a name by which a checkpoint of the family is known.
        table, changes: see `official_names`.
        unused: globs of official names that are no part of our networks.
        also: glob of a second name that such a checkpoint has.
        unwrap: what takes off the wrappings of such a checkpoint's names before all else.
        check: refuses a file that is for another model: ``(path, its names, our names of the model)``.
    """

    about: str
    signature: str
    table: Mapping[str, str]
    changes: tuple[LayoutChange, ...] = ()
    unused: tuple[str, ...] = ()
    also: str = "*"
    unwrap: Callable[[State], dict[str, np.ndarray]] = dict
    check: Callable[[str, Collection[str], Collection[str]], None] | None = None

    def to_ours(self, state: State) -> dict[str, np.ndarray]:
        """An official state dict under our names; names that fit nowhere stay."""
        return from_official(self.unwrap(state), self.table, self.changes)

    def to_official(self, state: State) -> dict[str, np.ndarray]:
        """The inverse."""
        return to_official(state, self.table, self.changes)

    def renameable(self, ours: Iterable[str]) -> list[str]:
        """Those of our names that the family has a name for."""
        return renameable(ours, self.table, self.changes)


def recognize(
    state: State, ours: Collection[str], path: str, naming: str = ""
) -> tuple[str, dict[str, np.ndarray], int]:
    """The family of a checkpoint, and its names without prefixes.

    Args:
        state: official names to arrays, possibly all behind a prefix.
        ours: our names of the model's parameters.
        path: of the file, for errors.
        naming: key of `NAMINGS`, if it is known.

    Returns:
        Key of `NAMINGS`, names without prefix to arrays, and how many entries of other networks were left out.

    Raises:
        UserError: no family has such names.
    """
    known = {naming: lookup(naming)} if naming else NAMINGS
    found = unwrap(state, lambda part: bool(_families(part, ours, known)))
    if found is not None:
        part, others = found
        return _families(part, ours, known)[0], part, others
    if naming:  # It may have the names of the family, but for its signature.
        return naming, dict(state), 0
    begin = ", ".join(f"{name} ({count})" for name, count in list(prefixes(state).items())[:6]) or "none"
    raise UserError(
        f"{path} holds no weights for this model under any known names (they begin with {begin}): check file and "
        f"config, or force one of {', '.join(NAMINGS)} with --naming"
    )


def _families(state: State, ours: Collection[str], known: Mapping[str, Naming]) -> list[str]:
    """The families whose signatures are there and that have names for parameters of the model."""
    signed = lambda family: fnmatch.filter(state, family.signature) and fnmatch.filter(state, family.also)
    return [name for name, family in known.items() if signed(family) and family.renameable(ours)]


def lookup(name: str) -> Naming:
    """A family by its key of `NAMINGS`, or a UserError with a suggestion."""
    return choose(NAMINGS, name, "naming")


def one_network(state: State, which: str, path: str) -> tuple[dict[str, np.ndarray], int]:
    """The student or the teacher of a checkpoint that holds both; other checkpoints whole.

    Args:
        state: official names to arrays.
        which: ``"student"`` or ``"teacher"``.
        path: of the file, for errors.

    Returns:
        Its names without the network's prefix to arrays, and how many entries of other networks were left out.

    Raises:
        UserError: there is no such network.
    """
    if which not in ("student", "teacher"):
        raise UserError(f"a checkpoint has no {which!r} network; choose student or teacher")
    if any(name.startswith(("model.backbone.", "ema_model.backbone.")) for name in state):  # mmseg's UDA wrapper
        prefix, others = {"student": "model.", "teacher": "ema_model."}[which], ()
    elif any(name.startswith("m_backbone.") for name in state):  # Refign's Lightning module
        prefix, others = {"student": ("", ("m_", "imnet_")), "teacher": ("m_", ())}[which]
    elif prefix := next((name for name in AVERAGES if any(entry.startswith(f"{name}.") for entry in state)), ""):
        prefix, others = (f"{prefix}.", ()) if which == "teacher" else ("", (f"{prefix}.",))
        if which == "student" and all(name.startswith(others) for name in state):
            return dict(state), 0  # The average is all there is.
    elif which == "teacher":
        raise UserError(f"{path} holds one network only, no teacher; leave out --network")
    else:
        return dict(state), 0
    found = {
        name.removeprefix(prefix): value
        for name, value in state.items()
        if name.startswith(prefix) and not name.startswith(others)
    }
    if not found:
        raise UserError(f"{path} holds no {which}; choose the other network with --network")
    return found, len(state) - len(found)


def _levels_reversed(weight: np.ndarray) -> tuple[np.ndarray]:
    """The input channels of a fusion of four levels, fine to coarse or coarse to fine; its own inverse."""
    levels = weight.reshape(len(weight), 4, -1, *weight.shape[2:])
    return (levels[:, ::-1].reshape(weight.shape),)


def _fusion(theirs: str, ours: str) -> LayoutChange:
    return LayoutChange((f"{theirs}.conv.weight",), (f"{ours}.conv.weight",), _levels_reversed, _levels_reversed)


_STAGES = (1, 2, 3, 4)
_MMSEG = {"backbone": "backbone", "decode_head": "head", "auxiliary_head": "auxiliary"}
_CONSTANTS = ("*.relative_position_index", "*.attn_mask")  # What a Swin's configuration determines.
_SAME = ("backbone", "head", "hrda_scale_attention", "alignment_backbone", "alignment_head")
_ATTENTION = {
    "decode_head.scale_attention.fuse_layer": "hrda_scale_attention.linear_fuse",
    "decode_head.scale_attention.conv_seg": "hrda_scale_attention.linear_pred",
    **{
        f"decode_head.scale_attention.embed_layers.{stage - 1}": f"hrda_scale_attention.linear_c{stage}"
        for stage in _STAGES
    },
}
_ATTENTION_FUSION = _fusion("decode_head.scale_attention.fuse_layer", "hrda_scale_attention.linear_fuse")
_MMSEG_MIT, _MMSEG_MIT_CHANGES = mmseg_mit("backbone.")
_MMSEG_SEGFORMER = {
    "decode_head.fusion_conv": "head.linear_fuse",
    "decode_head.conv_seg": "head.linear_pred",
    **{f"decode_head.convs.{i - 1}.{part}": f"head.linear_c{i}.{part}" for i in _STAGES for part in ("conv", "bn")},
}

_DINOV2 = {"unused": ("*head.*", "*classifier.*"), "unwrap": unwrapped, "check": check_registers}

NAMINGS = {
    "dannet_pspnet": Naming("DANNet's PSPNet", "dsn.0.weight", DANNET["pspnet"]),
    "dannet_deeplab": Naming(
        "DANNet's and AdaptSegNet's DeepLab-v2, and the network AdaptSegNet starts from, whose layer5 is another one",
        "layer5.conv2d_list.0.weight",
        DANNET["deeplab"],
    ),
    "dannet_refinenet": Naming("DANNet's RefineNet", "clf_conv.weight", DANNET["refinenet"]),
    "dannet_light": Naming("DANNet's relighting network", "model.10.conv_block.1.weight", {"model": "relight.model"}),
    "resnet": Naming(
        "torchvision's ResNet-18, 50, 101 and open-mmlab's ResNet v1c, ImageNet",
        "layer1.0.conv1.weight",
        {part: f"backbone.{part}" for part in ("conv1", "bn1", "stem", "layer1", "layer2", "layer3", "layer4")},
        unused=("fc.*",),
    ),
    "vgg16": Naming(
        "torchvision's VGG-16, ImageNet",
        "features.0.weight",
        {"features": "alignment_backbone.features"},
        unused=("classifier.*",),
    ),
    "swin": Naming(
        "Swin Transformer T, S and B, ImageNet: all but the norms of UPerNet's features (backbone.norm*)",
        "layers.0.blocks.0.attn.qkv.weight",
        SWIN,
        SWIN_CHANGES,
        unused=("norm.*", "head.*", *_CONSTANTS),
    ),
    "dinov2": Naming(
        "DINOv2's ViT-S, B, L and g, with and without registers, as facebookresearch/dinov2 has them",
        "*blocks.0.*ls1.gamma",
        HUB,
        **_DINOV2,
    ),
    "huggingface_dinov2": Naming(
        "transformers' Dinov2 and Dinov2WithRegisters, as its files have them",
        "*encoder.layer.0.attention.attention.query.weight",
        *TRANSFORMERS_FILES,
        also="*encoder.layer.0.layer_scale1.lambda1",
        **_DINOV2,
    ),
    "huggingface_dinov2_5": Naming(
        "transformers' Dinov2 and Dinov2WithRegisters, as state_dict() of its version 5 has them",
        "*encoder.layer.0.attention.q_proj.weight",
        *TRANSFORMERS_STATE,
        also="*encoder.layer.0.layer_scale1.lambda1",
        **_DINOV2,
    ),
    "mit": Naming(
        "NVlabs' MiT-B0 to B5, ImageNet",
        "patch_embed1.proj.weight",
        {f"{part}{i}": f"backbone.{part}{i}" for part in ("patch_embed", "block", "norm") for i in _STAGES},
        unused=("head.*",),
    ),
    "segformer": Naming(
        "NVlabs' SegFormer-B0 to B5",
        "decode_head.linear_c4.proj.weight",
        _MMSEG,
        unused=("decode_head.conv_seg.*",),
    ),
    "mmseg_mit": Naming("mmsegmentation's MiT, ImageNet", "layers.0.0.projection.weight", *mmseg_mit("")),
    "mmseg_segformer": Naming(
        "mmsegmentation's SegFormer-B0 to B5, whose head has norms (model.head_level_norm, config argument "
        "model=mmseg_segformer)",
        "backbone.layers.0.0.projection.weight",
        _MMSEG_MIT | _MMSEG_SEGFORMER,
        (*_MMSEG_MIT_CHANGES, _fusion("decode_head.fusion_conv", "head.linear_fuse")),
    ),
    "huggingface_segformer": Naming(
        "transformers' SegFormer, as its files have it",
        "segformer.encoder.patch_embeddings.0.proj.weight",
        *HUGGINGFACE_FILES,
        unused=("classifier.*",),
    ),
    "huggingface_segformer_5": Naming(
        "transformers' SegFormer, as state_dict() of its version 5 has it",
        "segformer.stages.0.patch_embeddings.proj.weight",
        *HUGGINGFACE_STATE,
        unused=("classifier.*",),
    ),
    "hrda": Naming(
        "HRDA, and MIC on HRDA",
        "decode_head.scale_attention.conv_seg.weight",
        {"backbone": "backbone", **_ATTENTION, "decode_head.head": "head"},
        (_ATTENTION_FUSION,),
    ),
    "dlv2": Naming(
        "DeepLab-v2 of DAFormer's code",
        "decode_head.aspp_modules.0.conv.bias",
        {"backbone": "backbone", "decode_head.aspp_modules.*.conv": "head.conv2d_list.*"},
    ),
    "mmseg": Naming(
        "DAFormer, MIC on DAFormer; DeepLab-v3+ and UPerNet of mmsegmentation",
        "decode_head.conv_seg.weight",
        _MMSEG,
        unused=_CONSTANTS,
    ),
    "uawarpc": Naming(
        "Refign's matcher, alone or in a checkpoint of Refign",
        "alignment_head.decoder4.predict_mapping.weight",
        {part: part for part in _SAME if part.startswith("alignment_")},
        unused=("backbone.*", "head.*", "hrda_scale_attention.*"),
    ),
    "dsr_fpa_refinenet": Naming(
        "DSR+FPA's RefineNet (DSRNSS), which has its decoder in the backbone",
        "backbone.clf_conv.weight",
        {f"backbone.{part}".rstrip("."): ours for part, ours in DANNET["refinenet"].items()},
        unused=("alignment_*",),
    ),
    "refign": Naming(
        "Refign and DSR+FPA (DSRNSS)",
        "backbone.*",
        {part: part for part in _SAME},
        unused=("alignment_*",),
    ),
}
"""Families by name, the more particular ones first."""
