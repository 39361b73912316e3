"""Records the first three steps of every method, bit by bit: scalars, and a hash of every array before and after.

    python tests/safety/record_steps.py tests/golden/first_steps.json.gz
    python tests/safety/record_steps.py /tmp/some.json.gz --only dacs dsr_fpa

It reads the checkout that it lies in, wherever nightjax is installed from. `VARIANTS` and the tables before it say what
is recorded; they are plain data, and a renaming of config keys, arguments or files changes them alone. Everything that
touches the library is in one small function each: `load`, `override`, `with_defaults`, `build`, `make_mesh`,
`batch_shapes`, `put_batch`, `first_state`, `compile_step`.

Bits hold for one machine type and one set of library versions, which the record names as its ``fingerprint``: on
another machine record the old commit again before comparing. See `compare_steps`.
"""

import argparse
import gzip
import hashlib
import json
import os
import pathlib
import platform
import re
import sys
import time
import zlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

STEPS = 3
SIZE = (64, 96)
"""(height, width) of crops; not square, so that a mix-up of the two shows."""

CLASSES = (0, 1, 2, 5, 6, 7, 8, 10, 11, 12, 13, 17, 18, 255)
"""Labels that batches hold."""

COMMON = {
    "data.streams.*.crop": SIZE,
    "data.streams.*.resize": SIZE,
    "train.batch": 2,
    "train.devices": 1,
    "train.init": "",
    "model.dtype": "float32",
    "optim.warmup": 0,
}
"""Overrides of every variant; ``*`` is every section there. Variants' own come after them."""

TINY = {
    "model.backbone_widths": (4, 4, 8, 8),
    "model.backbone_depths": (1, 1, 1, 1),
    "model.backbone_dilations": (1, 1, 1, 2),
    "model.backbone_stem_features": 4,
    "model.head_channels": 8,
}
"""Of the network ``tiny`` on ``nightstreet_tiny``."""

RESNET = {
    "backbone": "resnet_tiny",
    "backbone_widths": (4, 4, 8, 8),
    "backbone_depths": (1, 1, 1, 1),
    "backbone_dilations": (1, 1, 1, 2),
    "backbone_stem_features": 4,
    "dtype": "float32",
}
FPN = RESNET | {"head": "fpn", "head_channels": 8}
AUXILIARY = RESNET | {"head": "deeplab_v2", "auxiliary": "deeplab_v2", "auxiliary_stage": "stage3"}
FCN = RESNET | {"head": "fpn", "head_channels": 8, "auxiliary": "fcn", "auxiliary_channels": 8}
MIT = {"backbone": "mit_tiny", "head": "daformer", "head_embed_dim": 8, "head_channels": 8, "dtype": "float32"}
SEGFORMER = {"backbone": "mit_tiny", "head": "segformer", "head_channels": 8, "dtype": "float32"}
HRDA = SEGFORMER | {"hrda": True, "attention_channels": 8}
SWIN = {
    "backbone": "swin_tiny", "head": "upernet", "head_channels": 8, "auxiliary": "fcn", "auxiliary_channels": 8,
    "dtype": "float32",
}  # fmt: skip
PANOPTIC = RESNET | {"head": "panoptic_fpn_shared", "head_channels": 8, "head_width": 8}
DEEPLAB3 = RESNET | {"head": "deeplab_v3plus", "head_channels": 8, "head_low_channels": 4}
PSP = RESNET | {
    "head": "psp", "head_channels": 8, "auxiliary": "psp_auxiliary", "auxiliary_channels": 8, "relight": True,
    "relight_features": 2, "relight_blocks": 1,
}  # fmt: skip
REFINENET = RESNET | {"head": "refinenet", "head_channels": 8}
"""Sections ``model`` that replace the config's."""

ACCUMULATE = {"train.batch": 4, "train.accumulate": 2}
VIT = {"model.backbone_dim": 24, "model.head_channels": 8}
FEATURE_DISTANCE = {"method.feature_distance": {"weight": 0.005}}
SURE = {"method.pseudo_labels.threshold": 0.054}
"""A new network is sure of nothing: with the usual threshold pseudo-labels would have no weight. 1/19 is 0.053."""

