"""Distillation: what the student learns from, and what no step changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.errors import UserError
from nightjax.core.optim import Optimizer
from nightjax.core.step import Training
from nightjax.methods.distill import Distill, TeacherNetwork
from tests.helpers.methods import changed

TEACHER = {
    "backbone": "resnet_tiny",
    "head": "fpn",
    "backbone_widths": (4, 4, 8, 8),
    "backbone_depths": (1, 1, 1, 1),
    "backbone_dilations": (1, 1, 1, 2),
    "backbone_stem_features": 4,
    "head_channels": 8,
    "input": {"exposure": 0.4},
}


@pytest.fixture(scope="module")
def method(plain):
    return Distill(plain, Optimizer(lr=1e-2, weight_decay=0.0), Training(10), TeacherNetwork(TEACHER), photometric=None)


@pytest.fixture(scope="module")
def unlabeled(batch):
    return {domain: {"image": batch[domain]["image"]} for domain in ("source", "target")}


def test_two_steps_bring_the_student_nearer_and_leave_the_teacher(method, make_state, unlabeled):
    state = make_state(method, unlabeled)
    step = jax.jit(method.train_step)
    after, first = step(state, unlabeled)
    after, second = step(after, unlabeled)
    assert float(second["loss"]) < float(first["loss"])
    jax.tree.map(np.testing.assert_array_equal, after.frozen, state.frozen)
    assert set(jax.tree.leaves(method.variables(after)["params"])[0].shape) == set(
        jax.tree.leaves(state.params["student"])[0].shape
    )
    teacher = method.taught_by
    expected = 0.0
    for domain in unlabeled:
        image = unlabeled[domain]["image"]
        wanted = jax.nn.softmax(teacher.predict(state.frozen["teacher"], image))
        wanted = jax.image.resize(wanted, (*image.shape[:3], 19), "bilinear")
        logits = method.predict(method.variables(state), image)
        logits = jax.image.resize(logits, (*image.shape[:3], 19), "bilinear")
        expected -= (wanted * jax.nn.log_softmax(logits)).sum(-1).mean()
    assert float(first["loss"]) == pytest.approx(
        float(expected), rel=0.02
    )  # Probabilities are resized as logits there.


def test_the_teacher_sees_images_as_its_own_run_did(method, make_state, unlabeled):
    state = make_state(method, unlabeled)
    image = unlabeled["target"]["image"]
    darker = (image // 2).astype(jnp.uint8)
    one, two = (method.probabilities(state, x) for x in (image, darker))
    assert float(jnp.abs(one - two).mean()) < 0.05  # Its exposure is normalized, which the student's is not.


def test_without_a_teacher_it_says_how_to_name_one(method, make_state, unlabeled):
    with pytest.raises(UserError, match="teacher=RUN"):
        make_state(changed(method, teacher=TeacherNetwork({})), unlabeled)
