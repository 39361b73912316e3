"""Segmentation networks of NightLab against mmsegmentation and Swin Transformer, with small and recipe weights.

Tolerances are the golden README's: small networks 1e-5 absolute (Swin 2e-5), full logits 2e-5.
"""

import fnmatch
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.interop import namings
from nightjax.interop.torch_weights import from_torch, to_torch
from nightjax.losses.segmentation import pixel_weighted_cross_entropy
from nightjax.models import build_segmenter
from nightjax.models.backbones.resnet import VARIANTS, ResNet
from nightjax.models.backbones.swin import Block, Swin, relative_position_index, shift_mask
from nightjax.models.heads.deeplabv3plus import DeepLabV3PlusHead
from nightjax.models.heads.fcn import FCNHead
from nightjax.models.heads.upernet import UPerNetHead
from nightjax.models.layers import max_pool
from nightjax.ops.resize import resize
from tests.helpers.golden import assert_within, nchw, nhwc, number, state_of, thinned

NETWORKS = {
    "deeplabv3plus": {
        "backbone": "resnet101_v1c_d8_contracted",
        "head": "deeplab_v3plus",
        "auxiliary": "fcn",
    },
    "upernet": {"backbone": "swin_b", "head": "upernet", "auxiliary": "fcn"},
}
KEYS = {"deeplabv3plus": "deeplabv3plus_r101v1c_d8_19", "upernet": "upernet_swin_b_w7_19"}
FILES = {"deeplabv3plus": "deeplabv3plus_full_recipe", "upernet": "upernet_swinb_full_recipe"}
MMSEG, SWIN = namings.lookup("mmseg"), namings.lookup("swin")
CONSTANTS = MMSEG.unused
OUTPUT_NORMS = ("norm[0-9].*", "backbone.norm[0-9].*")


@pytest.fixture(scope="module")
def official_keys(golden):
    return {name: dict(keys) for name, keys in golden.official_names("nightlab").items()}


def without_constants(state):
    return {name: value for name, value in state.items() if not any(fnmatch.fnmatch(name, c) for c in CONSTANTS)}


def backbone_part(state):
    """A state dict of our names as one of the backbone alone."""
    return {name.removeprefix("backbone."): value for name, value in state.items()}


def shapes_of(model, *args, **options):
    return jax.eval_shape(functools.partial(model.init, **options), jax.random.key(0), *args)


def names_and_shapes(shapes, stacks=(), counters=True):
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    return {name: list(value.shape) for name, value in to_torch(zeros, stacks, counters=counters).items()}


@functools.cache
def network_shapes(network):
    return shapes_of(build_segmenter(**NETWORKS[network]), jnp.zeros((1, 64, 64, 3)))


def network_stacks(network):
    return build_segmenter(**NETWORKS[network]).stacks


SWIN_STACKS = build_segmenter("swin_b", "upernet").backbone.stacks
"""Of the backbone alone, with either window."""


def fits(variables, shapes):
    return jax.tree.map(np.shape, variables) == jax.tree.map(np.shape, shapes)


@functools.cache
def swin_shapes(window):
    if window == 7:
        return {"params": network_shapes("upernet")["params"]["backbone"]}
    return shapes_of(build_segmenter("swin_b_384", "upernet").backbone, jnp.zeros((1, 64, 64, 3)))


@pytest.mark.parametrize("network", NETWORKS)
def test_names_and_shapes(network, official_keys):
    actual = MMSEG.to_official(names_and_shapes(network_shapes(network), network_stacks(network)))
    assert actual == without_constants(official_keys[KEYS[network]])


@pytest.mark.parametrize("network", NETWORKS)
def test_mmsegmentation_checkpoints_fit(network, official_keys):
    state = {name: np.zeros(shape, np.float32) for name, shape in official_keys[KEYS[network]].items()}
    shapes = network_shapes(network)
    assert fits(from_torch(MMSEG.to_ours(state), shapes, network_stacks(network), allow_surplus=CONSTANTS), shapes)


