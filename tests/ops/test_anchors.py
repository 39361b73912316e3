import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.ops import anchors

TABLE = {
    (4, 32): [(-22, -10, 25, 13), (-14, -14, 17, 17), (-10, -22, 13, 25)],
    (8, 64): [(-40, -20, 47, 27), (-28, -28, 35, 35), (-20, -44, 27, 51)],
    (16, 128): [(-84, -40, 99, 55), (-56, -56, 71, 71), (-36, -80, 51, 95)],
    (32, 256): [(-164, -72, 195, 103), (-112, -112, 143, 143), (-76, -168, 107, 199)],
    (64, 512): [(-332, -152, 395, 215), (-224, -224, 287, 287), (-148, -328, 211, 391)],
}
RATIOS = (0.5, 1.0, 2.0)


@pytest.mark.parametrize(("stride", "size"), TABLE)
def test_cells_of_the_pyramid(stride, size):
    np.testing.assert_array_equal(anchors.cell_anchors(stride, (size,), RATIOS), TABLE[stride, size])


def test_cells_of_one_level():
    three = anchors.cell_anchors(16, (128, 256, 512), RATIOS)
    expected = [
        (-84, -40, 99, 55),
        (-176, -88, 191, 103),
        (-360, -184, 375, 199),
        (-56, -56, 71, 71),
        (-120, -120, 135, 135),
        (-248, -248, 263, 263),
        (-36, -80, 51, 95),
        (-80, -168, 95, 183),
        (-168, -344, 183, 359),
    ]
    np.testing.assert_array_equal(three, expected)
    five = anchors.cell_anchors(16, (32, 64, 128, 256, 512), RATIOS)
    assert five.shape == (15, 4)
    np.testing.assert_array_equal(five[[0, 1]], [(-15, -4, 30, 19), (-38, -16, 53, 31)])
    np.testing.assert_array_equal(five[[5, 6]], [(-8, -8, 23, 23), (-24, -24, 39, 39)])
    np.testing.assert_array_equal(five[[10, 11]], [(-3, -14, 18, 29), (-14, -36, 29, 51)])


def test_grid():
    cell = anchors.cell_anchors(8, (64,), RATIOS)
    every = anchors.grid_anchors(cell, (3, 5), 8)
    assert every.shape == (3 * 5 * 3, 4)
    np.testing.assert_array_equal(every[3:6], cell + [8, 0, 8, 0])
    np.testing.assert_array_equal(every[15:18], cell + [0, 8, 0, 8])


def test_visibility():
    cell = anchors.cell_anchors(4, (32,), (1.0,))
    np.testing.assert_array_equal(anchors.inside_image(np.concatenate([cell, cell + 16]), (64, 64)), [False, True])


def test_matching():
    iou = jnp.array([[0.9, 0.2, 0.55, 0.05], [0.1, 0.35, 0.5, 0]])
    index, label = anchors.match_anchors(iou, jnp.ones(2, bool))
    np.testing.assert_array_equal(label, [1, -1, 1, 0])
    np.testing.assert_array_equal(index[jnp.array([0, 2])], [0, 0])


def test_matching_without_boxes():
    iou = jnp.array([[0.9, 0.2], [0.1, 0.8]])
    np.testing.assert_array_equal(anchors.match_anchors(iou, jnp.zeros(2, bool))[1], [0, 0])
    np.testing.assert_array_equal(anchors.match_anchors(iou, jnp.array([True, False]))[1], [1, 0])


@pytest.mark.parametrize("positives", [0, 20, 400])
def test_sampling(positives):
    label = jnp.asarray(np.r_[np.ones(positives), np.zeros(700), -np.ones(300)], jnp.int32)
    label = label[np.random.RandomState(0).permutation(len(label))]
    draw = jax.jit(anchors.sample_anchors)
    drawn = draw(jax.random.key(0), label)
    assert int((drawn & (label == 1)).sum()) == min(positives, 128)
    assert int(drawn.sum()) == 256 and not (drawn & (label < 0)).any()
    np.testing.assert_array_equal(drawn, draw(jax.random.key(0), label))
    assert (drawn != draw(jax.random.key(1), label)).any()


def test_sampling_of_few():
    label = jnp.array([1, 0, -1, 0])
    np.testing.assert_array_equal(anchors.sample_anchors(jax.random.key(0), label), [True, True, False, True])