ANY_MAJORITY = {"method.feature_distance.min_ratio": 0.1}
"""Cells of 32 pixels hold many labels here."""

FORM = {"features": 2, "multipliers": (1, 2, 4, 8), "strides": (2, 2, 2, 2, 2)}
JUDGE = {"method.adversarial.discriminators.network": FORM}
JUDGES = {"method.discriminators.network": FORM}
PULL = {"method.pull.channels": 8, "method.pull.queries": 8, "method.pull.negatives.count": 4}
LIGHT = {"model.relight_features": 2, "model.relight_blocks": 1}
NIGHTLAB = {
    "method.name": "nightlab",
    "method.hard_classes": (5, 6, 17),
    "method.detector": {
        "variant": "tiny",
        "proposals": {"before": 32, "after": 16, "total": 16},
        "anchors_per_image": 32,
        "score_threshold": 0.0,
        "relabeling": {"count": 4},
        "optimizer": {
            "name": "adamw",
            "lr": 2e-3,
            "clip_norm": 1.0,
            "schedule": "warmup_poly",
            "warmup": 0,
            "milestones": (),
            "weight_decay": 0.01,
        },
    },
    "method.geometry": {"size": 32, "min_side": 16.0, "min_area": 4, "max_boxes": 8, "max_regions": 4},
    "method.sampling": {"per_image": 2},
}
"""On top of the image level's config, since the other stages' configs read the run before."""

UNIT = {
    "model.features": 2,
    "model.blocks": 1,
    "method.discriminator.features": 2,
    "method.discriminator.layers": 2,
    "method.discriminator.scales": 2,
}
CYCLEGAN = {"model.features": 2, "model.blocks": 1, "method.discriminator_features": 2, "method.buffer": 3}
PIX2PIXHD = {"model.features": 2, "model.blocks": 1, "model.downsamplings": 2, "method.discriminator_features": 2}

SUPERVISED = "configs/supervised.py:data=nightstreet_tiny,steps=8"
DACS = "configs/dacs.py:data=nightstreet_tiny,steps=8"
DSR = "configs/dsr_fpa.py:data=nightstreet_tiny,steps=8"
T2S = "configs/t2s_da.py:data=nightstreet_tiny,steps=8"
SELF = "configs/self_training.py:data=nightstreet_tiny,steps=8"
TEACHER = "unlabeled=nightstreet/tiny_pairs,split=target_pairs,teacher=runs/first"
VFM = "configs/vfm_uda.py:data=nightstreet_tiny,steps=8"
UNLABELED = "configs/self_supervised.py:data=nightstreet_tiny,steps=8"
DANNET = "configs/dannet.py:data=nightstreet_tiny,steps=8"
ADAPT = "configs/adaptsegnet.py:data=nightstreet_tiny,steps=8"
IMAGE_LEVEL = "configs/nightlab.py:data=nightstreet_tiny,steps=8,stage=image"
MATCHER = "configs/uawarpc.py:data=nightstreet_tiny,steps=8"
DAY_NIGHT = "configs/unit.py:data=nightstreet_tiny,steps=8"
CYCLE = "configs/cyclegan.py:data=nightstreet_tiny,steps=8"
PAIRED = "configs/pix2pixhd.py:data=nightstreet_tiny,steps=8"
PAPER = "data=cityscapes_to_dark_zurich,steps=8"