@pytest.mark.parametrize(("official", "window"), [("swin_b_w7_224_official", 7), ("swin_b_w12_384_official", 12)])
def test_official_swin_checkpoints_fit(official, window, official_keys):
    state = {name: np.zeros(shape, np.float32) for name, shape in official_keys[official].items()}
    shapes = swin_shapes(window)
    ours = [f"backbone.{name}" for name in names_and_shapes(shapes, SWIN_STACKS)]
    assert namings.recognize(state, ours, official)[0] == "swin"
    state = backbone_part(SWIN.to_ours(state))
    variables = from_torch(state, shapes, SWIN_STACKS, allow_surplus=SWIN.unused, allow_missing=OUTPUT_NORMS)
    assert fits(variables, shapes)


def test_mmsegmentation_swin_backbone_with_window_12_fits(official_keys):
    state = {
        name.removeprefix("backbone."): np.zeros(shape, np.float32)
        for name, shape in official_keys["swin_b_w12_backbone_mmseg"].items()
    }
    assert fits(from_torch(state, swin_shapes(12), SWIN_STACKS, allow_surplus=CONSTANTS), swin_shapes(12))


def test_parameter_counts():
    def count(tree):
        return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))

    counts = {
        network: [count(network_shapes(network)["params"][part]) for part in ("backbone", "head", "auxiliary")]
        for network in NETWORKS
    }
    assert counts == {
        "deeplabv3plus": [42_519_392, 17_697_923, 2_364_691],
        "upernet": [86_745_016, 33_248_787, 1_185_043],
    }


def head_of(name, file):
    sizes = {"num_classes": file["logits_eval"].shape[1], "channels": file["w.conv_seg.weight"].shape[1]}
    if name == "deeplabv3plus_head":
        head = DeepLabV3PlusHead(low_channels=len(file["w.c1_bottleneck.bn.bias"]), **sizes)
        return head, {"stage1": nhwc(file["feat0"]), "stage4": nhwc(file["feat3"])}
    if name == "upernet_head":
        return UPerNetHead(**sizes), {f"stage{i + 1}": nhwc(file[f"feat{i}"]) for i in range(4)}
    return FCNHead(**sizes), {"stage3": nhwc(file["feat2"])}


@pytest.mark.parametrize("name", ["deeplabv3plus_head", "upernet_head", "fcn_head_and_ce"])
def test_heads(name, golden):
    file = golden("nightlab", name)
    head, features = head_of(name, file)
    variables = from_torch(state_of(file), shapes_of(head, features))
    logits = nchw(jax.jit(head.apply)(variables, features))
    np.testing.assert_allclose(logits, file["logits_eval"], rtol=0, atol=1e-5)

    @jax.jit
    def train(variables, features):
        return head.apply(variables, features, train=True, deterministic=True, mutable=["batch_stats"])

    logits, updated = train(variables, features)
    np.testing.assert_allclose(nchw(logits), file["logits_train"], rtol=0, atol=1e-5)
    statistics, expected = to_torch(updated), state_of(file, "after_train.")
    assert expected
    for key, value in expected.items():
        np.testing.assert_allclose(statistics[key], value, rtol=1e-5, atol=1e-5, err_msg=key)


def test_cross_entropy(golden):
    file = golden("nightlab", "fcn_head_and_ce")
    logits, label = nhwc(file["ce.logits"]), jnp.asarray(file["ce.label"])
    upsampled = nchw(resize(logits, label.shape[1:], align_corners=False))
    expected = file["ce.upsampled_slice"]
    np.testing.assert_allclose(thinned(upsampled, expected, 7), expected, atol=1e-5)
    for normalizer in ("all", "valid"):
        loss = pixel_weighted_cross_entropy(logits, label, normalizer=normalizer)
        np.testing.assert_allclose(loss, np.ravel(file[f"ce.loss_{normalizer}_pixels"])[0], rtol=1e-5)
    grad = nchw(jax.grad(lambda x: pixel_weighted_cross_entropy(x, label, normalizer="valid"))(logits))
    assert_within(grad, file["ce.grad_logits_valid"], 1e-4)


