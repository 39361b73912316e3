"""VGG-16 and UAWarpC against the official programs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.interop.torch_weights import from_torch, to_torch
from nightjax.methods.parts.aligners import UAWarpC
from nightjax.models.backbones.vgg import VGG
from nightjax.models.matcher import (
    FlowDecoder,
    Matcher,
    Refinement,
    Uncertainty,
    global_correlation,
    global_products,
    local_correlation,
    local_products,
    unit,
)
from nightjax.ops.warp import flow_confidence, flow_warp
from tests.helpers.golden import assert_within, nchw, nhwc, normalized, number, sizes, thinned


def template(model, *args):
    shapes = jax.eval_shape(model.init, jax.random.key(0), *args)
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


def recipe_weights(recipe, variables, seed_of):
    """Recipe weights; ``seed_of`` maps the first part of a name to (prefix to drop, seed)."""
    weights = {}
    for name, value in to_torch(variables).items():
        prefix, seed = seed_of(name.split(".")[0])
        weights[name] = recipe(name.removeprefix(prefix), value.shape, seed)
    return from_torch(weights, variables)


def test_vgg16(golden, recipe):
    file = golden("dsr_fpa", "vgg16_recipe")
    model, x = VGG(), nhwc(file["x"])
    variables = recipe_weights(recipe, template(model, x), lambda _: ("", number(file["base_seed"])))
    out = {name: nchw(value) for name, value in jax.jit(model.apply)(variables, x).items()}
    for name in ("relu1_1", "pool1"):
        pixels = file[f"{name}_pix"]
        assert_within(out[name][0, : len(pixels)], pixels, 1e-4, name)
    assert_within(thinned(out["pool2"], file["pool2"], 4, axes=(1,)), file["pool2"], 1e-4, "pool2")
    for name in ("pool3", "pool4", "pool5"):
        assert_within(out[name], file[name], 1e-4, name)


def test_correlation(golden):
    file = golden("dsr_fpa", "correlation")
    local = nhwc(file["local_source"]), nhwc(file["local_target"])
    assert_within(nchw(local_products(*local)), file["local_raw"], 1e-4, "local products")
    assert_within(nchw(local_correlation(*local)), file["local_out"], 1e-4, "local")
    all_pairs = nhwc(file["global_source"]), nhwc(file["global_target"])
    assert_within(nchw(global_products(*all_pairs)), file["global_raw"], 1e-4, "global products")
    assert_within(nchw(global_correlation(*all_pairs)), file["global_out"], 1e-4, "global")


@pytest.mark.parametrize(
    "name, module",
    [
        ("flow_decoder", FlowDecoder()),
        ("refinement", Refinement()),
        ("uncertainty9", Uncertainty()),
        ("uncertainty16", Uncertainty()),
    ],
)
def test_modules(golden, recipe, name, module):
    file = golden("dsr_fpa", "uawarpc_modules")
    stored = [nhwc(file[key]) for key in sorted(file) if key.startswith(f"{name}.in")]
    variables = template(module, *stored)
    shapes = {key: list(value.shape) for key, value in to_torch(variables, counters=True).items()}
    assert shapes == golden.official_names("dsr_fpa")["refign_naming"][f"module_{name}"]
    variables = recipe_weights(recipe, variables, lambda _: ("", number(file["base_seed"])))
    outputs = jax.jit(module.apply)(variables, *stored)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    for i, output in enumerate(outputs):
        assert_within(nchw(output), file[f"{name}.out{i}"], 1e-4, f"{name} {i}")


@pytest.mark.slow
def test_align(golden, recipe):
    file = golden("dsr_fpa", "uawarpc_recipe")
    day, night = (normalized(file[f"image_{name}_uint8"]) for name in ("ref", "trg"))
    model = Matcher()
    seeds = {
        "alignment_backbone": ("alignment_backbone.", number(file["base_seed_vgg"])),
        "alignment_head": ("alignment_head.", number(file["base_seed_head"])),
    }
    variables = recipe_weights(recipe, template(model, night, day), seeds.__getitem__)
    logits = nhwc(file["logits_ref"])

    @jax.jit
    def run(variables):
        match = model.apply(variables, night, day)
        return match, UAWarpC(model)(variables, {}, night, day, logits)

    out, aligned = run(variables)
    for i in sizes(file, r"flow(\d)").values():
        assert_within(nchw(out[f"flow{i}"]), file[f"flow{i}"], 1e-3, f"flow{i}")
        assert_within(nchw(out[f"logvar{i}"]), file[f"logvar{i}"], 1e-3, f"logvar{i}")
    warped, valid = flow_warp(logits, out["flow"])
    confidence = flow_confidence(out["logvar"])
    np.testing.assert_array_equal(valid, file["warp_valid"])
    assert_within(nchw(warped), file["warped_logits"], 1e-3, "warped")
    assert_within(nchw(confidence), file["confidence"], 1e-4, "confidence")
    assert_within(nchw(aligned.logits), file["warped_logits"], 1e-3, "aligned")
    assert_within(np.asarray(aligned.confidence), file["confidence"][:, 0], 1e-4, "aligned confidence")
    np.testing.assert_array_equal(aligned.valid, file["warp_valid"])


@pytest.mark.slow
def test_align_features(golden, recipe):
    """The features that the head sees, and its first correlation."""
    file = golden("dsr_fpa", "uawarpc_recipe")
    day, night = (normalized(file[f"image_{name}_uint8"]) for name in ("ref", "trg"))
    model = Matcher()
    shapes = jax.eval_shape(model.init, jax.random.key(0), night, day)
    vgg = {"params": {"alignment_backbone": shapes["params"]["alignment_backbone"]}}
    vgg = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), vgg)
    seed = number(file["base_seed_vgg"])
    variables = recipe_weights(recipe, vgg, lambda _: ("alignment_backbone.", seed))
    both = jnp.concatenate([day, night])
    found = jax.jit(lambda v, x: model.apply(v, x, method="features"))(variables, both)
    pixels = file["ref_pool2_pix"]
    assert_within(nchw(found[0])[0, : len(pixels)], pixels, 1e-4, "ref_pool2")
    pixels = file["trg_256_pool4_pix"]
    assert_within(nchw(found[3])[len(day), : len(pixels)], pixels, 1e-4, "trg_256_pool4")
    source, target = jnp.split(unit(found[3]), 2)
    correlation = nchw(global_correlation(source, target))
    pixels = file["corr4_pix"]
    assert_within(correlation[0, : len(pixels)], pixels, 1e-4, "corr4")
    assert_within(correlation.mean((0, 2, 3)), file["corr4_chan_mean"], 1e-4, "corr4 mean")