VARIANTS = {
    # Labeled images alone.
    "supervised": (SUPERVISED, TINY),
    "supervised_photometric_exposure": (f"{SUPERVISED},photometric=1,exposure=1", TINY | {"optim.warmup": 2}),
    "supervised_caffe_focal": (
        f"{SUPERVISED},input=caffe",
        TINY | {"method.loss": {"class_weights": None, "normalizer": "valid", "focal": {"beta": 0.0}}},
    ),
    "supervised_light_joint": (f"{SUPERVISED},relight=1,joint=1,photometric=1", TINY | LIGHT),
    "supervised_auxiliary": (SUPERVISED, {"model": FCN}),
    "supervised_accumulate": (
        SUPERVISED,
        TINY | ACCUMULATE | {"method.loss.focal": {"mode": "batch", "divide_by_batch": True}},
    ),
    "supervised_mit": (SUPERVISED, {"model": MIT}),
    "supervised_segformer_remat": (
        SUPERVISED,
        {"model": SEGFORMER | {"backbone_remat": True, "head_level_norm": True}},
    ),
    "supervised_swin": ("configs/supervised.py:data=nightcity_plus,model=upernet_swin_t,steps=8", {"model": SWIN}),
    "supervised_deeplab_v3plus": (
        "configs/supervised.py:data=nightcity_plus,model=deeplabv3plus,steps=8",
        {"model": DEEPLAB3, "optim.warmup": 1},
    ),
    "supervised_refinenet": (SUPERVISED, {"model": REFINENET}),
    "supervised_bfloat16": (SUPERVISED, TINY | {"model.dtype": "bfloat16"}),
    # Self-training under a fixed teacher.
    "self_training_hard": (f"{SELF},{TEACHER},labels=hard,threshold=0.06", TINY),
    "self_training_soft": (f"{SELF},{TEACHER},labels=soft,photometric=1", TINY | ACCUMULATE),
    "self_training_panoptic_sgd": (
        f"configs/self_training.py:{PAPER},{TEACHER},loss=combined,zigzag=4",
        {"model": PANOPTIC},
    ),
    # DACS.
    "dacs": (DACS, TINY | SURE),
    "dacs_plain": (
        DACS,
        TINY
        | SURE
        | {"method.loss.class_weights": None, "method.mixing.photometric": None, "method.mixing.mode": "classmix"},
    ),
    "dacs_feature_distance": (DACS, TINY | SURE | FEATURE_DISTANCE),
    "dacs_source_photometric_by_image": (
        f"{DACS},photometric=1",
        TINY
        | SURE
        | {
            "method.pseudo_labels.weight_scope": "image",
            "method.pseudo_labels.ignore_top": 8,
            "method.pseudo_labels.ignore_bottom": 4,
            "method.mixing.weight": 0.8,
        },
    ),
    "dacs_accumulate": (
        DACS,
        TINY | SURE | ACCUMULATE | FEATURE_DISTANCE | {"method.pseudo_labels.weight_scope": "image"},
    ),
    "dacs_mit_paper": (f"configs/dacs.py:{PAPER},model=daformer_b0", {"model": MIT} | SURE | ANY_MAJORITY),
    "dacs_hrda": (DACS, {"model": HRDA} | SURE | FEATURE_DISTANCE | ANY_MAJORITY),
    # Masked consistency.
    "dacs_masking": (f"{DACS},masking=target", TINY | SURE),
    "dacs_masking_both_accumulate": (f"{DACS},masking=both", TINY | SURE | ACCUMULATE),
    "dsr_fpa_masking_source": (f"{DSR},masking=source", TINY | SURE | {"method.masking.running_statistics": False}),
    "t2s_da_masking_flip": (f"{T2S},parts=none,masking=auto", TINY | SURE | {"method.pseudo_labels.flip": True}),
    # Plain transformers.
    "vfm_uda": (VFM, VIT | SURE),
    "vfm_uda_distilled": (VFM, VIT | SURE | {"method.distillation": {"backbone": "dinov2_tiny", "size": 42}}),
    "self_supervised": (UNLABELED, VIT),
    "self_supervised_accumulate": (UNLABELED, VIT | ACCUMULATE),
    # DSR+FPA, which starts with FPA at step 2 unless told otherwise.
    "dsr_fpa": (DSR, TINY | SURE | {"method.alignment.start_step": 2}),
    "dsr_fpa_start_0": (DSR, TINY | SURE | {"method.alignment.start_step": 0}),
    "dsr_fpa_none": (f"{DSR},parts=none", TINY | SURE),
    "dsr_fpa_dsr": (f"{DSR},parts=dsr", TINY | SURE),
    "dsr_fpa_fpa": (f"{DSR},parts=fpa", TINY | SURE | {"method.alignment.start_step": 0}),
    "dsr_fpa_refign_adapt_to_ref": (f"{DSR},parts=refign", TINY | SURE | {"method.reference_swap": True}),
    "dsr_fpa_adapt_to_ref": (DSR, TINY | SURE | {"method.reference_swap": True, "method.alignment.start_step": 0}),
    "dsr_fpa_fda": (f"{DSR},fda=1", TINY | SURE),
    "dsr_fpa_true_flow": (f"{DSR},aligner=true_flow", TINY | SURE),
    "dsr_fpa_true_flow_unsure": (
        f"{DSR},aligner=true_flow",
        TINY
        | SURE
        | {"method.refinement.confidence": False, "method.refinement.static": False, "method.refinement.gamma": 0.5},
    ),
    "dsr_fpa_uawarpc": (f"{DSR},aligner=uawarpc,matcher=pretrained/uawarpc", TINY | SURE),
    "dsr_fpa_accumulate": (DSR, TINY | SURE | ACCUMULATE | {"method.alignment.start_step": 0}),
    "dsr_fpa_hrda": (DSR, {"model": HRDA, "method.alignment.start_step": 0} | SURE),
    "dsr_fpa_dannet_weights": (
        DSR,
        TINY | SURE | {"method.alignment.class_weight": "dannet", "method.alignment.start_step": 0},
    ),
    "dsr_fpa_ds_inv_weights": (
        DSR,
        TINY | SURE | FEATURE_DISTANCE | {"method.alignment.class_weight": "ds_inv", "method.alignment.start_step": 0},
    ),
    "dsr_fpa_bank_exposure_photometric": (
        f"{DSR},exposure=1,photometric=1",
        TINY | SURE | {"method.bank.every": 2, "method.bank.size": 2, "method.bank.pasted_weight": "one"},
    ),
    # T2S-DA and its form without target.
    "t2s_da": (T2S, TINY | SURE | PULL),
    "t2s_da_none": (f"{T2S},parts=none", TINY | SURE),
    "t2s_da_fda": (f"{T2S},parts=fda", TINY | SURE),
    "t2s_da_uniform_untranslated": (
        f"{T2S},parts=untranslated,preset=u2pl",
        TINY | SURE | PULL | {"method.pull.exponent": 0.0},
    ),
    "t2s_da_real_target": (f"{T2S},parts=real_target", TINY | SURE | PULL | {"method.pull.start_step": 1}),
    "t2s_da_ring": (T2S, TINY | SURE | PULL | {"method.pull.queue": {"batches": 2, "cells": 16}}),
    "t2s_da_prototypes": (
        T2S,
        TINY
        | SURE
        | PULL
        | FEATURE_DISTANCE
        | {
            "method.pull.prototype_decay": 0.9,
            "method.pull.seen_only": True,
            "method.pull.negatives.min_confidence": 0.06,
            "method.pull.feature": "stage4",
            "method.pull.spacing": 8,
        },
    ),
    "t2s_da_per_query": (
        T2S,
        TINY | SURE | PULL | {"method.pull.negatives.per_query": True, "method.translation.weight": 0.5},
    ),
    "t2s_da_accumulate": (T2S, TINY | SURE | PULL | ACCUMULATE),
    "t2s_da_style": (f"{T2S},style=style.npz", TINY | SURE | PULL),
    "t2s_dg": (f"{T2S},mode=dg", TINY | PULL),
    "t2s_dg_fda": (f"{T2S},mode=dg,parts=fda,photometric=1", TINY | ACCUMULATE),
    # Against discriminators.
    "dannet": (DANNET, TINY | LIGHT | JUDGE),
    "dannet_paper_form": (
        DANNET,
        TINY
        | LIGHT
        | JUDGE
        | {"method.form": "paper", "method.normalizer": "paper", "method.static.neighborhood": "3x3"},
    ),
    "dannet_without_light": (f"{DANNET},without=light", TINY | JUDGE),
    "dannet_without_adversarial": (DANNET, TINY | LIGHT | {"method.adversarial": None}),
    "dannet_without_static_accumulate_vanilla": (
        f"{DANNET},without=static",
        TINY | LIGHT | JUDGE | ACCUMULATE | {"method.adversarial.discriminators.kind": "vanilla"},
    ),
    "dannet_psp_sgd": (
        f"configs/dannet.py:{PAPER}",
        {"model": PSP, "data.streams.target.crop_resize": None, "method.target_size": (48, 64)} | JUDGE,
    ),
    "adaptsegnet": (ADAPT, TINY | JUDGES),
    "adaptsegnet_least_squares": (f"{ADAPT},gan=least_squares", TINY | JUDGES),
    "adaptsegnet_two_levels": (f"configs/adaptsegnet.py:{PAPER}", {"model": AUXILIARY, "optim.groups": ()} | JUDGES),
    "adaptsegnet_two_levels_accumulate": (
        ADAPT,
        {
            "model": AUXILIARY,
            "method.segmentation_weights": (0.1, 1.0),
            "method.adversarial_weights": (0.0002, 0.001),
        }
        | JUDGES
        | ACCUMULATE,
    ),
    # NightLab.
    "nightlab_regions": (IMAGE_LEVEL, TINY | NIGHTLAB | {"method.stage": "regions"}),
    "nightlab_detector": (IMAGE_LEVEL, TINY | NIGHTLAB | {"method.stage": "detector", "method.start": "levels"}),
    "nightlab_hdm": (IMAGE_LEVEL, TINY | NIGHTLAB | {"method.stage": "hdm"}),
    "nightlab_hdm_accumulate": (
        IMAGE_LEVEL,
        TINY
        | NIGHTLAB
        | ACCUMULATE
        | {
            "method.stage": "hdm",
            "method.hard_classes": CLASSES[:-1],
            "method.detector.relabeling.hard_only": True,
            "method.detector.short_side": 96,
        },
    ),
    "nightlab_all": (IMAGE_LEVEL, TINY | NIGHTLAB | {"method.stage": "all", "method.sampling.detected": 0.5}),
    "nightlab_all_share_light": (
        f"{IMAGE_LEVEL},relight=1",
        TINY
        | LIGHT
        | NIGHTLAB
        | {"method.stage": "all", "method.share_relighting": True, "method.geometry.keep_aspect": True},
    ),
    "nightlab_regions_joint_accumulate": (
        f"{IMAGE_LEVEL},relight=1,joint=1",
        TINY | LIGHT | NIGHTLAB | ACCUMULATE | {"method.stage": "regions"},
    ),
    # Matching and translation.
    "uawarpc": (MATCHER, {}),
    "uawarpc_visible_accumulate": (MATCHER, ACCUMULATE | {"method.visible_from": 1}),
    "unit_2018": (DAY_NIGHT, UNIT | {"train.batch": 1}),
    "unit_2017": (f"{DAY_NIGHT},form=unit2017", UNIT),
    "unit_perceptual_accumulate": (
        f"{DAY_NIGHT},vgg=VGG16.npz",
        UNIT | ACCUMULATE | {"method.perceptual.channels": ((4, 4), (4, 4), (8,) * 3, (8,) * 3, (8,) * 3)},
    ),
    "cyclegan": (CYCLE, CYCLEGAN),
    "cyclegan_vanilla_accumulate": (
        CYCLE,
        CYCLEGAN | ACCUMULATE | {"method.adversarial": "vanilla", "method.identity": 0.0},
    ),
    "pix2pixhd_label": (PAIRED, PIX2PIXHD),
    "pix2pixhd_image_local": (
        f"{PAIRED},translates=image",
        PIX2PIXHD | {"model.form": "local", "model.local_blocks": 1},
    ),
    "pix2pixhd_vgg_accumulate": (
        f"{PAIRED},vgg=VGG19.npz",
        PIX2PIXHD | ACCUMULATE | {"method.vgg.channels": ((4, 4), (4, 4), (8,) * 4, (8,) * 4, (8,) * 4)},
    ),
}
"""Name to config and overrides by dotted key. A dict replaces the whole section; keys that do not exist are added."""

