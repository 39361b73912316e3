"""AdaptSegNet's step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nightjax.core.errors import UserError
from nightjax.core.fused_init import fused_init
from nightjax.core.optim import Group, Optimizer
from nightjax.core.step import Training
from nightjax.methods.adaptsegnet import AdaptSegNet
from nightjax.methods.parts.discriminators import DiscriminatorForm, Discriminators
from nightjax.methods.parts.network import InputNormalization, SegmentationNetwork
from nightjax.models import build_segmenter
from nightjax.models.discriminator import VARIANTS
from nightjax.models.segmenter import Segmenter
from nightjax.ops.resize import resize
from nightjax.zoo.models import INPUTS

DISCRIMINATORS = Discriminators(DiscriminatorForm(2, **VARIANTS["adaptsegnet"]), kind="vanilla")


@pytest.fixture(scope="module")
def method():
    model = build_segmenter(
        "resnet_tiny",
        "deeplab_v2",
        backbone_depths=(1, 1, 1, 1),
        backbone_dilations=(1, 1, 2, 4),
        backbone_widths=(4, 4, 8, 8),
        backbone_stem_features=4,
        head_summed=2,
        auxiliary="deeplab_v2",
        auxiliary_summed=2,
        auxiliary_stage="stage3",
    )
    return AdaptSegNet(
        SegmentationNetwork(model, InputNormalization(**INPUTS["caffe"])),
        Optimizer(
            name="sgd",
            lr=1e-2,
            weight_decay=5e-4,
            decay_vectors=True,
            groups=(Group("conv2d_list_[23]", lr=0.0),),
        ),
        Training(10),
        discriminators=DISCRIMINATORS,
    )


@pytest.fixture(scope="module")
def first(method, batch):
    return jax.jit(fused_init(method.init))(jax.random.key(0), batch)


def test_two_steps(method, first, batch):
    step, state, losses = jax.jit(method.train_step), first, []
    for _ in range(2):
        state, scalars = step(state, batch)
        assert all(np.isfinite(value) for value in scalars.values())
        total = (
            0.1 * scalars["segmentation_level1"]
            + scalars["segmentation_level2"]
            + 0.0002 * scalars["adversarial_level1"]
            + 0.001 * scalars["adversarial_level2"]
        )
        np.testing.assert_allclose(scalars["loss"], total, rtol=1e-5)
        losses.append(scalars["loss"])
    assert losses[0] != losses[1]
    for network in ("student", "level1", "level2"):
        before, after = (jax.tree.leaves(s.params[network]) for s in (first, state))
        assert any((a != b).any() for a, b in zip(before, after, strict=True))
    for branch in ("conv2d_list_2", "conv2d_list_3"):
        before, after = (s.params["student"]["head"][branch]["kernel"] for s in (first, state))
        np.testing.assert_array_equal(before, after)


def test_no_gradient_across_networks(plain, batch):
    """A far larger adversarial loss leaves the discriminators alone; the student steps by the gradient of its own."""
    usual = AdaptSegNet(
        SegmentationNetwork(Segmenter(plain.model.backbone, plain.model.head, plain.model.head.clone())),
        Optimizer(name="sgd", lr=1.0, schedule="constant", weight_decay=0.0),
        Training(10),
        discriminators=DISCRIMINATORS,
    )
    # Its gradient is of the order of the other's.
    weights = tuple(1e5 * weight for weight in usual.adversarial_weights)
    strong = dataclasses.replace(usual, adversarial_weights=weights)
    shapes, rng = jax.eval_shape(usual.init, jax.random.key(0), batch), np.random.default_rng(0)
    # Compiling the real one takes longer than the steps.
    first = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    first = first.replace(params=jax.tree.map(lambda x: rng.normal(0, 0.1, x.shape).astype(x.dtype), shapes.params))
    before, after = (jax.jit(method.train_step)(first, batch)[0] for method in (usual, strong))
    for name in usual.discriminator_names:
        jax.tree.map(np.testing.assert_array_equal, before.params[name], after.params[name])

    label, names = batch["source"]["label"], {"level1": "auxiliary_logits", "level2": "logits"}

    def forward(params, domain):
        x = usual.network.input(batch[domain]["image"])
        outputs = usual.network.model.apply({"params": params}, x, train=True)
        return {level: resize(outputs[name], label.shape[1:], align_corners=True) for level, name in names.items()}

    def loss(params, weights):
        total, valid = 0.0, label != 255
        for weight, logits in zip((0.1, 1.0), forward(params, "source").values(), strict=True):
            pixels = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.where(valid, label, 0))
            total += weight * (pixels * valid).sum() / valid.sum()
        for weight, (level, logits) in zip(weights, forward(params, "target").items(), strict=True):
            scores = strong.discriminators.scores(first.params[level], jax.nn.softmax(logits))
            total += weight * jax.nn.softplus(scores).mean()
        return total

    gradient, student = jax.jit(jax.grad(loss)), first.params["student"]
    step = jax.tree.map(lambda old, new: old - new, student, after.params["student"])
    error = lambda x: float(optax.tree.norm(jax.tree.map(jnp.subtract, step, x)) / optax.tree.norm(step))
    assert error(gradient(student, weights)) < 1e-5 and error(gradient(student, (0.0, 0.0))) > 0.1


def test_prediction_and_visualizations(method, first, batch):
    shown = jax.jit(method.visualizations)(first, batch)
    assert shown["prediction"].shape == batch["target"]["image"].shape[:3]
    assert shown["prediction"].dtype == jnp.uint8
    for level in method.discriminator_names:
        assert shown[f"discriminator_{level}"].shape[-1] == 3


@pytest.mark.slow
def test_one_level(method, batch):
    """Weights of 0 leave a level, its discriminator and its classifier out."""
    one = dataclasses.replace(
        method,
        segmentation_weights=(0.0, 1.0),
        adversarial_weights=(0.0, 0.01),
        discriminators=dataclasses.replace(DISCRIMINATORS, kind="least_squares"),
        optimizer=dataclasses.replace(method.optimizer, groups=(Group("^auxiliary/|conv2d_list_[23]", lr=0.0),)),
    )
    first = jax.jit(fused_init(one.init))(jax.random.key(0), batch)
    assert set(first.params) == {"student", "level2"}
    state, scalars = jax.jit(one.train_step)(first, batch)
    assert not [name for name in scalars if name.endswith("level1")]
    total = scalars["segmentation_level2"] + 0.01 * scalars["adversarial_level2"]
    np.testing.assert_allclose(scalars["loss"], total, rtol=1e-5)
    auxiliary = (s.params["student"]["auxiliary"] for s in (first, state))
    jax.tree.map(np.testing.assert_array_equal, *auxiliary)


def test_level_one_needs_an_auxiliary_classifier(method, small_resnet):
    with pytest.raises(UserError, match="auxiliary classifier"):
        dataclasses.replace(method, network=small_resnet)
    single = {"segmentation_weights": (0.0, 1.0), "adversarial_weights": (0.0, 0.001)}
    assert dataclasses.replace(method, network=small_resnet, **single).discriminator_names == ("level2",)
