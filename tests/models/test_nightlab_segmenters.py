"""DeepLab-v3+ and UPerNet with auxiliary heads and light adaptation, as ``build_segmenter`` makes them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.errors import UserError
from nightjax.core.fused_init import fused_init
from nightjax.models import build_segmenter
from nightjax.zoo.models import MODELS

TINY = {
    "deeplab_v3plus": {"backbone": "resnet_tiny", "head_dilations": (1, 2, 3), "head_low_channels": 4},
    "upernet": {"backbone": "swin_tiny"},
}


def tiny(head, **options):
    return build_segmenter(head=head, head_channels=8, auxiliary="fcn", auxiliary_channels=8, **TINY[head], **options)


@pytest.mark.parametrize("head", TINY)
def test_logits_of_both_classifiers(head):
    x = jnp.zeros((1, 64, 96, 3))
    model = tiny(head)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    outputs = jax.eval_shape(model.apply, variables, x)
    assert outputs["logits"].shape == (1, *outputs["stage1"].shape[1:3], 19)
    assert outputs["auxiliary_logits"].shape == (1, *outputs["stage3"].shape[1:3], 19)
    assert outputs["logits"].dtype == outputs["auxiliary_logits"].dtype == jnp.float32


@pytest.mark.parametrize("name", ["deeplabv3plus", "upernet_swin_t", "upernet_swin_b"])
def test_configured_models_build(name):
    model = build_segmenter(**MODELS[name])
    x = jax.ShapeDtypeStruct((1, 128, 128, 3), jnp.float32)
    outputs = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x)[0], x)
    assert outputs["logits"].shape == (1, 32, 32, 19)


def test_contracted_dilations():
    stages = build_segmenter(**MODELS["deeplabv3plus"]).backbone.dilations
    assert stages == (1, 1, (1, *22 * (2,)), (2, 4, 4))


@pytest.mark.slow
def test_light_adaptation_is_added_to_the_image():
    x = jax.random.normal(jax.random.key(0), (1, 32, 32, 3))
    model = tiny("deeplab_v3plus", relight=True, relight_features=4, relight_blocks=1)
    variables = jax.jit(fused_init(model.init))(jax.random.key(1), x)
    assert set(variables["params"]) == {"backbone", "head", "auxiliary", "relight"}
    outputs = jax.jit(model.apply)(variables, x)
    assert outputs["residual"].shape == x.shape and float(jnp.abs(outputs["residual"]).max()) < 1
    plain = {kind: {part: tree[part] for part in tree if part != "relight"} for kind, tree in variables.items()}
    relit = jax.jit(tiny("deeplab_v3plus").apply)(plain, x + outputs["residual"])
    np.testing.assert_allclose(outputs["logits"], relit["logits"], atol=1e-5)


def test_a_last_layer_of_zeros_leaves_the_image_alone():
    x = jax.random.normal(jax.random.key(0), (1, 32, 32, 3))
    model = tiny("deeplab_v3plus", relight=True, relight_features=4, relight_blocks=1)
    params = jax.eval_shape(model.init, jax.random.key(1), x)
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), params)
    np.testing.assert_array_equal(model.relight.apply({k: v["relight"] for k, v in params.items()}, x), 0)


def test_hrda_takes_neither():
    for option in ({"relight": True}, {"auxiliary": "fcn"}):
        with pytest.raises(UserError, match="HRDA"):
            build_segmenter("mit_b0", "daformer", hrda=True, **option)