STREAM_NAMES = {}
FIELD_NAMES = {}
"""New to old names of streams and fields, after a renaming: the pixels of a batch depend on the old ones."""

ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_force_host_platform_device_count=1 --xla_cpu_multi_thread_eigen=false",
    "PJRT_NPROC": "2",
    "NPROC": "2",
    "JAX_ENABLE_COMPILATION_CACHE": "false",
}
"""Set before JAX is loaded, whatever was set before: one device, sums in one thread, nothing from a cache. The compiler
cuts loops by the number of processors, which changes the bits: with it named, a process that may use one of them has
the same as one with two."""


def load(config: str):
    """The resolved config of ``configs/FILE.py:arguments``, open for changes."""
    from nightjax.run import settings

    resolved = settings.load(str(ROOT / config))
    resolved = resolved.copy_and_resolve_references().unlock()
    resolved.train.frozen = dict.fromkeys(resolved.train.frozen)
    if "refinement" in resolved.method and resolved.method.refinement:
        with resolved.ignore_type():  # A reference is text, what it stands for is a section.
            resolved.method.refinement.matcher_input = {}
    return resolved


def override(config, values: dict):
    """Changes a config by dotted key; see `VARIANTS`. Locks it."""
    import ml_collections

    for key, value in values.items():
        if key == "model" and "input" in config.model:
            value = value | {"input": config.model.input.to_dict()}
        sections = [config]
        *names, last = key.split(".")
        for name in names:
            sections = [s for section in sections for s in (section.values() if name == "*" else [section[name]])]
        for section in sections:
            with section.ignore_type():
                section[last] = ml_collections.ConfigDict(value) if isinstance(value, dict) else value
    return config.lock()


