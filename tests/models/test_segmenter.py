import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nightjax.core.errors import UserError
from nightjax.core.fused_init import fused_init
from nightjax.models import BACKBONES, HEADS, build_segmenter
from nightjax.models.heads.deeplab import DeepLabV2Head
from nightjax.models.heads.fpn import FPNHead

SMALL = dict(backbone_widths=(4, 4, 8, 8), backbone_stem_features=4, head_channels=8)


@pytest.fixture
def x():
    return jax.random.normal(jax.random.key(0), (4, 33, 48, 3))


@pytest.mark.parametrize("head", ["fpn", "deeplab_v2", "segformer", "daformer"])
@pytest.mark.parametrize("backbone", ["resnet_tiny", "mit_tiny"])
def test_every_pair(backbone, head, x):
    model = build_segmenter(backbone, head, 7)
    shapes = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x), x)
    outputs, variables = shapes
    finest = outputs["stage4" if head == "deeplab_v2" else "stage1"]
    assert outputs["logits"].shape == (*finest.shape[:3], 7)
    assert outputs["logits"].dtype == jnp.float32
    assert {"stage1", "stage2", "stage3", "stage4"} <= set(outputs)
    assert set(variables["params"]) == {"backbone", "head"}


def test_train_and_dropout(x):
    model = build_segmenter("resnet_tiny", "fpn", **SMALL, head_dropout=0.5)
    variables = jax.jit(fused_init(model.init))(jax.random.key(0), x)

    apply = jax.jit(
        functools.partial(model.apply, mutable=["batch_stats"]),
        static_argnames=("train", "deterministic"),
    )

    def logits(**kwargs):
        return np.asarray(apply(variables, x, **kwargs)[0]["logits"])

    keys = [{"dropout": jax.random.key(seed)} for seed in (0, 1)]
    evaluation = logits()
    np.testing.assert_array_equal(evaluation, logits(train=False))
    batch = logits(train=True, deterministic=True)
    assert np.abs(batch - evaluation).max() > 1e-3
    assert np.abs(logits(train=True, rngs=keys[0]) - logits(train=True, rngs=keys[1])).max() > 1e-3
    _, updated = apply(variables, x, train=True, deterministic=True)
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), updated["batch_stats"], variables["batch_stats"])
    assert min(jax.tree.leaves(moved)) > 0


def test_plain_networks_see_an_image_once_and_whole(x):
    model = build_segmenter("resnet_tiny", "fpn", **SMALL)
    assert model.shares_pass and not model.draw_view(jax.random.key(0), (33, 48)) and not model.context_view()
    variables = jax.jit(fused_init(model.init))(jax.random.key(0), x)
    features = model.apply(variables, x, method="backbone_features")
    outputs = model.apply(variables, x, train=False)
    assert set(features) == {"stem", "stage1", "stage2", "stage3", "stage4"}
    jax.tree.map(np.testing.assert_array_equal, features, {name: outputs[name] for name in features})


@pytest.mark.parametrize("head", HEADS)
def test_every_head_shows_what_its_classifier_reads(head, x):
    model = build_segmenter("resnet_tiny", head, 7)
    run = functools.partial(model.init_with_output, mutable=True)
    outputs, variables = jax.eval_shape(lambda x: run(jax.random.key(0), x), x)
    (penultimate,) = variables["intermediates"]["head"]["penultimate"]
    assert penultimate.shape[:3] == outputs["logits"].shape[:3]


def test_bfloat16_logits_are_float32(x):
    model = build_segmenter("resnet_tiny", "fpn", **SMALL, dtype=jnp.bfloat16)
    outputs, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), x)
    assert outputs["logits"].dtype == jnp.float32
    assert outputs["stage4"].dtype == jnp.bfloat16


def test_deeplab_head_sums_its_branches():
    feature = jax.random.normal(jax.random.key(0), (1, 16, 20, 6))
    head = DeepLabV2Head(5, dilations=(1, 6))
    variables = head.init(jax.random.key(1), {"stage4": feature})
    kernels = variables["params"]
    assert set(kernels) == {"conv2d_list_0", "conv2d_list_1"}
    assert 0.005 < float(kernels["conv2d_list_1"]["kernel"].std()) < 0.015
    parts = []
    for i, dilation in enumerate((1, 6)):
        single = DeepLabV2Head(5, dilations=(dilation,))
        params = {"params": {"conv2d_list_0": kernels[f"conv2d_list_{i}"]}}
        parts.append(single.apply(params, {"stage4": feature}))
    np.testing.assert_allclose(head.apply(variables, {"stage4": feature}), sum(parts), atol=1e-6)


def test_fpn_reads_its_stages():
    features = {f"stage{i}": jnp.ones((1, 32 // i, 40 // i, 3)) for i in (1, 2, 3)}
    head = FPNHead(5, channels=8, stages=("stage2", "stage3"), dropout=0.0)
    logits, variables = head.init_with_output(jax.random.key(0), features)
    assert logits.shape == (1, 16, 20, 5)
    assert set(variables["params"]) == {
        "lateral_convs_0",
        "lateral_convs_1",
        "conv",
        "bn",
        "conv_seg",
    }
    coarse = {**features, "stage3": 2 * features["stage3"]}
    assert jnp.abs(head.apply(variables, coarse) - logits).max() > 0


def test_sharded_batch(x):
    """Forward and gradient on four devices: equal to one device, and nothing gathers the batch."""
    model = build_segmenter("resnet_tiny", "fpn", **SMALL)
    variables = jax.jit(fused_init(model.init))(jax.random.key(0), x)
    sharding = NamedSharding(Mesh(np.array(jax.devices()), "data"), PartitionSpec("data"))

    def loss(params, x):
        outputs, updated = model.apply(
            {**variables, "params": params},
            x,
            train=True,
            rngs={"dropout": jax.random.key(2)},
            mutable=["batch_stats"],
        )
        return jnp.mean(outputs["logits"] ** 2), updated

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    sharded = jax.device_put(x, sharding)
    text = step.lower(variables["params"], sharded).compile().as_text()
    assert "all-reduce" in text
    for gather in ("all-gather", "all-to-all", "collective-permute"):
        assert gather not in text
    results = step(variables["params"], sharded), step(variables["params"], x)
    for got, want in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-4 * max(float(jnp.abs(want).max()), 1e-3))


def test_unknown_names_suggest():
    with pytest.raises(UserError, match="resnet_tiny"):
        build_segmenter("resnet_tinny", "fpn")
    with pytest.raises(UserError, match="deeplab_v2"):
        build_segmenter("resnet_tiny", "deeplabv2")
    with pytest.raises(UserError, match="is unknown; known: dinov2_b"):
        build_segmenter("zzz", "fpn")
    with pytest.raises(UserError, match="backbone_remat"):
        build_segmenter("resnet_tiny", "fpn", backbone_rematt=True)


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_builds(name):
    shapes = jax.eval_shape(
        lambda x: BACKBONES[name]().init_with_output(jax.random.key(0), x)[0],
        jnp.zeros((1, 224, 224, 3)),  # Whole patches of 14 pixels, and halved five times.
    )
    assert {"stage1", "stage2", "stage3", "stage4"} <= set(shapes)


@pytest.mark.parametrize("name", HEADS)
def test_every_head_takes_num_classes(name):
    assert HEADS[name](num_classes=3).num_classes == 3
