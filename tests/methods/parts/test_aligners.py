"""Aligners by hand, and the place of a matcher's weights in the state."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from nightjax.core.optim import Optimizer
from nightjax.core.step import Training
from nightjax.methods.dsr_fpa import DsrFpa
from nightjax.methods.parts import aligners
from nightjax.methods.parts.mixing import ClassMix
from nightjax.methods.parts.refinement import DayRefinement
from nightjax.methods.parts.source_terms import teacher_logits
from nightjax.ops import pseudo_label
from tests.helpers.methods import changed

RAMP = jnp.tile(jnp.arange(5.0), (4, 1))[None, :, :, None]
ONE_RIGHT = jnp.broadcast_to(jnp.array([1.0, 0.0]), (1, 4, 5, 2))


class Shift(nn.Module):
    """A matcher that finds the same flow everywhere, with a variance of 1."""

    @nn.compact
    def __call__(self, target, source):
        flow = self.param("flow", nn.initializers.constant(1.0), (2,)) * jnp.array([1.0, 0.0])
        shape = target.shape[:3]
        return {"flow": jnp.broadcast_to(flow, (*shape, 2)), "logvar": jnp.zeros((*shape, 1))}


@pytest.fixture
def shifting(monkeypatch):
    """``aligner="uawarpc"`` builds `Shift`."""
    monkeypatch.setitem(aligners.ALIGNERS, "uawarpc", lambda matcher: aligners.UAWarpC(Shift()))


def assert_one_right(alignment, confidence, valid):
    np.testing.assert_allclose(alignment.logits[0, :, :, 0], np.tile([1, 2, 3, 4, 0], (4, 1)), atol=1e-6)
    np.testing.assert_allclose(alignment.confidence, np.full((1, 4, 5), confidence), atol=1e-6)
    np.testing.assert_array_equal(alignment.valid[0], valid)


def test_unaligned_takes_the_day_as_it_is():
    aligner = aligners.ALIGNERS["none"]("")
    assert aligner.init(jax.random.key(0), (4, 5)) == {}
    assert aligner({}, {}, None, None, RAMP) == (RAMP, None, None)


def test_true_flow_is_certain_where_it_is_known():
    known = jnp.ones((1, 4, 5), bool).at[0, 1, 1].set(False)
    alignment = aligners.ALIGNERS["true_flow"]("")({}, {"flow": ONE_RIGHT, "flow_valid": known}, None, None, RAMP)
    valid = np.zeros((4, 5), bool)
    valid[1:3, :3] = True
    valid[1, 1] = False
    assert_one_right(alignment, 1.0, valid)


def test_matcher_warps_and_says_how_sure_it_is():
    aligner = aligners.UAWarpC(Shift())
    variables = aligner.init(jax.random.key(0), (4, 5))
    image = jnp.zeros((1, 4, 5, 3))
    valid = np.zeros((4, 5), bool)
    valid[1:3, :3] = True
    assert_one_right(aligner(variables, {}, image, image, RAMP), 0.393469, valid)


def test_aligner_has_no_gradient():
    aligner = aligners.UAWarpC(Shift())
    variables = aligner.init(jax.random.key(0), (4, 5))
    image = jnp.zeros((1, 4, 5, 3))
    slope = jax.grad(lambda v: aligner(v, {}, image, image, RAMP).logits.sum())(variables)
    assert slope["params"]["flow"].tolist() == [0.0, 0.0]


@pytest.fixture
def method(shifting, plain):
    return DsrFpa(
        plain,
        Optimizer(lr=1e-2),
        Training(10),
        mixing=ClassMix("object_groups", photometric=None),
        bank=None,
        refinement=DayRefinement("uawarpc"),
        alignment=None,
    )


def test_weights_are_frozen_in_the_state(method, batch):
    state = method.init(jax.random.key(0), batch)
    assert set(state.frozen) == {"initial", "aligner"}
    moved = jax.tree.map(lambda x: 2 * x, state.frozen["aligner"])
    state = state.replace(frozen=state.frozen | {"aligner": moved})
    state = method.with_initial(state, method.initial(state))
    after, _ = jax.jit(method.train_step)(state, batch)
    for kept in (state, after):
        assert kept.frozen["aligner"]["params"]["flow"].tolist() == [2.0, 2.0]
    assert set(after.params) == {"student"}
    unaligned = changed(method, refinement__aligner="none")
    assert "aligner" not in unaligned.init(jax.random.key(0), batch).frozen


def test_refinement_uses_warp_confidence_and_mask(method, batch):
    method = changed(method, feature_distance=None)
    state = method.init(jax.random.key(0), batch)
    teacher, keys = method.variables(state, "teacher"), method.training.keys(state)
    images = method.network.decode(batch)["target"]
    night, day = (teacher_logits(method.network, teacher, images[name], keys)[0] for name in ("image", "reference"))
    flow = jnp.broadcast_to(jnp.array([1.0, 0.0]), (*night.shape[:3], 2))
    warped, _ = aligners.flow_warp(day, flow)
    valid = np.zeros(night.shape[:3], bool)
    valid[:, 1:-1, :-2] = True
    confidence = jnp.full(valid.shape, 1 - np.exp(-0.5), jnp.float32)
    scores = pseudo_label.refine(night, warped, confidence, valid)
    targets, _ = method.targets(state, teacher, batch, images)
    np.testing.assert_allclose(targets.confidence, scores.max(-1), rtol=1e-4)
    plain, _ = changed(method, refinement=None).targets(state, teacher, batch, images)
    border = ~valid
    np.testing.assert_array_equal(np.asarray(targets.label)[border], np.asarray(plain.label)[border])
    assert np.abs(targets.confidence - plain.confidence).max() > 1e-3
