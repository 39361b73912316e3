"""The semantic branches of Panoptic FPN: sizes, names, sharing; numbers of the shared form are in tests/golden."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from nightjax.interop.official_names import LTSP, to_official
from nightjax.interop.torch_weights import to_torch
from nightjax.models import build_segmenter
from nightjax.models.heads.panoptic_fpn import PanopticFPNHead, SharedPanopticFPNHead


def shapes_of(model, size=(64, 64)):
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *size, 3)))


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def features(*sizes, batch=2):
    rng = np.random.default_rng(0)
    return {
        f"stage{i}": jnp.asarray(rng.normal(size=(batch, *size, 4)), jnp.float32)
        for i, size in enumerate(sizes, start=1)
    }


def test_parameters_and_official_names():
    shapes = shapes_of(build_segmenter("resnet101", "panoptic_fpn_shared"))["params"]
    assert count(shapes["backbone"]) == 42_500_160
    assert count(shapes) == 46_142_803
    names = to_official(to_torch({"params": jax.tree.map(lambda x: np.broadcast_to(0.0, x.shape), shapes)}), LTSP)
    assert {
        "back_bone.conv1.weight",
        "back_bone.layer1.0.bn1.weight",
        "toplayer.weight",
        "latlayer1.bias",
        "smooth1.weight",
        "semantic_branch.weight",
        "conv2.weight",
        "conv3.bias",
        "gn1.weight",
    } <= set(names)
    assert names["semantic_branch.weight"].shape == (128, 256, 3, 3) and names["gn2.bias"].shape == (256,)


@pytest.mark.parametrize("head", ["panoptic_fpn", "panoptic_fpn_shared"])
def test_logits_are_at_the_finest_stage(head):
    model = build_segmenter("resnet101", head)
    x = jax.ShapeDtypeStruct((1, 65, 97, 3), jnp.float32)
    logits = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x)[0]["logits"], x)
    # The official program's output is 4 times this, 68x100.
    assert logits.shape == (1, 17, 25, 19) and logits.dtype == jnp.float32


def test_published_branch_has_its_own_convolutions():
    params = shapes_of(build_segmenter("resnet101", "panoptic_fpn"))["params"]["head"]
    steps = sorted(name for name in params if name.startswith("p") and "_" in name and not name.endswith("norm"))
    assert steps == ["p2_0", "p3_0", "p4_0", "p4_1", "p5_0", "p5_1", "p5_2"]
    assert "bias" not in params["p5_0"] and params["p5_0"]["kernel"].shape == (3, 3, 256, 128)
    assert "bias" in params["lateral5"] and "bias" in params["predictor"]


@pytest.mark.parametrize(
    "head", [PanopticFPNHead(5, channels=8, width=4, groups=2), SharedPanopticFPNHead(5, channels=8, width=4)]
)
def test_small_heads_on_stages_of_equal_size(head):
    levels = features((8, 12), (4, 6), (2, 3), (2, 3))
    logits, variables = head.init_with_output(jax.random.key(0), levels)
    assert logits.shape == (2, 8, 12, 5) and bool(jnp.isfinite(logits).all())
    one = head.apply(variables, jax.tree.map(lambda x: x[1:], levels))
    np.testing.assert_allclose(one, logits[1:], atol=1e-4)  # Examples do not see each other.


def test_norm_with_as_many_groups_as_channels_is_an_instance_norm():
    x = jnp.asarray(np.random.default_rng(0).normal(2, 3, (2, 5, 7, 6)), jnp.float32)
    head = SharedPanopticFPNHead(3, channels=6, width=6)
    norm = nn.GroupNorm(6, epsilon=1e-5, use_fast_variance=False)
    scale, bias = jnp.arange(1.0, 7.0), jnp.arange(6.0)
    actual = norm.apply({"params": {"scale": scale, "bias": bias}}, x)
    mean, var = x.mean((1, 2), keepdims=True), x.var((1, 2), keepdims=True)
    np.testing.assert_allclose(actual, (x - mean) / jnp.sqrt(var + 1e-5) * scale + bias, atol=2e-5)
    params = head.init(jax.random.key(0), features((4, 4), (2, 2), (2, 2), (2, 2)))["params"]
    assert params["gn1"]["scale"].shape == params["gn2"]["scale"].shape == (6,)
