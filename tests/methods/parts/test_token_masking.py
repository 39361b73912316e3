"""Masked tokens in a self-training step."""

import dataclasses

import jax
import numpy as np
import pytest

from nightjax.core.fused_init import fused_init
from nightjax.core.optim import Optimizer
from nightjax.core.step import Training
from nightjax.methods.dacs import Dacs
from nightjax.methods.parts.masking import MaskedConsistency
from nightjax.methods.parts.network import SegmentationNetwork
from nightjax.models import build_segmenter


@pytest.fixture(scope="module")
def method():
    model = build_segmenter(
        "dinov2_tiny", "upscale", backbone_fit="resize", backbone_layers=(1, 3), head_stage="stage2"
    )
    network = SegmentationNetwork(model)
    masking = MaskedConsistency(kind="token", photometric=None)
    return Dacs(network, Optimizer(lr=1e-3), Training(10), masking=masking, feature_distance=None)


@pytest.mark.slow
def test_tokens_are_masked_and_their_token_learns(method, batch, make_state):
    state = make_state(method, batch)
    examples = method.prepare(state, method.variables(state, "teacher"), batch)[1]
    mask = examples["masked_tokens"]
    assert mask.shape == (2, 25) and mask.dtype == bool  # 64 pixels become 70, five patches a side.
    assert not np.array_equal(mask[0], mask[1]) and 0.4 < mask.mean() < 0.95
    decoded = method.network.decode(batch)["target"]["image"]
    np.testing.assert_array_equal(examples["masked"], decoded)
    new, scalars = jax.jit(method.train_step)(state, batch)
    assert np.isfinite(scalars["loss_masked"])
    moved = new.params["student"]["backbone"]["mask_token"] - state.params["student"]["backbone"]["mask_token"]
    assert np.abs(moved).max() > 0


def test_no_token_is_masked_at_ratio_0(method, batch, make_state):
    """Then the masked pass is a plain one on the target."""
    plain = dataclasses.replace(method, masking=MaskedConsistency(kind="token", ratio=0.0, photometric=None))
    state = jax.jit(fused_init(plain.init))(jax.random.key(0), batch)
    examples = plain.prepare(state, plain.variables(state, "teacher"), batch)[1]
    assert not examples["masked_tokens"].any()
    every = dataclasses.replace(method.masking, ratio=1.0)
    examples = dataclasses.replace(method, masking=every).prepare(state, plain.variables(state, "teacher"), batch)[1]
    assert examples["masked_tokens"].all()