def test_resnet_v1c_small(golden):
    file = golden("nightlab", "resnet_v1c_small")
    state, x = state_of(file), nhwc(file["x"])
    widths = tuple(len(state[f"layer{i}.0.bn1.weight"]) for i in (1, 2, 3, 4))
    depths = tuple(sum(f"layer{i}.{j}.conv1.weight" in state for j in range(99)) for i in (1, 2, 3, 4))
    options = VARIANTS["resnet50_v1c_d8_contracted"] | {"depths": depths, "widths": widths}
    model = ResNet(**options, stem_features=len(state["stem.7.weight"]))
    variables = from_torch(state, shapes_of(model, x))
    outputs = jax.jit(model.apply)(variables, x)
    taps = {name: outputs[f"stage{int(name[1:]) - 1}"] for name in file if re.fullmatch(r"C\d", name)}
    assert taps
    taps["stem_pooled"] = max_pool(outputs["stem"], 3, 2, 1)
    for name, value in taps.items():
        np.testing.assert_allclose(nchw(value), file[name], rtol=0, atol=1e-5, err_msg=name)


def swin_of(state, heads, window, **options):
    """Swin whose sizes are those of a state dict under our names."""
    depths = []
    for i in range(len(heads)):
        depths.append(sum(f"stages.{i}.blocks.{j}.norm1.weight" in state for j in range(99)))
    first = state["stages.0.blocks.0.ffn.layers.0.0.weight"]
    projection = state["patch_embed.projection.weight"]
    return Swin(
        dim=len(projection),
        depths=tuple(depths),
        heads=tuple(int(h) for h in heads),
        window=int(window),
        mlp_ratio=first.shape[0] // first.shape[1],
        patch=projection.shape[-1],
        **options,
    )


def check_taps(file, model, variables, x, taps, tolerance):
    """Compares intermediate values; ``taps`` gives the file's name and the module's path."""
    apply = functools.partial(model.apply, capture_intermediates=True, mutable=["intermediates"])
    _, captured = jax.jit(apply)(variables, x)
    captured = captured["intermediates"]
    for name, path in taps.items():
        if path[-1].startswith("blocks_"):
            value = block_output(model, variables["params"], captured, *(int(part.split("_")[1]) for part in path))
        else:
            value = output(captured, *path)
        expected = file[name]
        assert value.shape[0] == expected.shape[0] and value.shape[-1] == expected.shape[-1], name
        if f"{name}_hw" in file:
            assert value.shape[1:-1] == tuple(file[f"{name}_hw"]), name
        np.testing.assert_allclose(value.reshape(expected.shape), expected, rtol=0, atol=tolerance, err_msg=name)


def output(captured, *path):
    return np.asarray(functools.reduce(lambda node, key: node[key], path, captured)["__call__"][0])


