"""Plain vision transformers in configs: what is trained, how fast, and VFM-UDA's settings."""

import jax
import numpy as np
import pytest

from nightjax import methods
from nightjax.core import sharding
from nightjax.core.errors import UserError
from nightjax.core.partition import BASE
from nightjax.run import settings, start
from nightjax.run.start import count_parameters
from tests.helpers.rates import learning_rates

DZ = "data=cityscapes_to_dark_zurich"
TINY = "data=nightstreet_tiny,model=vit_tiny"


def head_parameters(dim):
    """2 D^2 + D^2 / 2 + 9 D^2 / 16 + norms + K D / 4."""
    return 2 * dim**2 + dim**2 // 2 + 9 * dim**2 // 16 + 2 * dim + 19 * dim // 4


def shapes_of(path):
    config = settings.load(path)
    method, mesh = methods.build(config), sharding.make_mesh(jax.devices()[:1])
    return config, method, start.abstract_state(config, method, mesh), start.abstract_batch(config, method, mesh)


def test_rates_of_a_large_backbone_fall_downwards():
    """ViT-L: 0.9 for each block, and for what is before the first; the others have one rate."""
    rates = learning_rates(f"vfm_uda:{DZ},model=dinov2_l")
    blocks = np.ravel(rates["backbone/blocks/attn/qkv/kernel"])
    np.testing.assert_allclose(blocks, 0.1 * 0.9 ** np.arange(23, -1, -1), rtol=1e-6)
    for name in ("pos_embed", "mask_token", "norm/scale", "patch_embed/proj/kernel"):
        np.testing.assert_allclose(rates[f"backbone/{name}"], 0.1 * 0.9**24, rtol=1e-6)
    assert rates["head/out/kernel"] == 1.0
    rates = learning_rates(f"dacs:{DZ},model=dinov2_b")
    assert {rate for name, rate in rates.items() if name.startswith("backbone/")} == {0.1}


def test_tokens_do_not_decay():
    config, method, shapes, _ = shapes_of(f"vfm_uda:{DZ},model=dinov2_s_reg")
    _, decays = method.optimizer._factors(shapes.params, method.stacks)
    backbone = decays["student"]["backbone"]
    for name in ("cls_token", "pos_embed", "register_tokens", "mask_token"):
        assert backbone[name] == 0
    for name in ("ls1", "norm1"):
        assert not any(jax.tree.leaves(backbone["blocks"][name]))
    assert backbone["blocks"]["attn"]["qkv"] == {"kernel": 1, "bias": 0}


@pytest.mark.parametrize(("tune", "trained"), [("adapters", 2_654_208), ("norms", None), ("head", 0)])
def test_what_is_trained(tune, trained):
    """At full size: adapters of rank 16 in the six linear maps of ViT-B, and the head."""
    _, method, shapes, _ = shapes_of(f"vfm_uda:{DZ},tune={tune}")
    params = shapes.params["student"]
    backbone = count_parameters(params.get("backbone", {}))
    if tune == "norms":  # Two norms and two scales in each of 12 blocks, and the last norm.
        trained = 2_654_208 + 12 * (4 * 768 + 2 * 768) + 2 * 768
    assert backbone == trained
    whole = method.variables(shapes)["params"]
    adapters = 0 if tune == "head" else 2_654_208
    assert count_parameters(whole["backbone"]) == 86_580_480 + adapters
    assert BASE in shapes.frozen and count_parameters(shapes.teacher["params"]) == count_parameters(params)
    assert count_parameters(params["head"]) == head_parameters(768)


