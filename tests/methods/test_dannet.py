"""DANNet's step: what moves, what stays, and where gradients stop."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.optim import Group, Optimizer
from nightjax.methods.dannet import Dannet
from nightjax.models import build_segmenter
from nightjax.models.discriminator import Discriminator
from nightjax.models.relight import LightNet


@pytest.fixture(scope="module")
def method():
    model = build_segmenter(
        "resnet_tiny",
        "psp",
        backbone_depths=(1, 1, 1, 1),
        backbone_dilations=(1, 1, 2, 4),
        backbone_widths=(4, 4, 8, 8),
        backbone_stem_features=4,
        head_channels=4,
        auxiliary="psp_auxiliary",
        auxiliary_channels=4,
    )
    return Dannet(
        model=model,
        optimizer=Optimizer(
            name="sgd",
            lr=1e-2,
            weight_decay=5e-4,
            decay_vectors=True,
            groups=(Group("^student/auxiliary/", lr=0.0),),
        ),
        steps=10,
        light=LightNet(features=2, blocks=1),
        discriminator=Discriminator(features=2),
        test_class_weights=tuple(np.linspace(0.5, 1.5, 19)),
    )


@pytest.fixture(scope="module")
def steps(method, batch):
    """The first state, the state after two steps, and the scalars of both."""
    first = state = jax.jit(method.init)(jax.random.key(0), batch)
    step, scalars = jax.jit(method.train_step), []
    for _ in range(2):
        state, values = step(state, batch)
        scalars.append(values)
    return first, state, scalars


def moved(first, last):
    """Paths of the leaves that changed."""
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), first, last)
    flat = jax.tree_util.tree_flatten_with_path(changed)[0]
    return {"/".join(key.key for key in path): value for path, value in flat}


def test_two_steps_are_finite_and_move_the_loss(steps):
    _, state, scalars = steps
    assert state.step == 2
    assert all(np.isfinite(value) for values in scalars for value in values.values())
    assert scalars[0]["loss"] != scalars[1]["loss"]


def test_everything_is_trained_but_the_auxiliary_classifier(steps):
    first, state, _ = steps
    params = moved(first.params, state.params)
    assert {path for path, changed in params.items() if not changed} == {
        path for path in params if path.startswith("student/auxiliary/")
    }
    statistics = moved(first.batch_stats, state.batch_stats)
    assert any(path.startswith("student/auxiliary/") for path in statistics)
    assert all(statistics.values())


def test_the_loss_is_the_sum_of_its_weighted_terms(steps):
    for scalars in steps[2]:
        total = scalars["segmentation"] + scalars["static"]
        for domain, weight in (("day", 0.01), ("night", 0.01), ("source", 1.0)):
            light = 10 * scalars[f"tv_{domain}"] + scalars[f"ssim_{domain}"]
            total += weight * (light + scalars[f"exposure_{domain}"])
            if domain != "source":
                total += 0.01 * scalars[f"adversarial_{domain}"]
        np.testing.assert_allclose(scalars["loss"], total, rtol=1e-5)


def test_parts_can_be_switched_off(method, steps, batch):
    first = steps[0]
    off = {"relight": False, "adversarial_weight": 0.0, "static_weight": 0.0}
    source_only = dataclasses.replace(method, **off)
    state, scalars = jax.jit(source_only.train_step)(first, batch)
    np.testing.assert_allclose(scalars["loss"], scalars["segmentation"], rtol=1e-6)
    statistics = moved(first.batch_stats["student"]["light"], state.batch_stats["student"]["light"])
    assert not any(statistics.values())


def test_prediction_weights_the_logits_of_the_relit_image(method, steps, batch):
    _, state, _ = steps
    image = batch["target"]["image"]
    variables = method.variables(state)
    logits = jax.jit(method.predict)(variables, image)
    plain = dataclasses.replace(method, test_class_weights=None).predict(variables, image)
    np.testing.assert_allclose(logits, plain * np.linspace(0.5, 1.5, 19), rtol=1e-4, atol=1e-5)
    dark = dataclasses.replace(method, relight=False).predict(variables, image)
    assert np.abs(logits - dark).max() > 1e-3


def test_panels(method, steps, batch):
    panels = jax.jit(method.panels)(steps[1], batch)
    assert {"night_relit", "night_residual", "discriminator_day", "pseudo_label"} <= set(panels)
    for name, picture in panels.items():
        assert picture.dtype in (jnp.uint8, jnp.float32), name
        if picture.dtype == jnp.float32:
            assert picture.shape[-1] == 3
            assert 0 <= float(picture.min()) and float(picture.max()) <= 1
