"""MiT and its decoders against the official programs."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.interop.torch_weights import from_torch, to_torch
from nightjax.models.backbones.mit import BLOCK_EPSILON, VARIANTS, Block, MiT, PatchEmbed, layer_norm
from nightjax.models.heads.daformer import DAFormerHead
from nightjax.models.heads.segformer import SegFormerHead
from tests.helpers.golden import assert_within, every, largest, nchw, nhwc, number, state_of, thinned

HEADS = {"daformer_head_tiny": DAFormerHead, "segformer_head_tiny": SegFormerHead}


def template(model, *args):
    shapes = jax.eval_shape(model.init, jax.random.key(0), *args)
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


def stored_weights(file, variables, stacks=()):
    return from_torch(state_of(file), variables, stacks)


def recipe_weights(recipe, prefix, seed, variables, stacks=()):
    shapes = {name: value.shape for name, value in to_torch(variables, stacks).items()}
    weights = {name: recipe(prefix + name, shape, seed) for name, shape in shapes.items()}
    return from_torch(weights, variables, stacks)


def assert_running_statistics(file, prefix, batch_stats, variables):
    actual = to_torch({"params": variables["params"], "batch_stats": batch_stats})
    names = [name for name in file if name.startswith(prefix)]
    assert names
    for name in names:
        assert_within(actual[name.removeprefix(prefix)], file[name], 1e-3, name)


@pytest.mark.parametrize("scan", [pytest.param(False, marks=pytest.mark.slow), True])
def test_mit_tiny(golden, scan):
    file = golden("dsr_fpa", "mit_tiny")
    names = ("dims", "depths", "heads", "mlp_ratios", "sr_ratios")
    model = MiT(**{name: tuple(file[name].tolist()) for name in names}, scan=scan)
    x = nhwc(file["x"])
    variables = stored_weights(file, template(model, x), model.stacks)

    def loss(variables, x):
        features = model.apply(variables, x)
        cotangents = {f"stage{i}": nhwc(file[f"cotangent{i}"]) for i in range(1, 5)}
        return sum(jnp.sum(features[name] * cotangents[name]) for name in cotangents), features

    grad, features = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(variables, x)
    for i in range(1, 5):
        assert_within(nchw(features[f"stage{i}"]), file[f"stage{i}"], 1e-4, f"stage{i}")
    expected, step = every(file, r"grad_x_every(\d+)px")
    assert_within(nchw(grad[1])[:, :, ::step, ::step], expected, 1e-4, "grad_x")
    if model.sr_ratios[0] > 1:
        weight = to_torch(grad[0], model.stacks)["block1.0.attn.sr.weight"]
        assert_within(weight, file["grad_block1_0_attn_sr_weight"], 1e-4, "grad_sr")


@pytest.mark.parametrize("name", HEADS)
def test_head_tiny(golden, name):
    file = golden("dsr_fpa", name)
    features = {f"stage{i}": nhwc(file[f"f{i}"]) for i in range(1, 5)}
    if name == "daformer_head_tiny":
        sizes = {
            "embed_dim": len(file["w.embed_layers.0.proj.bias"]),
            "channels": len(file["w.fuse_layer.bottleneck.bn.bias"]),
        }
    else:
        sizes = {"channels": len(file["w.linear_fuse.bn.bias"])}
    model = HEADS[name](num_classes=file["out_eval"].shape[1], **sizes)
    variables = stored_weights(file, template(model, features))

    assert_within(nchw(jax.jit(model.apply)(variables, features)), file["out_eval"], 1e-4, "eval")

    def loss(features):
        logits, update = model.apply(variables, features, train=True, deterministic=True, mutable=["batch_stats"])
        return jnp.sum(logits * nhwc(file["cotangent"])), (logits, update["batch_stats"])

    grad, (logits, batch_stats) = jax.jit(jax.grad(loss, has_aux=True))(features)
    assert_within(nchw(logits), file["out_train"], 1e-3, "train")
    for i in range(1, 5):
        assert_within(nchw(grad[f"stage{i}"]), file[f"grad_f{i}"], 1e-4, f"grad_f{i}")
    assert_running_statistics(file, "after_train.", batch_stats, variables)


def mit_b5(recipe, seed, x):
    model = MiT(**VARIANTS["mit_b5"])
    return model, recipe_weights(recipe, "backbone.", seed, template(model, x), model.stacks)


def module_outputs(model, params, x):
    """Outputs of the patch embeddings and blocks by their official names, each module run by itself."""
    taps = {}
    for i, depth in enumerate(model.depths):
        stage = i + 1
        embed = PatchEmbed(model.dims[i], kernel=3 if i else 7, stride=2 if i else 4)
        x = taps[f"patch_embed{stage}"] = embed.apply({"params": params[f"patch_embed{stage}"]}, x)
        block = jax.jit(Block(model.heads[i], model.mlp_ratios[i], model.sr_ratios[i]).apply)
        for j in range(depth):
            one = jax.tree.map(lambda leaf, j=j: leaf[j], params[f"block{stage}"])
            x = taps[f"block{stage}.{j}"] = block({"params": one}, x)
        norm = layer_norm(BLOCK_EPSILON, jnp.float32, f"norm{stage}")
        x = norm.apply({"params": params[f"norm{stage}"]}, x)
    return taps


def output_of(tap, captured):
    """The captured output of a module of the head, such as ``head.fuse_layer.aspp_modules.0``."""
    for part in re.sub(r"\.(?=\d)", "_", tap).split(".")[1:]:
        captured = captured[part]
    return captured["__call__"][0]


def assert_tap(file, tap, value):
    """Stored slices of [B, h, w, C]: tokens 0.. of image 0 or its first channels, and every channel's mean."""
    expected = lambda part: file[f"tap.{tap}.{part}"]
    if f"tap.{tap}.tokens" in file:
        tokens = value.reshape(len(value), -1, value.shape[-1])
        assert tokens.shape == tuple(expected("shape")), tap
        stored = expected("tokens")
        actual = tokens[0, : len(stored)]
    else:
        assert nchw(value).shape == tuple(expected("shape")), tap
        stored = expected("pix")
        actual = nchw(value)[0, : len(stored)]
    assert_within(actual, stored, 1e-4, tap)
    limit = 1e-4 * largest(value)
    mean = value.mean((0, 1, 2))
    np.testing.assert_allclose(mean, expected("chan_mean"), rtol=0, atol=limit, err_msg=tap)


