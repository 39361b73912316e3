"""The matcher's own training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.errors import UserError
from nightjax.core.fused_init import fused_init
from nightjax.core.method import matches, segments
from nightjax.core.optim import Optimizer
from nightjax.core.step import Training
from nightjax.methods.matching import MatcherTraining
from nightjax.models.matcher import MATCHERS, Matcher, build_matcher
from nightjax.ops.warp import flow_warp

SMALL = Matcher(channels=((2,), (4,), (4,)), copy=128, narrow=8)


@pytest.fixture(scope="module")
def method():
    return MatcherTraining(SMALL, Optimizer(lr=1e-3), Training(10), photometric=None)


@pytest.fixture(scope="module")
def abstract(method, batch):
    """The state's shapes; the triplets read its step alone."""
    shapes = jax.eval_shape(method.init, jax.random.key(0), batch)
    return shapes.replace(step=jnp.int32(0))


def test_triplets(method, abstract, batch):
    part = method.triplets(abstract, batch)
    warped, valid = flow_warp(part["image"], part["flow"])
    np.testing.assert_allclose(part["warped"], warped, atol=1e-6)
    np.testing.assert_array_equal(part["valid"], valid)
    assert 0.3 < valid.mean() < 1
    night, day = (method.input(batch["target"][name]) for name in ("image", "reference"))
    seen = set()
    for step in range(6):
        part = method.triplets(abstract.replace(step=jnp.int32(step)), batch)
        for i in range(len(night)):
            swapped = bool((part["image"][i] == day[i]).all())
            image, other = (day, night) if swapped else (night, day)
            np.testing.assert_array_equal(part["image"][i], image[i])
            np.testing.assert_array_equal(part["other"][i], other[i])
            seen.add(swapped)
    assert seen == {False, True}


def test_photometric_changes_the_warped_image_alone(method, abstract, batch):
    plain = method.triplets(abstract, batch)
    changing = MatcherTraining(SMALL, Optimizer(), Training(10))
    changed = changing.triplets(abstract, batch)
    for name in ("image", "other", "flow", "valid"):
        np.testing.assert_array_equal(plain[name], changed[name])
    assert np.abs(plain["warped"] - changed["warped"]).max() > 0.1


def test_no_classes_are_predicted(method):
    assert matches(method) is method
    with pytest.raises(UserError, match="nightjax match"):
        segments(method)


def test_variants():
    assert build_matcher("uawarpc") == Matcher()
    with pytest.raises(UserError, match="uawarpc_tiny"):
        build_matcher("uawarpc_tinny")
    with pytest.raises(UserError, match="float32"):
        build_matcher("uawarpc", jnp.bfloat16)
    image = jnp.zeros((1, 128, 256, 3))
    for name in MATCHERS:
        out = jax.eval_shape(build_matcher(name).init_with_output, jax.random.key(0), image, image)[0]
        sizes = [out[f"flow{i}"].shape[1:3] for i in range(1, 5)]
        assert sizes == [(32, 64), (16, 32), (32, 32), (16, 16)]


@pytest.mark.slow
def test_steps(method, batch):
    """Every parameter learns, norm statistics move, and the loss on the same triplets falls."""
    state = jax.jit(fused_init(method.init))(jax.random.key(0), batch)
    step = jax.jit(method.train_step)
    losses, now = [], state
    for _ in range(8):
        now, scalars = step(now.replace(step=jnp.int32(0)), batch)  # Step 0 draws the same flows again.
        assert all(np.isfinite(value) for value in scalars.values())
        losses.append(float(scalars["loss"]))
    assert losses[-1] < losses[0], losses
    for collection in ("params", "batch_stats"):
        before, after = (jax.tree.leaves_with_path(getattr(s, collection)) for s in (state, now))
        for (path, old), (_, new) in zip(before, after, strict=True):
            assert np.abs(old - new).max() > 0, jax.tree_util.keystr(path)
