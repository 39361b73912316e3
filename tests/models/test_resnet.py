import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.errors import UserError
from nightjax.core.fused_init import fused_init
from nightjax.interop.torch_weights import to_torch
from nightjax.models.backbones.resnet import VARIANTS, ResNet
from nightjax.models.norm import BatchNorm

SMALL = dict(depths=(1, 2, 1, 1), widths=(4, 4, 8, 8), stem_features=8)


@pytest.fixture
def x():
    return jax.random.normal(jax.random.key(0), (2, 49, 65, 3))


def initial(model, x):
    return jax.jit(fused_init(model.init))(jax.random.key(1), x)


def parameters(model, size=(32, 32)):
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *size, 3)))
    return sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(shapes["params"]))


@pytest.mark.parametrize("name,count", [("resnet18", 11_176_512), ("resnet50", 23_508_032), ("resnet101", 42_500_160)])
def test_parameter_counts_are_torchvisions(name, count):
    assert parameters(ResNet(**VARIANTS[name])) == count


def test_tiny_is_small_and_dense(x):
    model = ResNet(**VARIANTS["resnet_tiny"])
    assert 300_000 < parameters(model) < 700_000
    shapes = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x)[0], x)
    sizes = {name: (*feature.shape[1:3], feature.shape[3]) for name, feature in shapes.items()}
    assert sizes == {
        "stem": (25, 33, 16),
        "stage1": (25, 33, 16),
        "stage2": (13, 17, 32),
        "stage3": (7, 9, 64),
        "stage4": (7, 9, 96),
    }


@pytest.mark.parametrize("stem", ["torchvision", "v1c", "3x3"])
@pytest.mark.parametrize("pool,first", [("floor", (12, 16)), ("ceil", (13, 17)), ("none", (24, 32))])
def test_sizes(stem, pool, first):
    model = ResNet(**SMALL, stem=stem, pool=pool, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))
    features = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x)[0], jnp.zeros((1, 48, 64, 3)))
    assert features["stem"].shape == (1, 24, 32, 8)
    assert features["stage1"].shape == (1, *first, 16)
    half = tuple(-(-n // 2) for n in first)
    assert [features[f"stage{i}"].shape for i in (2, 3, 4)] == [
        (1, *half, 16),
        (1, *half, 32),
        (1, *half, 32),
    ]


def test_names_are_torchs(x):
    names = {}
    for stem in ("torchvision", "v1c"):
        shapes = jax.eval_shape(ResNet(**SMALL, stem=stem).init, jax.random.key(0), x)
        names[stem] = set(to_torch(jax.tree.map(lambda leaf: np.zeros(leaf.shape), shapes)))
    block = {f"layer2.1.conv{i}.weight" for i in (1, 2, 3)} | {"layer2.1.bn3.running_var"}
    for stem_names in names.values():
        assert block | {"layer2.0.downsample.0.weight", "layer2.0.downsample.1.running_mean"} <= stem_names
        assert "layer2.1.downsample.0.weight" not in stem_names
    assert {"conv1.weight", "bn1.weight"} <= names["torchvision"] - names["v1c"]
    assert {"stem.0.weight", "stem.1.bias", "stem.3.weight", "stem.6.weight"} <= names["v1c"]


def test_style_moves_the_stride():
    """Same parameters and sizes; outputs differ from the first strided block on."""
    x = jax.random.normal(jax.random.key(0), (1, 32, 32, 3))
    outputs = {}
    variables = initial(ResNet(**SMALL), x)
    for style in ("pytorch", "caffe"):
        outputs[style] = jax.jit(ResNet(**SMALL, style=style).apply)(variables, x)
    np.testing.assert_array_equal(outputs["pytorch"]["stage1"], outputs["caffe"]["stage1"])
    assert outputs["pytorch"]["stage2"].shape == outputs["caffe"]["stage2"].shape
    assert jnp.abs(outputs["pytorch"]["stage2"] - outputs["caffe"]["stage2"]).max() > 1e-3


@pytest.mark.parametrize(
    "dilations,reach",
    [((1,) * 4, 2), ((1, 1, 1, (2,)), 2), ((1, 3, 1, 1), 6), ((1, (1, 3), 1, 1), 4)],
)
def test_dilation_per_stage_or_block(dilations, reach):
    """How far a stage-1 cell is seen in stage 2, which has two 3x3 convolutions at stride 1."""
    model = ResNet(**SMALL, pool="none", stem="3x3", strides=(1, 1, 1, 1), dilations=dilations)
    x = jax.random.normal(jax.random.key(0), (1, 48, 48, 3))
    variables = initial(model, x)
    unit = jax.jit(lambda x: model.apply(variables, x))
    moved = unit(x.at[0, 24, 24].add(1.0))
    spread = []
    for stage in ("stage1", "stage2"):
        changed = np.argwhere(np.abs(moved[stage] - unit(x)[stage])[0].max(-1) > 0)
        spread.append((np.ptp(changed[:, 0]) + 1) / 2)
    assert round(spread[1] - spread[0]) == reach


@pytest.mark.parametrize("attribute", ["block", "stem", "pool", "style"])
def test_unknown_choice(attribute, x):
    with pytest.raises(UserError, match=f"{attribute} 'odd'.*choose from"):
        ResNet(**{**SMALL, attribute: "odd"}).init(jax.random.key(0), x)


@pytest.mark.parametrize(
    "option",
    [
        pytest.param({"remat": True}, marks=pytest.mark.slow),
        pytest.param({"remat": True, "stored": "products"}, marks=pytest.mark.slow),
        pytest.param({"scan": True}, marks=pytest.mark.slow),
    ],
)
def test_way_to_compute_changes_nothing(x, option):
    """Neither gradients nor statistics; a stage of three blocks has two equal ones to scan."""
    small = SMALL | {"depths": (1, 3, 1, 1)}
    plain, other = ResNet(**small), ResNet(**small, **option)
    variables = initial(plain, x)

    def loss(model, params):
        out, updated = model.apply({**variables, "params": params}, x, train=True, mutable=["batch_stats"])
        return jnp.mean(out["stage4"] ** 2), updated

    results = [
        jax.jit(jax.grad(functools.partial(loss, model), has_aux=True))(variables["params"]) for model in (plain, other)
    ]
    assert jax.tree.structure(results[0]) == jax.tree.structure(results[1])
    for got, want in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_frozen_norm(x):
    model = ResNet(**SMALL, norm=functools.partial(BatchNorm, frozen=True))
    variables = initial(model, x)
    train = jax.jit(functools.partial(model.apply, train=True, mutable=["batch_stats"]))
    out, updated = train(variables, x)
    jax.tree.map(np.testing.assert_array_equal, updated["batch_stats"], variables["batch_stats"])
    np.testing.assert_allclose(out["stage4"], jax.jit(model.apply)(variables, x)["stage4"], rtol=1e-5)


def test_bfloat16(x):
    model = ResNet(**SMALL, dtype=jnp.bfloat16)
    out, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), x)
    assert out["stage4"].dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
