"""Networks of DANNet and AdaptSegNet against the official code, with small and recipe weights.

Tolerances in eval mode: 1e-4 for PSPNet and DeepLab, 1e-5 of the maximum for RefineNet; in train
mode (no dropout): 1e-3 and 1e-5 of the maximum.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.interop.official_names import DANNET, from_official, to_official
from nightjax.interop.torch_weights import from_torch, to_torch
from nightjax.models import build_segmenter
from nightjax.models.backbones.resnet import Bottleneck
from nightjax.models.discriminator import VARIANTS, Discriminator
from nightjax.models.heads.deeplab import DeepLabV2Head
from nightjax.models.heads.psp import PyramidPooling
from nightjax.models.heads.refinenet import ChainedResidualPooling, ResidualConvUnits
from nightjax.models.layers import DoublingConv, max_pool
from nightjax.models.norm import BatchNorm
from nightjax.models.relight import RelightNet
from nightjax.ops.resize import resize
from nightjax.zoo.models import MODELS
from tests.helpers.golden import assert_within, largest, nchw, nhwc, number, sizes, state_of

DANNET_NETWORKS = {
    "pspnet": MODELS["pspnet"],
    "deeplab": MODELS["deeplab_multi"],
    "refinenet": MODELS["refinenet"],
}
FILES = {"pspnet": "psp", "deeplab": "deeplab", "refinenet": "refinenet"}
OUTPUTS = {
    "pspnet": {"main": "logits", "dsn": "auxiliary_logits"},
    "deeplab": {"main": "logits", "layer5": "auxiliary_logits"},
    "refinenet": {"": "logits"},
}


@pytest.fixture
def official_keys(golden):
    return golden.official_names("dannet")


def shapes_of(model, x, **options):
    return jax.eval_shape(functools.partial(model.init, **options), jax.random.key(0), x)


def names_and_shapes(shapes):
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    return {name: list(value.shape) for name, value in to_torch(zeros, counters=True).items()}


@functools.cache
def network_shapes(network):
    model = build_segmenter(**DANNET_NETWORKS[network])
    return shapes_of(model, jnp.zeros((1, 64, 64, 3)))


@pytest.mark.parametrize("network", DANNET_NETWORKS)
def test_names_and_shapes_of_networks(network, official_keys):
    actual = to_official(names_and_shapes(network_shapes(network)), DANNET[network])
    assert actual == official_keys[f"dannet_{network}"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_names_and_shapes_of_discriminators(variant, official_keys):
    shapes = shapes_of(Discriminator(**VARIANTS[variant]), jnp.zeros((1, 64, 64, 19)))
    assert names_and_shapes(shapes) == official_keys[f"{variant}_discriminator"]


def test_names_and_shapes_of_lightnet(official_keys):
    shapes = shapes_of(RelightNet(), jnp.zeros((1, 16, 16, 3)))
    assert names_and_shapes(shapes) == official_keys["dannet_lightnet"]


def block_error(file, name, module, *args, **kwargs):
    """Error of a block in eval mode with the weights and the input of the file, as a share of the largest output."""
    x = nhwc(file[f"{name}.x"])
    shapes = jax.eval_shape(lambda key: module.init(key, x, *args, **kwargs), jax.random.key(0))
    variables = from_torch(state_of(file, f"{name}.w."), shapes)
    actual = module.apply(variables, x, *args, **kwargs)
    return np.abs(nchw(actual) - file[f"{name}.y"]).max() / largest(file[f"{name}.y"])


def test_bottlenecks(golden):
    file = golden("dannet", "seg_blocks")
    names = [name[:-2] for name in file if "bottleneck" in name and name.endswith(".x")]
    assert names
    for name in names:
        number = {word[0]: int(word[1:]) for word in name.split("_") if word[1:].isdigit()}
        module = Bottleneck(
            file[f"{name}.w.conv1.weight"].shape[0],
            stride=number["s"],
            dilation=number.get("d", 1),
            style="caffe" if name.startswith("deeplab") else "pytorch",
        )
        assert block_error(file, name, module, False) < 1e-5, name


def test_decoder_blocks(golden):
    file = golden("dannet", "seg_blocks")
    channels = file["psp_module.y"].shape[1]
    assert block_error(file, "psp_module", PyramidPooling(channels, (1, 2, 3, 6)), train=False) < 1e-5
    assert block_error(file, "refinenet_rcu_2x2", ResidualConvUnits(2)) < 1e-5
    assert block_error(file, "refinenet_crp_4", ChainedResidualPooling(4)) < 1e-5


def test_deeplab_classifier(golden):
    file, name = golden("dannet", "seg_blocks"), "deeplab_classifier"
    head = DeepLabV2Head(file[f"{name}.y"].shape[1], summed=2)
    features = {"stage4": nhwc(file[f"{name}.x"])}
    shapes = shapes_of(head, features)
    variables = from_torch(state_of(file, f"{name}.w."), shapes)
    actual = nchw(head.apply(variables, features))
    assert_within(actual, file[f"{name}.y"], 1e-5, name)


def test_pooling(golden):
    file = golden("dannet", "seg_blocks")
    for name in ("maxpool", "maxpool_even"):
        x = nhwc(file["maxpool_ceil.x" if name == "maxpool" else f"{name}.x"])
        for mode in ("ceil", "floor"):
            actual = nchw(max_pool(x, 3, 2, 1, ceil_mode=mode == "ceil"))
            np.testing.assert_array_equal(actual, file[f"{name}_{mode}.y"])
    x = nhwc(file["maxpool_ceil.x"])
    for name, side in sizes(file, r"adaptive_avgpool_(\d+)\.y").items():
        actual = nchw(resize(x, (side, side), method="area", align_corners=False))
        np.testing.assert_allclose(actual, file[name], atol=1e-6)


def test_transposed_convolution(golden):
    file = golden("dannet", "seg_blocks")
    kernel = np.moveaxis(file["convtranspose.w"], (0, 1), (-2, -1))
    module = DoublingConv(kernel.shape[-1])
    actual = module.apply({"params": {"kernel_t": kernel}}, nhwc(file["maxpool_ceil.x"]))
    np.testing.assert_allclose(nchw(actual), file["convtranspose.y"], atol=1e-5)


def check_statistics(updated, expected, atol):
    actual = to_torch(updated)
    assert expected
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, rtol=1e-4, atol=atol, err_msg=name)


def test_relight_small(golden):
    file = golden("dannet", "relight_small")
    x, state = nhwc(file["x"]), state_of(file, "w.")
    blocks = sum(name.endswith(".conv_block.1.weight") for name in state)
    model = RelightNet(features=len(state["model.1.weight"]), blocks=blocks)
    variables = from_torch(state, shapes_of(model, x))
    assert_within(nchw(model.apply(variables, x)), file["r_eval"], 1e-5, "eval")
    residual, updated = model.apply(variables, x, train=True, mutable=["batch_stats"])
    assert_within(nchw(residual), file["r_train"], 1e-4, "train")
    check_statistics(updated, state_of(file, "after_train."), 1e-5)


def recipe_variables(shapes, recipe, seed, table=None):
    """The README's recipe weights under official names, in our variables."""
    named = names_and_shapes(shapes)
    named = to_official(named, table) if table else named
    state = {name: recipe(name, tuple(shape), seed) for name, shape in named.items()}
    return from_torch(from_official(state, table) if table else state, shapes)


