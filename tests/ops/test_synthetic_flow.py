"""Random flows: corners go where they should, and a pure shift is a shift."""

import jax
import jax.numpy as jnp
import numpy as np

from nightjax.ops.synthetic_flow import homography_flow, random_flow

SIZE = (9, 13)


def corners_of(flow):
    return np.asarray(flow)[:, (0, 0, -1, -1), (0, -1, -1, 0)]


def test_corners_move_as_asked():
    moves = jax.random.uniform(jax.random.key(0), (3, 4, 2), minval=-2.0, maxval=2.0)
    flow = homography_flow(moves, SIZE)
    assert flow.shape == (3, *SIZE, 2)
    np.testing.assert_allclose(corners_of(flow), moves, atol=1e-5)


def test_equal_moves_are_a_shift():
    flow = homography_flow(jnp.broadcast_to(jnp.array([1.5, -2.0]), (1, 4, 2)), SIZE)
    np.testing.assert_allclose(flow, np.broadcast_to([1.5, -2.0], (1, *SIZE, 2)), atol=1e-5)


def test_a_homography_keeps_lines_straight():
    moves = jax.random.uniform(jax.random.key(1), (1, 4, 2), minval=-2.0, maxval=2.0)
    flow = np.asarray(homography_flow(moves, SIZE))[0]
    y, x = np.indices(SIZE)
    at = flow + np.stack([x, y], -1)
    for line in (at[3], at[:, 4], at[np.arange(9), np.arange(9)]):
        along, to = line[-1] - line[0], line - line[0]
        np.testing.assert_allclose(along[0] * to[:, 1] - along[1] * to[:, 0], 0, atol=1e-3)


def test_random_flow_stays_in_its_range_and_differs_between_images():
    plain = random_flow(jax.random.key(2), 4, SIZE, homography=0.1, bend=0.0)
    limit = 0.1 * np.array(SIZE[::-1])
    assert (np.abs(corners_of(plain)) <= limit + 1e-5).all()
    assert np.abs(plain[0] - plain[1]).max() > 0.1
    bent = random_flow(jax.random.key(2), 4, SIZE, homography=0.1, bend=0.05)
    # Cubic weights sum to at most 1.25 in size along an axis, so the bend overshoots its control points.
    assert 0 < np.abs(bent - plain).max() < 0.05 * max(SIZE) * 1.25**2
