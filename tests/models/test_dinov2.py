"""Plain vision transformers: sizes, fits, precision, and full-size networks by their shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.errors import UserError
from nightjax.models import BACKBONES, PYRAMIDS, build_segmenter
from nightjax.models.backbones.dinov2 import DinoV2
from nightjax.models.fit import PatchFit
from nightjax.models.norm import interleaved_norm_groups
from nightjax.models.pyramid import DeconvPyramid
from nightjax.run.start import count_parameters
from tests.helpers.golden import assert_within
from tests.helpers.methods import distance

COUNTS = {
    "dinov2_s": 22_056_576,
    "dinov2_b": 86_580_480,
    "dinov2_l": 304_368_640,
    "dinov2_g": 1_136_480_768,
    "dinov2_s_reg": 22_058_112,
    "dinov2_b_reg": 86_583_552,
    "dinov2_l_reg": 304_372_736,
    "dinov2_g_reg": 1_136_486_912,
}
BLOCK = {"dinov2_s": 1_775_232, "dinov2_b": 7_089_408, "dinov2_l": 12_598_272, "dinov2_g": 28_336_640}


def tiny(**options):
    return BACKBONES["dinov2_tiny"](**options)


def images(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_of_published_sizes(name):
    model = BACKBONES[name]()
    shapes = jax.eval_shape(lambda key: model.init(key, jnp.zeros((1, 28, 28, 3))), jax.random.key(0))["params"]
    assert count_parameters(shapes) == COUNTS[name]
    assert count_parameters(shapes["blocks"]) == model.depth * BLOCK[name.removesuffix("_reg")]
    assert shapes["pos_embed"].shape == (1, 37 * 37 + 1, model.dim)


def test_full_size_features_by_shape():
    """ViT-L at VFM-UDA's size, in bfloat16, without computing it."""
    model = BACKBONES["dinov2_l_reg"](dtype=jnp.bfloat16, remat=True, fit="resize")
    x = jax.ShapeDtypeStruct((2, 1024, 1024, 3), jnp.float32)
    features = jax.eval_shape(lambda key, x: model.init_with_output(key, x)[0], jax.random.key(0), x)
    assert {name: (f.shape, f.dtype) for name, f in features.items()} == {
        f"stage{i}": ((2, 80, 80, 1024), jnp.bfloat16) for i in range(1, 5)
    }


@pytest.mark.slow
def test_loops_and_rematerialization_change_nothing():
    x = images(2, 56, 70, 3)
    variables = jax.jit(tiny().init)(jax.random.key(0), x)
    rngs = {"dropout": jax.random.key(1)}

    def outputs(**options):
        model = tiny(layers=(1, 3), drop_path=0.3, **options)

        def loss(variables):
            return sum(jnp.sum(jnp.sin(y)) for y in model.apply(variables, x, train=True, rngs=rngs).values())

        return jax.jit(jax.value_and_grad(loss))(variables)

    expected = outputs()
    for options in (
        {"scan": False},
        {"remat": True},
        {"remat": True, "stored": "products"},
        {"scan": False, "remat": True},
    ):
        value, grad = outputs(**options)
        np.testing.assert_allclose(value, expected[0], rtol=1e-6)
        assert distance(grad, expected[1]) <= 1e-6 * max(np.abs(g).max() for g in jax.tree.leaves(expected[1])), options


def test_layers_are_those_of_all_blocks():
    """Whether the loop's length divides the blocks evenly or not, and where it ends early."""
    x = images(1, 56, 56, 3)
    variables = jax.jit(tiny().init)(jax.random.key(0), x)
    whole = tiny().apply(variables, x)
    for layers in ((0,), (1, 3), (2,), (0, 3), (1, 2, 3)):
        found = tiny(layers=layers).apply(variables, x)
        for i, layer in enumerate(layers):
            np.testing.assert_allclose(found[f"stage{i + 1}"], whole[f"stage{layer + 1}"], atol=1e-5)
    for layers in ((3, 1), (1, 1), (2, 4)):
        with pytest.raises(UserError, match="backbone_layers"):
            tiny(layers=layers).init(jax.random.key(0), x)


def test_half_precision():
    x = images(2, 56, 70, 3)
    variables = jax.jit(tiny().init)(jax.random.key(0), x)
    expected = tiny().apply(variables, x)["stage4"]
    found = tiny(dtype=jnp.bfloat16).apply(variables, x)["stage4"]
    assert found.dtype == jnp.bfloat16
    assert_within(found.astype(jnp.float32), expected, 2e-2)


def test_other_sizes_need_a_rule():
    x = images(1, 60, 71, 3)
    with pytest.raises(UserError, match="backbone_fit"):
        tiny().init(jax.random.key(0), x)
    with pytest.raises(UserError, match="smaller than a patch"):
        tiny(fit="resize").init(jax.random.key(0), images(1, 12, 70, 3))
    with pytest.raises(UserError, match="backbone_fit='stretch'"):
        tiny(fit="stretch").init(jax.random.key(0), x)
    variables = tiny().init(jax.random.key(0), images(1, 70, 84, 3))
    assert tiny(fit="pad").apply(variables, x)["stage1"].shape == (1, 5, 6, 32)
    assert tiny(fit="resize").apply(variables, images(1, 64, 96, 3))["stage1"].shape == (1, 5, 7, 32)


