"""Heads, pyramids and fits of plain vision transformers against the official programs."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.interop.torch_weights import to_torch
from nightjax.models import build_segmenter
from nightjax.models.fit import PatchFit
from nightjax.models.heads.bn_linear import BNLinearHead
from nightjax.models.heads.upscale import UpscalePyramidHead
from nightjax.models.pyramid import DeconvPyramid, ResamplePyramid
from nightjax.ops.masking import kept_pixels, masked_tokens
from nightjax.ops.resize import resize
from tests.helpers.golden import assert_within, every, nchw, nhwc, normalized, number, same_gradient
from tests.helpers.modern import recipe_variables

ALL = ("stage1", "stage2", "stage3", "stage4")


@pytest.mark.parametrize(("case", "stages"), [("linear", ("stage4",)), ("four", ALL)])
def test_bn_head(golden, case, stages):
    file = golden("modern", "bn_head")
    features = {f"stage{i + 1}": nhwc(file[f"feature{i}"]) for i in range(4)}
    model = BNLinearHead(num_classes=file[f"{case}.out_eval"].shape[1], stages=stages)
    variables = recipe_variables(model, file["base_seed"], features)
    assert_within(nchw(model.apply(variables, features)), file[f"{case}.out_eval"], 1e-4, "eval")

    def loss(params, features):
        given = {"params": params, "batch_stats": variables["batch_stats"]}
        logits, update = model.apply(given, features, train=True, mutable=["batch_stats"])
        return jnp.sum(logits * nhwc(file[f"{case}.cotangent"])), (logits, update["batch_stats"])

    grads, (logits, stats) = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(variables["params"], features)
    assert_within(nchw(logits), file[f"{case}.out_train"], 1e-3, "train")
    same_gradient(grads[1]["stage4"], file[f"{case}.grad_feature3"], "feature3")
    for name, value in to_torch({"params": grads[0]}).items():
        if f"{case}.grad.{name}" in file:
            expected = file[f"{case}.grad.{name}"]
            assert_within(value.reshape(expected.shape), expected, 1e-4, name)
    after = to_torch({"params": {}, "batch_stats": stats})
    for name in ("bn.running_mean", "bn.running_var"):
        assert_within(after[name], file[f"{case}.after_train.{name}"], 1e-4, name)


def test_bn_head_of_two_sizes(golden):
    file = golden("modern", "bn_head")
    features = {"stage1": nhwc(file["feature0"]), "stage2": nhwc(file["two_sizes.feature1"])}
    model = BNLinearHead(num_classes=file["two_sizes.out_eval"].shape[1], stages=("stage1", "stage2"))
    variables = recipe_variables(model, file["base_seed"], features)
    assert_within(nchw(model.apply(variables, features)), file["two_sizes.out_eval"], 1e-4)


def test_padding(golden):
    file = golden("modern", "bn_head")
    fit = PatchFit("pad", 14)
    for size, (left, right, top, bottom) in zip(
        file["padding.sizes"].tolist(), file["padding.left_right_top_bottom"].tolist(), strict=True
    ):
        assert fit.borders(size) == ((top, bottom), (left, right)), size
    np.testing.assert_array_equal(nchw(fit.image(nhwc(file["padding.x"]))), file["padding.y"])


def test_padding_is_cut_off_the_logits(golden):
    """A whole network on an image that is no multiple of the patch; mmsegmentation squeezes the logits instead."""
    file = golden("modern", "bn_head")
    x = normalized(file["e2e.x_uint8"])
    classes = file["e2e.logits"].shape[1]
    model = build_segmenter("dinov2_tiny", "bn_linear", classes, backbone_fit="pad", head_stages=ALL)
    official = lambda name: re.sub(r"^(backbone|head)\.", "", name)
    variables = recipe_variables(model, file["base_seed"] + 1, x, rename=official)
    features = model.apply(variables, x, method="backbone_features")
    head = model.head.apply({name: tree["head"] for name, tree in variables.items() if "head" in tree}, features)
    assert_within(nchw(head), file["e2e.logits"], 1e-4, "padded")
    logits = model.apply(variables, x)["logits"]
    assert logits.shape[1:3] == x.shape[1:3]
    assert_within(nchw(logits)[:, :, ::5, ::5], file["e2e.cropped_every5"], 1e-4, "cropped")
    squeezed = resize(head, x.shape[1:3], align_corners=False)
    assert_within(nchw(squeezed)[:, :, ::5, ::5], file["e2e.official_squeezed_every5"], 1e-4, "squeezed")


def vfm_uda(file):
    """The network of the file and its weights, for whatever size."""
    options = {f"backbone_{name}": number(file[name]) for name in ("dim", "depth", "heads", "pretrain_size")}
    depth = number(file["depth"])
    classes = file["logits_at_head_every3"].shape[1]
    model = build_segmenter(
        "dinov2_tiny",
        "upscale",
        classes,
        backbone_fit="resize",
        backbone_layers=(depth - 1,),
        head_stage="stage1",
        **options,
    )
    official = lambda name: name.replace("backbone.", "encoder.").removeprefix("head.")
    return model, recipe_variables(model, file["base_seed"], normalized(file["x_uint8"]), rename=official)


def test_vfm_uda_network(golden):
    file = golden("modern", "vfm_uda_head")
    model, variables = vfm_uda(file)
    x = normalized(file["x_uint8"])
    size = (number(file["image_size"]),) * 2
    for side, wanted in file["input_sizes"].tolist():
        assert PatchFit("resize", 14).sides((side, side)) == (wanted, wanted)

    @jax.jit
    def run(variables, x, token_mask):
        outputs = model.apply(variables, x, token_mask=token_mask)
        whole = resize(outputs["logits"], size, align_corners=False)
        return outputs["stage1"], outputs["logits"], whole

    def assert_logits(whole, name):
        assert_within(nchw(whole)[:, :, ::5, ::5], file[name], 1e-4, name)

    none = jnp.zeros(file["token_draws"].shape, bool)
    features, logits, whole = run(variables, x, none)
    assert_within(nchw(features), file["features"], 1e-4, "features")
    expected, step = every(file, r"logits_at_head_every(\d+)")
    assert_within(nchw(logits)[:, :, ::step, ::step], expected, 1e-4, "logits")
    assert_logits(whole, "logits_every5px")
    ratio = float(file["mask_ratio"])
    mask = masked_tokens(jnp.asarray(file["token_draws"]), ratio)
    assert_logits(run(variables, x, mask)[2], "masked_logits_every5px")

    def loss(variables):
        logits = model.apply(variables, x, token_mask=mask, train=True)["logits"]
        whole = resize(logits, size, align_corners=False)
        return jnp.sum(whole[:, ::5, ::5] * nhwc(file["cotangent_every5px"]))

    grads = to_torch(jax.jit(jax.grad(loss))(variables), model.stacks)
    for name in [name for name in file if name.startswith("masked.grad.")]:
        official = name.removeprefix("masked.grad.")
        ours = official.replace("encoder.", "backbone.") if official.startswith("encoder.") else f"head.{official}"
        assert_within(grads[ours], file[name], 1e-4, name)


def test_vfm_uda_blocks(golden):
    """The other masking hides blocks of the resized image."""
    file = golden("modern", "vfm_uda_head")
    model, variables = vfm_uda(file)
    x = model.backbone.image_fit.image(normalized(file["x_uint8"]))
    kept = kept_pixels(jnp.asarray(file["block_draws"][:, 0]), x.shape[1:3], float(file["mask_ratio"]))
    whole = model.clone(backbone=model.backbone.clone(fit="none"))
    logits = whole.apply(variables, jnp.where(kept[..., None], x, 0.0))["logits"]
    size = (number(file["image_size"]),) * 2
    logits = resize(logits, size, align_corners=False)
    assert_within(nchw(logits)[:, :, ::5, ::5], file["block_masked_logits_every5px"], 1e-4)


def test_vfm_uda_pp_pyramid(golden):
    file = golden("modern", "vfm_uda_pp_upscale")
    features = {f"stage{i}": nhwc(file[f"f{i}"]) for i in range(1, 5)}
    model = UpscalePyramidHead(num_classes=3)
    variables = recipe_variables(model, file["base_seed"], features)

    def fused(train):
        _, kept = model.apply(variables, features, train=train, mutable=["batch_stats", "intermediates"])
        return nchw(kept["intermediates"]["penultimate"][0]), kept.get("batch_stats", {})

    assert_within(fused(False)[0], file["out_eval"], 1e-4, "eval")
    out, stats = fused(True)
    assert_within(out, file["out_train"], 1e-3, "train")
    state = to_torch({"params": {}, "batch_stats": stats})
    for name in [name for name in file if name.startswith("after_train.")]:
        assert_within(state[name.removeprefix("after_train.")], file[name], 1e-4, name)


@pytest.mark.parametrize(("kind", "pyramid"), [("resample", ResamplePyramid()), ("deconv", DeconvPyramid())])
def test_feature_pyramid(golden, kind, pyramid):
    file = golden("modern", "feature_pyramid")
    features = {f"stage{i + 1}": nhwc(file[f"layer{i}"]) for i in range(4)}
    variables = recipe_variables(pyramid, file["base_seed"], features) if kind == "deconv" else {}
    for stage, level in pyramid.apply(variables, features).items():
        expected = file[f"{kind}.{stage}"] if kind == "resample" else file[f"{kind}.{stage}_eval"]
        assert_within(nchw(level), expected, 1e-4, stage)
    if kind == "deconv":
        levels, update = pyramid.apply(variables, features, train=True, mutable=["batch_stats"])
        assert_within(nchw(levels["stage1"]), file["deconv.stage1_train"], 1e-3, "train")
        state = to_torch({"params": {}, "batch_stats": update["batch_stats"]})
        assert_within(state["upsample_4x.1.running_var"], file["deconv.after_train.running_var"], 1e-4)