@pytest.mark.slow
def test_relight_full(golden, recipe):
    file = golden("dannet", "relight_full_recipe")
    x, model = nhwc(file["x"]), RelightNet()
    variables = recipe_variables(shapes_of(model, x), recipe, number(file["base_seed"]))
    assert_within(nchw(jax.jit(model.apply)(variables, x)), file["r_eval"], 1e-4, "eval")

    @jax.jit
    def train(variables, x):
        return model.apply(variables, x, train=True, mutable=["batch_stats"])

    residual, updated = train(variables, x)
    assert_within(nchw(residual), file["r_train"], 1e-3, "train")
    statistics = {f"model.2.{name}": file[f"after_train_model_2_{name}"] for name in ("running_mean", "running_var")}
    check_statistics(updated, statistics, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("network", DANNET_NETWORKS)
def test_full_network(network, golden, recipe):
    file = golden("dannet", f"{FILES[network]}_full_recipe")
    x = nhwc(file["x"])
    model = build_segmenter(**DANNET_NETWORKS[network])
    seed = number(file["base_seed"])
    variables = recipe_variables(network_shapes(network), recipe, seed, DANNET[network])
    first_norm = "stem_1" if network == "pspnet" else "bn1"

    def evaluation(variables, x):
        outputs, captured = model.apply(
            variables,
            x,
            capture_intermediates=lambda module, _: isinstance(module, BatchNorm),
            mutable=["intermediates"],
        )
        first = captured["intermediates"]["backbone"][first_norm]["__call__"][0]
        return outputs, {"bn1": first, "maxpool": pooled(outputs["stem"])}

    def pooled(stem):
        return max_pool(stem, 3, 2, 1, ceil_mode=network != "refinenet")

    outputs, taps = jax.jit(evaluation)(variables, x)
    taps |= {f"layer{i}": outputs[f"stage{i}"] for i in (1, 2, 3, 4)}
    assert {name.split(".")[1] for name in file if name.startswith("tap_eval.")} == taps.keys()
    for name, value in taps.items():
        value, tap = nchw(value), f"tap_eval.{name}"
        assert value.shape == tuple(file[f"{tap}.shape"]), name
        pixels = file[f"{tap}.pix"]
        assert_within(value[0, : len(pixels)], pixels, 1e-4, name)
        assert_within(value.mean((0, 2, 3)), file[f"{tap}.chan_mean"], 1e-4, name)
    check_outputs(file, "out_eval", network, outputs, 1e-4)

    @jax.jit
    def train(variables, x):
        return model.apply(variables, x, train=True, deterministic=True, mutable=["batch_stats"])

    outputs, updated = train(variables, x)
    check_outputs(file, "out_train", network, outputs, 1e-3)
    statistics = from_official(state_of(file, "after_train."), DANNET[network])
    check_statistics(updated, statistics, 1e-4)


def check_outputs(file, name, network, outputs, atol):
    for suffix, key in OUTPUTS[network].items():
        expected = file[f"{name}_{suffix}" if suffix else name]
        actual = nchw(outputs[key])
        if network == "refinenet":
            assert_within(actual, expected, 1e-5, name)
        else:
            np.testing.assert_allclose(actual, expected, rtol=0, atol=atol, err_msg=name)