PADDED = {512: (3, 3), 1080: (6, 6), 1920: (6, 6), 540: (3, 3), 960: (3, 3), 71: (6, 7), 84: (0, 0)}
RESIZED = {1024: 1120, 512: 560, 64: 70, 96: 98}


def test_fit_of_sizes():
    pad, resized = PatchFit("pad", 14), PatchFit("resize", 14)
    for side, border in PADDED.items():
        assert pad.borders((side, side)) == (border, border)
        assert pad.sides((side, side)) == (side + sum(border),) * 2
    for side, wanted in RESIZED.items():
        assert resized.sides((side, 512)) == (wanted, 560)


def test_padding_is_the_mean_color():
    x = images(1, 31, 45, 3)
    padded = PatchFit("pad", 14).image(x)
    np.testing.assert_array_equal(padded[:, 5:36, 5:50], x)
    assert np.abs(padded).sum() == pytest.approx(np.abs(x).sum(), rel=1e-5)


def test_logits_of_padding_are_cut_off():
    """At the resolution of the image, not squeezed into it as mmsegmentation does."""
    fit = PatchFit("pad", 14)
    ramp = np.broadcast_to(np.arange(5.0, dtype=np.float32)[None, None, :, None], (1, 3, 5, 1))
    cut = fit.logits(ramp, (40, 61))
    assert cut.shape == (1, 40, 61, 1)
    left = (70 - 61) // 2
    expected = np.clip((np.arange(61) + left + 0.5) / 14 - 0.5, 0, 4)
    np.testing.assert_allclose(cut[0, 0, :, 0], expected, atol=1e-5)
    assert PatchFit("resize", 14).logits(ramp, (40, 61)) is ramp
    assert fit.logits(ramp, (42, 70)) is ramp


def test_masked_tokens_hide_their_patches():
    """Nothing of a masked patch comes through, and the mask token learns."""
    model, x = tiny(), images(1, 28, 42, 3)
    variables = model.init(jax.random.key(0), x)
    mask = jnp.zeros((1, 6), bool).at[0, 4].set(True)
    changed = x.copy()
    changed[:, 14:28, 14:28] += 1
    a, b = (model.apply(variables, image, token_mask=mask)["stage4"] for image in (x, changed))
    np.testing.assert_array_equal(a, b)
    assert np.abs(model.apply(variables, changed)["stage4"] - model.apply(variables, x)["stage4"]).max() > 1e-3
    grad = jax.grad(lambda v: jnp.sum(jnp.sin(model.apply(v, x, token_mask=mask)["stage4"])))(variables)["params"]
    assert np.abs(grad["mask_token"]).max() > 0
    assert model.token_count((28, 42)) == 6 and tiny(fit="pad").token_count((30, 42)) == 9


def test_unknown_choices():
    x = images(1, 28, 42, 3)
    with pytest.raises(UserError, match="backbone_pos_rule='linear'.*offset"):
        DinoV2(dim=8, depth=1, heads=1, pretrain_size=28, layers=(0,), pos_rule="linear").init(jax.random.key(0), x)
    with pytest.raises(UserError, match="backbone_ffn"):
        tiny(ffn="gelu").init(jax.random.key(0), x)


PYRAMID_HEADS = ("daformer", "segformer", "fpn", "upernet", "upscale_pyramid")


@pytest.mark.parametrize("pyramid", PYRAMIDS)
@pytest.mark.parametrize("head", PYRAMID_HEADS)
def test_heads_on_a_pyramid(head, pyramid):
    """Logits at four times the features' sides, at the size of the image where that was padded."""
    options = {} if head == "upscale_pyramid" else {"head_channels": 8}
    for size, fit, wanted in (((112, 168), "none", (32, 48)), ((100, 90), "pad", (100, 90))):
        model = build_segmenter("dinov2_tiny", head, 5, pyramid=pyramid, backbone_fit=fit, **options)
        x = jnp.zeros((2, *size, 3))
        outputs = jax.eval_shape(lambda key, model=model, x=x: model.init_with_output(key, x)[0], jax.random.key(0))
        assert outputs["logits"].shape == (2, *wanted, 5)
        assert outputs["stage4"].shape == (2, -(-size[0] // 14), -(-size[1] // 14), 32)


def test_pyramids_norms_have_groups():
    """Two interleaved passes of the learned pyramid have statistics of their own."""
    model = DeconvPyramid()
    features = {f"stage{i}": jnp.asarray(images(4, 3, 4, 8, seed=i)) for i in range(1, 5)}
    variables = model.init(jax.random.key(0), features)

    def run(part, groups):
        with interleaved_norm_groups(groups):
            return model.apply(variables, part, train=True, mutable=["batch_stats"])[0]["stage1"]

    together = run(features, 2)
    for i in range(2):
        apart = run({name: x[i::2] for name, x in features.items()}, 1)
        np.testing.assert_allclose(together[i::2], apart, atol=1e-5)


def test_hrda_is_refused():
    for backbone in ("dinov2_b", "vit_tiny"):
        with pytest.raises(UserError, match=f"HRDA.*{backbone} has one stride"):
            build_segmenter(backbone, "daformer", hrda=True)
    with pytest.raises(UserError, match="model.pyramid='resampel'.*resample"):
        build_segmenter("dinov2_b", "daformer", pyramid="resampel")
