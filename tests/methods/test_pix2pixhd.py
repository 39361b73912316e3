import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core import config as configs
from nightjax.core.errors import UserError
from nightjax.core.fused_init import fused_init
from nightjax.core.optim import Optimizer
from nightjax.core.step import Training
from nightjax.methods.pix2pixhd import Pix2PixHD, VGGLoss
from nightjax.models.cyclegan import ResnetGenerator

VGG = ((2,), (2,), (2,), (2,), (2,))


@pytest.fixture(scope="module")
def method():
    return Pix2PixHD(
        ResnetGenerator(2, blocks=1),
        Optimizer(name="adam", lr=1e-3, b1=0.5, weight_decay=0.0),
        Training(10),
        discriminator_features=2,
        vgg=VGGLoss(VGG),
    )


@pytest.fixture(scope="module")
def batch():
    rng = np.random.RandomState(0)
    image = lambda: jnp.asarray(rng.randint(0, 256, (2, 32, 48, 3)), jnp.uint8)
    label = jnp.asarray(rng.choice([0, 2, 18, 255], (2, 32, 48)), jnp.uint8)
    return {"source": {"image": image(), "label": label}, "target": {"image": image(), "reference": image()}}


@pytest.fixture(scope="module")
def steps(method, batch):
    """The first state, the state after two steps, and the scalars of both."""
    first = state = jax.jit(fused_init(method.init))(jax.random.key(0), batch)
    step, scalars = jax.jit(method.train_step), []
    for _ in range(2):
        state, values = step(state, batch)
        scalars.append(values)
    return first, state, scalars


def test_steps_are_finite_and_move_both_players(steps):
    first, state, scalars = steps
    assert all(np.isfinite(value) for values in scalars for value in values.values())
    assert scalars[0]["loss"] != scalars[1]["loss"]
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), first.params, state.params)
    assert all(jax.tree.leaves(moved))
    frozen = jax.tree.map(lambda a, b: bool((a == b).all()), first.frozen, state.frozen)
    assert all(jax.tree.leaves(frozen))


def test_loss_is_the_sum_of_its_weighted_terms(steps):
    for values in steps[2]:
        total = values["adversarial"] + 10 * (values["feature_matching"] + values["vgg"])
        np.testing.assert_allclose(values["loss"], total, rtol=1e-5)


def test_real_branch_gets_no_gradient_in_the_generators_turn(method, batch, steps):
    part = method._pair(batch)

    def loss(target):
        return method.generator_loss(steps[0], steps[0].params, {}, part | {"target": target}, 0)[0]

    np.testing.assert_array_equal(jax.jit(jax.grad(loss))(part["target"]), 0)


def test_what_is_translated(method, batch):
    assert method.domains == ("source",)
    images = dataclasses.replace(method, translates="image")
    assert images.domains == ("target",)
    shapes = jax.eval_shape(images.init, jax.random.key(0), batch)
    assert shapes.params["generators"]["model_1"]["kernel"].shape[2] == 3
    shapes = jax.eval_shape(method.init, jax.random.key(0), batch)
    assert shapes.params["generators"]["model_1"]["kernel"].shape[2] == 20
    assert shapes.params["discriminator"]["cnns_0"]["0"]["conv"]["kernel"].shape[2] == 23
    with pytest.raises(UserError, match="did you mean 'label'"):
        parts = {"model": method.model, "optimizer": method.optimizer, "training": method.training}
        configs.build(Pix2PixHD, parts | {"translates": "labels"}, "method")


def test_without_vgg(method, batch):
    without = dataclasses.replace(method, vgg=None)
    first = jax.eval_shape(without.init, jax.random.key(0), batch)
    assert first.frozen == {}
    scalars = jax.eval_shape(without.train_step, first, batch)[1]
    assert "feature_matching" in scalars and "vgg" not in scalars


def test_translation_of_labels_of_any_size(method, steps, batch):
    label = batch["source"]["label"][:, :30, :37]
    picture = method.translate(method.variables(steps[1]), label)
    assert picture.shape == (2, 30, 37, 3)
    assert float(picture.min()) >= 0 and float(picture.max()) <= 1
    with pytest.raises(UserError, match="nightjax pairs"):
        method.translate(method.variables(steps[1]), batch["source"]["image"])


def test_visualizations(method, steps, batch):
    shown = jax.jit(method.visualizations)(steps[1], batch)
    assert set(shown) == {"given", "wanted", "translation"}
    assert shown["translation"].shape == (2, 32, 48, 3)