def with_defaults(config):
    """The config with the defaults of sections that an override put in."""
    from nightjax.run import settings

    return settings.complete(config)


def build(config):
    """The method of a config."""
    from nightjax import methods

    return methods.build(config)


def make_mesh():
    """Of one device."""
    import jax

    from nightjax.core import sharding

    return sharding.make_mesh(jax.devices()[:1])


def batch_shapes(config, method) -> dict:
    """Stream to field to shape and dtype of one batch."""
    from nightjax.run import start

    return start.batch_shapes(start.stream_specs(config, method), config.train.batch)


def put_batch(batch: dict, mesh):
    """A batch of numpy arrays on the mesh."""
    from nightjax.core import sharding

    return sharding.put_batch(batch, mesh)


def first_state(config, method, mesh):
    """A fresh state as training starts from."""
    from nightjax.run import start

    return start.first_state(config, method, mesh)


def compile_step(config, method, mesh):
    """``(state, batch) -> (state, scalars)``, compiled as training does it."""
    from nightjax.run import start
    from nightjax.train import compile_step as compile_one

    batch = start.abstract_batch(config, method, mesh)
    return compile_one(method, start.abstract_state(config, method, mesh), batch, mesh)


def random_batch(shapes: dict, step: int) -> dict:
    """Images of colored blocks with noise, blocky labels, gentle flow. Depends on step, stream and field alone."""
    return {
        stream: {
            field: random_field(STREAM_NAMES.get(stream, stream), field, leaf, step) for field, leaf in fields.items()
        }
        for stream, fields in shapes.items()
    }


