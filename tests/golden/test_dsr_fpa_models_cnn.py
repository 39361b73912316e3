"""ResNet-101-v1c with the DeepLab-v2 head, and bilinear resizing, against the official programs."""

import jax
import numpy as np
import pytest

from nightjax.interop.torch_weights import from_torch, to_torch
from nightjax.models import build_segmenter
from nightjax.models.backbones.resnet import BLOCKS
from nightjax.models.layers import max_pool
from nightjax.ops.resize import resize
from tests.helpers.golden import assert_within, every, nchw, nhwc, number

EVALUATION = 1e-4  # of the maximum


@pytest.fixture
def file(golden):
    return golden("dsr_fpa", "deeplabv2_v1c_recipe")


@pytest.fixture
def model(file):
    return build_segmenter("resnet101_v1c_d8", "deeplab_v2", file["out_eval"].shape[1])


@pytest.fixture
def shapes(model, file):
    return jax.eval_shape(model.init, jax.random.key(0), nhwc(file["x"]))


def test_names_and_shapes(shapes, golden):
    expected = golden.official_names("dsr_fpa")["refign_naming"]["deeplabv2_resnet101_v1c"]
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    actual = {name: list(value.shape) for name, value in to_torch(zeros, counters=True).items()}
    assert actual == expected


def test_deeplabv2_v1c(model, shapes, file, recipe):
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    seed = number(file["base_seed"])
    weights = {name: recipe(name, value.shape, seed) for name, value in to_torch(zeros).items()}
    variables = from_torch(weights, shapes)
    blocks = tuple(BLOCKS.values())

    def run(variables, x):
        return model.apply(
            variables,
            x,
            capture_intermediates=lambda module, _: isinstance(module, blocks),
            mutable=["intermediates"],
        )

    outputs, captured = jax.jit(run)(variables, nhwc(file["x"]))
    assert_within(nchw(outputs["logits"]), file["out_eval"], EVALUATION, "logits")
    taps = {name.split(".", 1)[1].rsplit(".", 1)[0] for name in file if name.startswith("tap.")}
    assert taps
    for tap in taps:
        value = nchw(tapped(tap, outputs, captured["intermediates"]["backbone"]))
        assert value.shape == tuple(file[f"tap.{tap}.shape"]), tap
        pixels = file[f"tap.{tap}.pix"]
        assert_within(value[0, : len(pixels)], pixels, EVALUATION, tap)
        mean = value.mean((0, 2, 3))
        np.testing.assert_allclose(
            mean, file[f"tap.{tap}.chan_mean"], atol=EVALUATION * np.abs(value).max(), err_msg=tap
        )


def tapped(name, outputs, blocks):
    """The output of a module of the official network, such as ``stem``, ``maxpool``, ``layer2`` or
    ``layer3.22``."""
    if name == "stem":
        return outputs["stem"]
    if name == "maxpool":
        return max_pool(outputs["stem"], 3, 2, 1)
    if "." in name:
        return blocks[name.replace(".", "_")]["__call__"][0]
    return outputs[name.replace("layer", "stage")]


def test_upsampling(golden):
    file = golden("dsr_fpa", "hrda_tiny_eval")
    size = file["x_whole_uint8"].shape[2:]
    actual = nchw(resize(nhwc(file["whole.fused_logits"]), size, align_corners=False))
    expected, step = every(file, r"whole\.upsampled_every(\d+)")
    np.testing.assert_allclose(actual[:, :, ::step, ::step], expected, atol=1e-5)
