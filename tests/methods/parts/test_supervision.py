"""Auxiliary classifier, relighting and joint training of supervised segmenters."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.fused_init import fused_init
from nightjax.core.optim import Optimizer
from nightjax.core.step import Training
from nightjax.losses.light import light_loss
from nightjax.methods.parts.network import SegmentationNetwork, interleave
from nightjax.methods.supervised import Supervised
from nightjax.models import build_segmenter


@pytest.fixture(scope="module")
def method():
    model = build_segmenter(
        "resnet_tiny",
        "deeplab_v3plus",
        auxiliary="fcn",
        relight=True,
        backbone_depths=(1, 1, 1, 1),
        backbone_dilations=(1, 1, 2, 4),
        backbone_widths=(4, 4, 8, 8),
        backbone_stem_features=4,
        head_channels=8,
        head_low_channels=4,
        head_dilations=(1, 2),
        head_dropout=0.0,
        auxiliary_channels=4,
        auxiliary_dropout=0.0,
        relight_features=2,
        relight_blocks=1,
    )
    return Supervised(SegmentationNetwork(model), Optimizer(lr=1e-2, weight_decay=0.0), Training(10), joint=True)


@pytest.fixture(scope="module")
def joint_batch(batch):
    rng = np.random.RandomState(1)
    day = {
        "image": jnp.asarray(rng.randint(0, 256, batch["source"]["image"].shape), jnp.uint8),
        "label": batch["source"]["label"],
    }
    return {"source": batch["source"], "day": day}


@pytest.fixture(scope="module")
def first(method, joint_batch):
    return jax.jit(fused_init(method.init))(jax.random.key(0), joint_batch)


def test_loss_is_the_sum_of_its_weighted_terms(method, first, joint_batch):
    state, values = jax.jit(method.train_step)(first, joint_batch)
    light = 0.01 * values["light_source"] + values["light_day"]
    np.testing.assert_allclose(values["loss"], values["segmentation"] + 0.4 * values["auxiliary"] + light, rtol=1e-5)
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), first.params, state.params)
    assert all(jax.tree.leaves(moved))


@pytest.mark.slow
def test_light_losses_are_each_domains_own(method, first, joint_batch):
    network, variables, keys = method.network, method.variables(first), method.training.keys(first)
    images = [network.input.decode(joint_batch[name]["image"]) for name in ("source", "day")]
    level = network.input.normalize(images[0]).mean()
    outputs, _ = network.student_pass(variables, interleave(images), keys, "source")
    examples = method.supervision.examples(joint_batch, keys)
    np.testing.assert_allclose(method.supervision.level(examples), level, rtol=1e-6)
    _, values, _ = method.supervision(variables, examples, level, keys)
    for i, name in enumerate(("source", "day")):
        expected = light_loss(network.input.normalize(images[i]), outputs["residual"][i::2], level)["total"]
        np.testing.assert_allclose(values[f"light_{name}"], expected, rtol=1e-4)


def test_domains(method):
    assert method.domains == ("source", "day")
    assert dataclasses.replace(method, joint=False).domains == ("source",)


def test_visualizations_show_the_relit_image(method, first, joint_batch):
    shown = jax.jit(method.visualizations)(first, joint_batch)
    assert shown["relit"].shape == joint_batch["source"]["image"].shape
    assert float(shown["relit"].min()) >= 0 and float(shown["relit"].max()) <= 1