def random_field(stream: str, field: str, leaf, step: int):
    """One array of a batch."""
    import numpy as np

    field, shape = FIELD_NAMES.get(field, field), leaf.shape
    own = np.random.default_rng([step, zlib.crc32(stream.encode()), zlib.crc32(field.encode())])
    if field == "mask":
        return np.ones(shape, leaf.dtype)
    batch, height, width = shape[:3]
    layout = np.random.default_rng([step, zlib.crc32(stream.encode())]).integers(0, len(CLASSES), (batch, 8, 12))
    layout = layout.repeat(-(-height // 8), 1).repeat(-(-width // 12), 2)[:, :height, :width]
    if field == "label":
        found = np.asarray(CLASSES)[layout]
    elif field in ("image", "reference"):
        colors = np.random.default_rng(0).integers(0, 256, (len(CLASSES), 3))
        bright = {"image": 0.5 if stream == "target" else 1.0, "reference": 1.0}[field]
        found = np.clip(colors[layout] * bright + own.normal(0, 20, shape), 0, 255)
    elif field == "flow":
        found = own.normal(0, 1.5, (batch, 1, 1, 2)) + own.normal(0, 0.3, shape)
    elif field in ("flow_valid", "invalid"):
        found = own.random(shape) < {"flow_valid": 0.9, "invalid": 0.1}[field]
    else:
        sys.exit(f"no rule for the field {field!r} of {stream!r}")
    return np.ascontiguousarray(found.astype(leaf.dtype))


def arrays(state) -> list:
    """[path, shape, dtype, first 16 digits of the SHA-256 of its bytes] of every array, by path."""
    import jax
    import numpy as np

    found = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        value = np.asarray(leaf)
        digest = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()[:16]
        found.append(
            [jax.tree_util.keystr(path, simple=True, separator="/"), list(value.shape), str(value.dtype), digest]
        )
    return sorted(found)


def exact(scalar) -> list[str]:
    """Every number of a scalar (some are short vectors) as exact text."""
    import numpy as np

    return [float(x).hex() for x in np.asarray(scalar, np.float64).ravel()]


def record(variant: str) -> dict:
    """The first steps of one variant."""
    began = time.perf_counter()
    config, own = VARIANTS[variant]
    config = load(config)
    common = {
        key: value
        for key, value in COMMON.items()
        if key not in own and not ("model" in own and key.startswith("model."))
    }
    config = with_defaults(override(config, common | own))
    method, mesh = build(config), make_mesh()
    shapes = batch_shapes(config, method)
    state = first_state(config, method, mesh)
    first, scalars = arrays(state), []
    step = compile_step(config, method, mesh)
    for i in range(STEPS):
        state, logged = step(state, put_batch(random_batch(shapes, i), mesh))
        scalars.append({name: exact(value) for name, value in logged.items()})
    final = arrays(state)
    return {
        "batch": {
            stream: {f: [list(x.shape), str(x.dtype)] for f, x in fields.items()} for stream, fields in shapes.items()
        },
        "first": first,
        "scalars": scalars,
        "final": final,
        "seconds": round(time.perf_counter() - began, 1),
    }


def fingerprint() -> dict:
    """What the bits depend on besides the code."""
    import flax
    import jax
    import jaxlib
    import numpy
    import optax

    text = pathlib.Path("/proc/cpuinfo").read_text() if os.path.exists("/proc/cpuinfo") else ""
    cpu = {name: re.search(rf"^{name}\s*: (.*)$", text, re.MULTILINE) for name in ("model name", "flags")}
    cpu = {name: match[1] if match else "" for name, match in cpu.items()}
    return {
        **{module.__name__: module.__version__ for module in (jax, jaxlib, flax, optax, numpy)},
        "python": platform.python_version(),
        "cpu": cpu["model name"],
        "cpu_flags": hashlib.sha256(" ".join(sorted(cpu["flags"].split())).encode()).hexdigest()[:16],
        "environment": ENVIRONMENT,
    }


def check_checkout() -> None:
    """Refuses to record another checkout than its own."""
    import nightjax

    if ROOT not in pathlib.Path(nightjax.__file__).resolve().parents:
        sys.exit(f"nightjax comes from {nightjax.__file__}, not from {ROOT}")


def write(path: str, content: dict) -> None:
    """Gzipped JSON, the same bytes for the same content."""
    with (
        open(path, "wb") as file,
        gzip.GzipFile(fileobj=file, mode="wb", mtime=0, filename="", compresslevel=9) as packed,
    ):
        packed.write(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())


def main() -> None:
    """Records all variants, or some."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output")
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), metavar="VARIANT", help="record these alone")
    parser.add_argument("--keep", action="store_true", help="keep the other variants that the output holds already")
    given = parser.parse_args()
    os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
    os.environ.update(ENVIRONMENT)
    import jax

    check_checkout()
    found, broken = {}, {}
    if given.keep and os.path.exists(given.output):
        with gzip.open(given.output) as file:
            held = json.load(file)
        if held["fingerprint"] != fingerprint():
            sys.exit(f"{given.output} was recorded elsewhere; record all of it again")
        found = held["variants"]
    for variant in given.only or VARIANTS:
        try:
            found[variant] = record(variant)
            print(f"{variant}: {found[variant]['seconds']} s, {len(found[variant]['final'])} arrays", flush=True)
        except Exception as error:  # The others are worth having; the exit code tells.
            broken[variant] = error
            print(f"{variant}: {type(error).__name__}: {error}", flush=True)
        write(given.output, {"fingerprint": fingerprint(), "variants": found})
        jax.clear_caches()
    print(f"{len(found)} variants, {os.path.getsize(given.output) / 1e3:.0f} kB")
    if broken:
        sys.exit(f"{len(broken)} failed: {', '.join(broken)}")


if __name__ == "__main__":
    main()
