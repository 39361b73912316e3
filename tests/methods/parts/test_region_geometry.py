"""Regions around labels, and what is drawn of them for training."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.methods.parts.region_geometry import RegionGeometry, draw_regions
from nightjax.ops import regions

HARD = (5, 6, 12, 17, 18)


@pytest.fixture(scope="module")
def geometry():
    return RegionGeometry(size=32, min_side=16.0, min_area=4, max_boxes=8, max_regions=3)


def test_true_regions(geometry, batch):
    found, kind, valid = geometry.true_regions(batch["source"]["label"], HARD, 2.0)
    assert valid.any(-1).all() and (found[valid][:, :2] >= 0).all() and (found[valid][:, 2:] <= 64).all()
    assert (jnp.diff(valid.astype(int), axis=1) <= 0).all()
    sides = (found[..., 2:] - found[..., :2])[valid]
    assert (sides >= 16).all()
    assert np.isin(kind[valid], HARD).all()
    tight, kind, there = geometry.true_regions(batch["source"]["label"], HARD, 1.0)
    label = np.asarray(batch["source"]["label"][0])
    for (x1, y1, x2, y2), own in zip(np.asarray(tight[0][there[0]], int), kind[0][there[0]], strict=True):
        assert (label[y1:y2, x1:x2] == own).any()


def test_the_smallest_true_region_is_on_top(geometry):
    """A large part of one class around a small one of another, and a class that is none."""
    label = np.full((1, 64, 64), 2, np.uint8)
    label[:, 4:60, 4:60] = 5
    label[:, 24:32, 24:32] = 17
    tight = dataclasses.replace(geometry, context=1.0, min_side=0.0, max_regions=5)
    found, valid = tight.oracle_regions(jnp.asarray(label), HARD)
    assert valid[0].tolist() == [True, True, False, False, False]
    np.testing.assert_array_equal(found[0, :2], [[24, 24, 32, 32], [4, 4, 60, 60]])
    one, there = dataclasses.replace(tight, max_regions=1).oracle_regions(jnp.asarray(label), HARD)
    np.testing.assert_array_equal(one, [[[4, 4, 60, 60]]])  # The largest part is kept.
    logits = 9 * jax.nn.one_hot(jnp.array([17, 5]), 19)[None, :, None, None]
    canvas = jnp.zeros((1, 64, 64, 19)).at[..., 2].set(1.0)
    merged = regions.merge_regions(canvas, jnp.broadcast_to(logits, (1, 2, 4, 4, 19)), found[:, :2], valid[:, :2], HARD)
    np.testing.assert_array_equal(merged.argmax(-1), label)


def test_regions_are_drawn_class_by_class():
    kind = jnp.array([[5] * 6 + [17, 18, 18, 5]])
    valid = jnp.arange(10)[None] < 9
    found = jnp.arange(40.0).reshape(1, 10, 4)

    def shares(kind):
        drawn = draw_regions(jax.random.key(0), found, valid, 6000, (64, 64), kind)
        return np.bincount((np.asarray(drawn[0, :, 0]) / 4).astype(int), minlength=10) / 6000

    np.testing.assert_allclose(shares(kind), [1 / 18] * 6 + [1 / 3, 1 / 6, 1 / 6, 0], atol=0.02)
    np.testing.assert_allclose(shares(None), [1 / 9] * 9 + [0], atol=0.02)
    whole = draw_regions(jax.random.key(0), found, valid & False, 3, (64, 48), kind)
    np.testing.assert_array_equal(whole, [[[0, 0, 48, 64]] * 3])


def test_padding_boxes_change_no_verdict():
    rng = np.random.RandomState(0)
    logits = jnp.asarray(rng.randn(1, 3, 8, 8, 19), jnp.float32)
    label = jnp.asarray(rng.randint(0, 3, (1, 32, 32)), jnp.uint8)
    box = jnp.array([[[0, 0, 16, 16], [4, 8, 30, 24], [0, 0, 0, 0]]], jnp.float32)
    padded = regions.region_gain(logits, label * 0, label, box)
    alone = regions.region_gain(logits[:, :2], label * 0, label, box[:, :2])
    for one, two in zip(padded, alone, strict=True):
        np.testing.assert_array_equal(one[:, :2], two)
    assert not bool(padded[0][0, 2]) and np.isnan(padded[1][0, 2])


def test_regions_may_keep_their_aspect(geometry, batch):
    image = batch["source"]["image"]
    tall = jnp.array([[[0, 0, 16, 32]]] * 2, jnp.float32)
    cut = dataclasses.replace(geometry, keep_aspect=True).crop(image, tall)
    assert cut.shape == (2, 1, 32, 32, 3) and float(jnp.abs(cut[..., 16:, :]).max()) == 0.0
    np.testing.assert_allclose(cut[:, 0, :, :16], image[:, :32, :16], atol=1e-3)