def block_output(model, params, captured, stage, number):
    """Output of a block, from the stage's input and the blocks up to it, each run by itself."""
    x = output(captured, f"stages_{stage - 1}", "downsample") if stage else output(captured, "patch_embed")
    params = params[f"stages_{stage}"]
    for i in range(number + 1):
        block = Block(model.heads[stage], model.window, model.window // 2 * (i % 2), model.mlp_ratio)
        if f"blocks_{i}" in params:
            one = params[f"blocks_{i}"]
        else:
            one = jax.tree.map(lambda leaf, i=i: leaf[i // 2], params["blocks_shifted" if i % 2 else "blocks_regular"])
        x = jax.jit(block.apply)({"params": one}, x)
    return np.asarray(x)


TAPS = {
    "block0": ("stages_0", "blocks_0"),
    "block1_shifted": ("stages_0", "blocks_1"),
    "patch_merging": ("stages_0", "downsample"),
}


@pytest.mark.parametrize("scan", [False, True])
def test_swin_mmseg_small(golden, scan):
    file = golden("nightlab", "swin_mmseg_small")
    state, x = state_of(file), nhwc(file["x"])
    model = swin_of(state, file["num_heads"], number(file["window"]), scan=scan)
    variables = from_torch(state, shapes_of(model, x), model.stacks, allow_surplus=CONSTANTS)
    features = jax.jit(model.apply)(variables, x)
    for i in range(len(file["num_heads"])):
        np.testing.assert_allclose(nchw(features[f"stage{i + 1}"]), file[f"out{i}"], rtol=0, atol=2e-5)
    check_taps(file, model, variables, x, {"patch_embed": ("patch_embed",), **TAPS}, 2e-5)
    for name, index in state.items():
        if name.endswith("relative_position_index"):
            np.testing.assert_array_equal(relative_position_index(model.window), index)


def test_swin_official_small(golden):
    file = golden("nightlab", "swin_official_small")
    official, x = state_of(file), nhwc(file["x"])
    state = SWIN.to_ours(official)
    back = SWIN.to_official(state)
    assert back.keys() == official.keys()
    assert all(np.array_equal(back[name], value) for name, value in official.items())
    state = backbone_part(state)
    np.testing.assert_array_equal(state["stages.0.downsample.reduction.weight"], file["mmseg_reduction_weight"])
    np.testing.assert_array_equal(state["stages.0.downsample.norm.weight"], file["mmseg_norm_weight"])
    tables = [v for k, v in sorted(official.items()) if k.endswith("blocks.0.attn.relative_position_bias_table")]
    window = (int(len(tables[0]) ** 0.5) + 1) // 2
    model = swin_of(state, [table.shape[1] for table in tables], window)
    last = len(tables) - 1
    # The ImageNet network has one final norm, which stands where we have the last stage's output norm.
    state |= {f"norm{last}.{kind}": state[f"norm.{kind}"] for kind in ("weight", "bias")}
    shapes = shapes_of(model, x)
    shapes = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    variables = from_torch(state, shapes, model.stacks, allow_surplus=SWIN.unused, allow_missing=OUTPUT_NORMS)
    stages = {name: int(name[5:]) for name in file if re.fullmatch(r"stage\d", name)}
    ends = {
        name: (f"stages_{i}", "downsample" if i < last else f"blocks_{model.depths[i] - 1}")
        for name, i in stages.items()
    }
    assert ends
    check_taps(file, model, variables, x, TAPS | ends, 2e-5)
    pooled = np.asarray(jax.jit(model.apply)(variables, x)[f"stage{last + 1}"]).mean((1, 2))
    logits = pooled @ official["head.weight"].T + official["head.bias"]
    np.testing.assert_allclose(logits, file["class_logits"], rtol=0, atol=2e-5)
    np.testing.assert_array_equal(relative_position_index(window), file["relative_position_index"])
    side = x.shape[1] // model.patch
    mask = shift_mask(side, x.shape[2] // model.patch, window, window // 2)
    np.testing.assert_array_equal(mask, file["attn_mask_block1"])


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_full_network(network, golden, recipe):
    file = golden("nightlab", FILES[network])
    x, seed = nhwc(file["x"]), number(file["base_seed"])
    model = build_segmenter(**NETWORKS[network])
    names = MMSEG.to_official(names_and_shapes(network_shapes(network), model.stacks))
    state = {name: recipe(name, tuple(shape), seed) for name, shape in names.items()}
    variables = from_torch(MMSEG.to_ours(state), network_shapes(network), model.stacks)
    outputs = jax.jit(model.apply)(variables, x)
    for i in range(4):
        value = nchw(outputs[f"stage{i + 1}"])
        pixels = file[f"C{i + 2}.pix"]
        np.testing.assert_allclose(value[:, : pixels.shape[1]], pixels, rtol=1e-4, atol=2e-5, err_msg=f"C{i + 2}")
        mean = value.mean((2, 3))
        np.testing.assert_allclose(mean, file[f"C{i + 2}.chan_mean"], rtol=1e-4, atol=2e-5, err_msg=f"C{i + 2}")
    for name, key in (("logits", "logits"), ("aux_logits", "auxiliary_logits")):
        np.testing.assert_allclose(nchw(outputs[key]), file[name], rtol=0, atol=2e-5, err_msg=name)
