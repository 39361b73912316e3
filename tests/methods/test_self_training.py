"""Self-training under a frozen teacher: labels, losses, and what no step changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core import config as configs
from nightjax.core.errors import UserError
from nightjax.core.optim import Optimizer
from nightjax.core.step import Training
from nightjax.methods.parts.loss import FocalMixture
from nightjax.methods.parts.photometric import ColorJitter, Photometric
from nightjax.methods.self_training import SelfTraining
from tests.helpers.methods import changed


@pytest.fixture(scope="module")
def method(without_dropout):
    return SelfTraining(without_dropout, Optimizer(lr=1e-2, weight_decay=0.0), Training(10))


@pytest.fixture(scope="module")
def state(method, batch, make_state):
    return make_state(method, batch)


@pytest.fixture(scope="module")
def step(batch):
    return lambda method, state: jax.jit(method.train_step)(state, batch)


def test_two_steps_move_the_loss_and_not_the_teacher(method, state, step):
    after, first = step(method, state)
    after, second = step(method, after)
    assert np.isfinite(float(second["loss"])) and float(second["loss"]) != float(first["loss"])
    assert first.keys() >= {"loss_source", "loss_target"} and float(first["confident_fraction"]) == 1
    jax.tree.map(np.testing.assert_array_equal, after.frozen, state.frozen)  # Parameters and norm statistics.
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), after.params, state.params)
    assert max(jax.tree.leaves(moved)) > 0


def test_hard_labels_are_the_teachers_classes(method, state, step, batch):
    """The target's loss is that of supervised training on the teacher's labels."""
    image = method.network.input.decode(batch["target"]["image"])
    label = method.teacher_probabilities(state, image).argmax(-1).astype(jnp.uint8)
    assert int(label.max()) <= 18
    _, scalars = step(method, state)
    outputs, _ = method.network.student_pass(method.variables(state), image, method.training.keys(state), "target")
    expected = method.loss(outputs, label)
    assert float(scalars["loss_target"]) == pytest.approx(float(expected), rel=1e-4)
    assert float(scalars["loss"]) == pytest.approx(float(scalars["loss_source"] + scalars["loss_target"]), rel=1e-6)


@pytest.mark.slow
def test_threshold_ignores_unsure_pixels(method, state, step):
    _, scalars = step(changed(method, threshold=1.1), state)
    assert float(scalars["confident_fraction"]) == 0 and float(scalars["loss_target"]) == 0
    _, some = step(changed(method, threshold=0.06), state)
    assert 0 < float(some["confident_fraction"]) <= 1


def test_soft_labels_of_a_certain_teacher_are_hard(method, state, batch):
    part = {"target_label": jnp.zeros((2, 8, 8), jnp.uint8), "probabilities": jnp.eye(19)[jnp.zeros((2, 8, 8), int)]}
    outputs = {"logits": jax.random.normal(jax.random.key(0), (2, 8, 8, 19))}
    hard = method._target_loss(outputs, part)
    soft = changed(method, labels="soft")._target_loss(outputs, part)
    assert float(soft) == pytest.approx(float(hard), rel=1e-6)
    uniform = {"target_label": jnp.zeros((1, 2, 2), jnp.uint8), "probabilities": jnp.full((1, 2, 2, 19), 1 / 19)}
    entropy = changed(method, labels="soft")._target_loss({"logits": jnp.zeros((1, 2, 2, 19))}, uniform)
    assert float(entropy) == pytest.approx(np.log(19), rel=1e-6)


@pytest.mark.slow
def test_soft_labels_and_focal_loss_train(method, state, step):
    _, hard = step(method, state)
    _, soft = step(changed(method, labels="soft"), state)
    assert float(soft["loss_source"]) == pytest.approx(float(hard["loss_source"]), rel=1e-5)
    assert abs(float(soft["loss_target"]) - float(hard["loss_target"])) > 1e-5  # A fresh teacher is nearly uniform.
    _, focal = step(changed(method, loss__focal=FocalMixture(beta=0.0)), state)
    assert 0 < float(focal["loss_source"]) < 0.5 * float(hard["loss_source"]) + 1e-3


@pytest.mark.slow
def test_only_the_student_sees_augmentation(method, state, step):
    plain, jittered = method, changed(method, photometric=Photometric(ColorJitter(probability=1.0)))
    assert float(step(plain, state)[1]["confident_fraction"]) == float(step(jittered, state)[1]["confident_fraction"])
    assert float(step(plain, state)[1]["loss_target"]) != float(step(jittered, state)[1]["loss_target"])


def test_visualizations(method, state, batch):
    pictures = jax.jit(method.visualizations)(state, batch)
    assert pictures["pseudo_label"].dtype == jnp.uint8 and pictures["confidence"].shape == (2, 64, 64)


def test_unknown_labels(method):
    with pytest.raises(UserError, match="did you mean 'soft'"):
        parts = {"network": method.network, "optimizer": method.optimizer, "training": method.training}
        configs.build(SelfTraining, parts | {"labels": "sof"}, "method")
