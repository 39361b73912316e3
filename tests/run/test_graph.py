"""What the compiled steps may not hold: anything that gathers the batch, or a second program."""

import re
from unittest import mock

import jax
import pytest
from ml_collections import ConfigDict

from nightjax import methods
from nightjax.core import config as configs
from nightjax.core import sharding
from nightjax.run import settings, start
from nightjax.train import compile_step
from tests.helpers import toy

METHODS = ("supervised", "dacs", "dsr_fpa", "dannet", "adaptsegnet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy.write_folder(tmp_path_factory.mktemp("data"), references=True)


DAFORMER = {"backbone": "mit_tiny", "head": "daformer", "head_embed_dim": 8, "head_channels": 8}

VARIANTS = {
    "daformer": {"model": DAFORMER},
    "hrda": {"model": DAFORMER | {"hrda": True, "attention_channels": 8}},
    "deeplab_v2": {"model": {"backbone": "resnet_tiny", "head": "deeplab_v2"}},
    "refinenet": {"model": {"backbone": "resnet_tiny", "head": "refinenet", "head_channels": 8}},
    "reference_swap": {"method.reference_swap": True},
    "masking_both": {"method.masking": {"mode": "both", "block": 8}},
    "true_flow": {
        "method.refinement.aligner": "true_flow",
        "data.streams.target.fields": ("image", "reference", "flow", "flow_valid"),
    },
}
"""Of DSR+FPA: another network, or other settings."""


WHOLE = [pytest.param(1, name, marks=[pytest.mark.slow] * (name in ("dacs", "dannet"))) for name in METHODS]
IN_PARTS = [pytest.param(2, name, marks=[pytest.mark.slow] * (name != "supervised")) for name in METHODS]
"""Every method accumulates in one place, and DSR+FPA does what DACS does, AdaptSegNet what DANNet does: the rest where
there is time."""


@pytest.mark.parametrize("accumulate, name", [*WHOLE, *IN_PARTS])
def test_no_step_gathers_the_batch(folder, name, accumulate):
    config = toy.config(folder, name, batch=8, train__devices=4, train__accumulate=accumulate)
    assert_no_gather(config, name)


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_no_variant_gathers_the_batch(folder, variant, accumulate):
    config = toy.config(folder, "dsr_fpa", batch=8, train__devices=4, train__accumulate=accumulate)
    crops = {f"data.streams.{name}.crop": (64, 96) for name in config.data.streams}
    # HRDA's views are half of it, and a MiT reduces them by 32.
    whole = configs.merged(config.to_dict(), crops, {"model": None} if "model" in VARIANTS[variant] else {})
    assert_no_gather(settings.complete(ConfigDict(configs.merged(whole, VARIANTS[variant]))), variant)


def assert_no_gather(config, name):
    method, mesh = methods.build(config), sharding.make_mesh(jax.devices()[:4])
    state, batch = start.abstract_state(config, method, mesh), start.abstract_batch(config, method, mesh)
    text = compile_step(method, state, batch, mesh).as_text()
    assert "all-reduce" in text  # Gradients and statistics are global.
    found = re.findall(r"\b(all-gather|all-to-all|collective-permute)(?:-start)?\(", text)
    assert not found, f"{name}: {found}"


@pytest.mark.parametrize("flags, chosen", [("", {"xla_backend_optimization_level": 1}), (None, {})])
def test_a_level_in_xla_flags_is_kept(folder, monkeypatch, flags, chosen):
    """The tests' own flags name a level."""
    config = toy.config(folder, "supervised")
    method, mesh = methods.build(config), sharding.make_mesh(jax.devices()[:1])
    state, batch = start.abstract_state(config, method, mesh), start.abstract_batch(config, method, mesh)
    if flags is not None:
        monkeypatch.setenv("XLA_FLAGS", flags)
    with mock.patch.object(jax, "jit") as jit:
        compile_step(method, state, batch, mesh)
    assert jit.call_args.kwargs["compiler_options"] == chosen


def test_another_shape_is_an_error_and_not_a_second_program(folder):
    config = toy.config(folder, "supervised")
    method, mesh = methods.build(config), sharding.make_mesh(jax.devices()[:1])
    step = compile_step(
        method, start.abstract_state(config, method, mesh), start.abstract_batch(config, method, mesh), mesh
    )
    state = start.first_state(config, method, mesh)
    batch = jax.tree.map(
        lambda x: jax.numpy.zeros((2, *x.shape[1:]), x.dtype), start.abstract_batch(config, method, mesh)
    )
    with pytest.raises(TypeError, match="compiled with uint8"):
        step(state, batch)