def test_published_settings():
    config = settings.load(f"vfm_uda:{DZ}")
    assert (config.model.backbone, config.model.head, config.model.pyramid) == ("dinov2_b", "upscale", None)
    assert config.model.backbone_fit == "resize" and config.model.backbone_remat
    assert config.optim.schedule == "warmup_line" and config.optim.lr == 1.4e-4
    for stream in config.data.streams.values():
        assert tuple(stream.crop) == (1024, 1024) and tuple(stream.scale_range) == (0.9, 1.1)
    masking = config.method.masking
    assert (masking.kind, masking.mode, masking.ratio) == ("token", "target", 0.7)
    assert config.method.pseudo_labels.flip and config.method.feature_distance is None
    rows = settings.load("vfm_uda:data=gta5_to_cityscapes").method.pseudo_labels
    assert (rows.ignore_top, rows.ignore_bottom) == (30, 240)


def test_the_source_only_network_is_the_same():
    for more in ("", ",tune=adapters"):
        adapted, alone = (settings.load(f"vfm_uda:{DZ}{more}{only}") for only in ("", ",source_only=1"))
        assert adapted.model == alone.model and adapted.optim == alone.optim
        assert alone.method.name == "supervised" and list(alone.data.streams) == ["source"]
        assert adapted.data.streams.source == alone.data.streams.source


def test_adapters_need_a_transformer():
    with pytest.raises(UserError, match="tune=adapters needs a transformer, and resnet_tiny"):
        settings.load("dacs:data=nightstreet_tiny,tune=adapters")
    with pytest.raises(UserError, match="kind=token needs a network with a mask token"):
        shapes_and_trace("vfm_uda:data=nightstreet_tiny,model=tiny")


def shapes_and_trace(path):
    _, method, shapes, batch = shapes_of(path)
    return jax.eval_shape(method.train_step, shapes, batch)[1]


EVERY = {
    "supervised": {"loss"},
    "dacs": {"loss_mixed"},
    "dsr_fpa": {"loss_fpa"},
    "t2s_da": {"loss_pull"},
    "t2s_da:mode=dg": {"loss_pull"},
    "dannet": {"static"},
    "adaptsegnet": {"adversarial_level2"},
    "nightlab": {"loss"},
    "vfm_uda": {"loss_masked"},
}
"""Config to scalars of its step."""


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_every_method_takes_a_plain_transformer(name):
    """Traced, on images that are no multiple of the patch."""
    config, _, argument = name.partition(":")
    path = f"{config}:{TINY}" + (f",{argument}" if argument else "")
    assert EVERY[name] <= set(shapes_and_trace(path))
    if config in ("supervised", "dacs", "dsr_fpa", "t2s_da", "vfm_uda"):
        for tune in ("adapters", "head"):
            assert EVERY[name] <= set(shapes_and_trace(f"{path},tune={tune}"))


PUBLISHED = ("dacs", "dsr_fpa", "t2s_da", "vfm_uda", "supervised")


@pytest.mark.parametrize(("name", "model"), [("dacs", "dinov2_b"), ("vfm_uda", "dinov2_l_reg")])
def test_full_size_steps_trace(name, model):
    assert "loss_mixed" in shapes_and_trace(f"{name}:{DZ},model={model}")


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("model", ["dinov2_s", "dinov2_b_reg", "dinov2_l"])
def test_every_full_size_step_traces(name, model):
    assert "loss" in shapes_and_trace(f"{name}:{DZ},model={model}")


@pytest.mark.parametrize(
    ("model", "dim", "backbone"),
    [("dinov2_s", 384, 22_056_576), ("dinov2_b", 768, 86_580_480), ("dinov2_l", 1024, 304_368_640)],
)
def test_full_size_steps_lower(model, dim, backbone):
    """To the program that the compiler takes, with every parameter of backbone and head in it."""
    _, method, shapes, batch = shapes_of(f"vfm_uda:{DZ},model={model}")
    params = method.variables(shapes)["params"]
    assert count_parameters(params) == backbone + head_parameters(dim)
    text = jax.jit(method.train_step).lower(shapes, batch).as_text()
    assert "stablehlo.dot_general" in text and f"x{dim}x{3 * dim}xf32" in text