@pytest.mark.slow  # At full size what the tiny networks test.
def test_mit_b5_daformer(golden, recipe):
    file = golden("dsr_fpa", "mit_b5_daformer_recipe")
    seed, x = number(file["base_seed"]), nhwc(file["x"])
    backbone, variables = mit_b5(recipe, seed, x)
    features = jax.jit(backbone.apply)(variables, x)
    expected, step = every(file, r"stage1_every(\d+)ch")
    assert_within(nchw(features["stage1"])[:, ::step], expected, 1e-4, "stage1")
    for i in range(2, 5):
        assert_within(nchw(features[f"stage{i}"]), file[f"stage{i}"], 1e-4, f"stage{i}")

    head = DAFormerHead(num_classes=file["head_out_eval"].shape[1])
    weights = recipe_weights(recipe, "head.", seed, template(head, features))
    logits, captured = head.apply(weights, features, capture_intermediates=True, mutable=["intermediates"])
    assert_within(nchw(logits), file["head_out_eval"], 1e-4, "head")
    taps = module_outputs(backbone, variables["params"], x)
    for tap in {name.split(".", 1)[1].rsplit(".", 1)[0] for name in file if name.startswith("tap.")}:
        value = taps[tap] if tap in taps else output_of(tap, captured["intermediates"])
        assert_tap(file, tap, np.asarray(value))

    attention = SegFormerHead(num_classes=head.num_classes)
    weights = recipe_weights(recipe, "hrda_scale_attention.", seed, template(attention, features))
    logits = attention.apply(weights, features)
    expected = file["segformer_attention_logits_eval"]
    assert_within(thinned(nchw(logits), expected, 3, axes=(1,)), expected, 1e-4, "attention")


@pytest.mark.slow
def test_mit_b5_daformer_train(golden, recipe):
    file = golden("dsr_fpa", "mit_b5_daformer_recipe_train")
    seed, x = number(file["base_seed"]), nhwc(file["x"])
    backbone, variables = mit_b5(recipe, seed, x)
    features = jax.jit(backbone.apply)(variables, x)
    head = DAFormerHead(num_classes=file["head_out_train"].shape[1])
    weights = recipe_weights(recipe, "head.", seed, template(head, features))
    logits, update = head.apply(weights, features, train=True, deterministic=True, mutable=["batch_stats"])
    assert_within(nchw(logits), file["head_out_train"], 1e-3, "train")
    assert_running_statistics(file, "after_train.head.", update["batch_stats"], weights)
