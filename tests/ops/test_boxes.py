import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.ops import boxes


def array(*rows):
    return jnp.asarray(rows, jnp.float32)


def some_boxes(count, seed=0):
    rng = np.random.RandomState(seed)
    start = rng.uniform(0, 80, (count, 2))
    return jnp.asarray(np.concatenate([start, start + rng.uniform(1, 40, (count, 2))], 1), jnp.float32)


def test_code_of_one_box():
    anchor, box = array([10, 20, 41, 83]), array([18, 12, 81, 75])
    code = boxes.encode_boxes(box, anchor)
    np.testing.assert_allclose(code, [[0.75, -0.125, 0.6931472, 0]], atol=1e-6)
    np.testing.assert_allclose(boxes.decode_boxes(code, anchor), box, atol=1e-4)


def test_decoding_is_cut_off():
    code, anchor = array([0, 0, 10, 10]), array([0, 0, 15, 15])
    np.testing.assert_allclose(boxes.decode_boxes(code, anchor), [[-492, -492, 507, 507]], atol=1e-3)


def test_decoding():
    anchor = array([175.62031555, 20.91103172, 253.352005, 155.0145874])
    code = array([0.47861834, 0.13992102, 0.14961673, 0.71495209])
    np.testing.assert_allclose(boxes.decode_boxes(code, anchor), [[206.9495, -30.7152, 297.3877, 244.4485]], atol=1e-3)


@pytest.mark.parametrize(
    ("two", "iou"),
    [((0, 0, 9, 9), 1), ((5, 0, 14, 9), 1 / 3), ((0, 0, 9, 6), 0.7), ((10, 0, 19, 9), 0), ((9, 9, 18, 18), 1 / 199)],
)
def test_iou(two, iou):
    assert float(boxes.box_iou(array((0, 0, 9, 9)), array(two))[0, 0]) == pytest.approx(iou, abs=1e-6)


NMS_BOXES = (
    (10, 10, 50, 60, 0.5),
    (11, 12, 48, 60, 0.7),
    (8, 9, 40, 50, 0.6),
    (100, 100, 150, 140, 0.9),
    (99, 110, 155, 139, 0.8),
)


@pytest.mark.parametrize(
    ("threshold", "kept"), [(0.1, {1, 3}), (0.3, {1, 3}), (0.5, {1, 3}), (0.8, {1, 2, 3, 4}), (0.9, set(range(5)))]
)
def test_suppression(threshold, kept):
    table = array(*NMS_BOXES)
    assert set(np.flatnonzero(boxes.nms(table[:, :4], table[:, 4], threshold))) == kept


def test_suppression_is_idempotent_and_blind_to_order_and_padding():
    box, scores = some_boxes(40), jnp.asarray(np.random.RandomState(1).permutation(40) / 40, jnp.float32)
    kept = boxes.nms(box, scores, 0.4)
    assert 5 < int(kept.sum()) < 40
    np.testing.assert_array_equal(boxes.nms(box, scores, 0.4, kept), kept)
    order = np.random.RandomState(2).permutation(40)
    np.testing.assert_array_equal(boxes.nms(box[order], scores[order], 0.4), kept[order])
    padded = jnp.concatenate([jnp.zeros((3, 4)), box]), jnp.concatenate([jnp.full(3, 9.0), scores])
    there = jnp.arange(43) >= 3
    np.testing.assert_array_equal(boxes.nms(*padded, 0.4, there), jnp.concatenate([jnp.zeros(3, bool), kept]))


def test_clipping():
    clipped = boxes.clip_boxes(array([-5, 3, 70, 70], [2, -9, 63, 12]), (48, 64))
    np.testing.assert_array_equal(clipped, [[0, 3, 63, 47], [2, 0, 63, 12]])


def test_best_boxes_put_padding_last():
    box, scores, valid = boxes.best_boxes(
        some_boxes(4), jnp.array([0.1, 0.9, 0.5, 0.7]), jnp.array([True, False, True, True]), 5
    )
    np.testing.assert_allclose(scores[:3], [0.7, 0.5, 0.1])
    np.testing.assert_array_equal(valid, [True, True, True, False])
    np.testing.assert_array_equal(box[:3], some_boxes(4)[jnp.array([3, 2, 0])])


def test_context():
    grown = boxes.region_of(array([100, 50, 150, 100], [0, 0, 50, 50]), (512, 1024), context=2.0)
    np.testing.assert_allclose(grown, [[75, 25, 175, 125], [0, 0, 100, 100]])
    found = boxes.region_of(some_boxes(50), (90, 110), context=2.0, min_side=30.0)
    assert (found >= 0).all() and (found[:, 2] <= 110).all() and (found[:, 3] <= 90).all()
    assert (found[:, 2:] - found[:, :2] >= 30 - 1e-4).all()
    np.testing.assert_allclose(boxes.region_of(array([5, 5, 9, 9]), (20, 30), min_side=64.0), [[0, 0, 30, 20]])


def test_conventions_of_corners():
    pixel = array([3, 4, 3, 4])
    assert float(boxes.box_area(pixel)[0]) == 1.0
    np.testing.assert_array_equal(boxes.half_open(pixel), [[3, 4, 4, 5]])
    np.testing.assert_array_equal(boxes.inclusive(boxes.half_open(pixel)), pixel)


def test_overlapping_boxes_of_different_classes_become_one():
    box = array([0, 0, 19, 19], [0, 1, 20, 19], [0, 0, 19, 18], [50, 50, 60, 60], [1, 0, 20, 20])
    kinds = jnp.array([5, 6, 5, 6, 6])
    merged, kept = jax.jit(boxes.merge_overlapping, static_argnums=3)(
        box, kinds, jnp.array([True, True, True, True, False]), 0.7
    )
    # Number 2 is of the class of number 0 and overlaps number 1, which is gone; so it stays. Number 4 is padding.
    np.testing.assert_array_equal(kept, [True, False, True, True, False])
    np.testing.assert_array_equal(merged[0], [0, 0, 20, 19])
    np.testing.assert_array_equal(merged[2:4], box[2:4])
