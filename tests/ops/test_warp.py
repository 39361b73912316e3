"""Warping by flow."""

import jax.numpy as jnp
import numpy as np

from nightjax.ops.warp import flow_confidence, flow_warp

RAMP = jnp.tile(jnp.arange(5.0), (4, 1))[None, :, :, None]


def test_zero_flow_is_the_identity_and_valid_everywhere():
    warped, inside = flow_warp(RAMP, jnp.zeros((1, 4, 5, 2)))
    np.testing.assert_array_equal(warped, RAMP)
    assert inside.all()


def test_one_pixel_to_the_right():
    warped, inside = flow_warp(RAMP, jnp.zeros((1, 4, 5, 2)).at[..., 0].set(1.0))
    np.testing.assert_allclose(warped[0, :, :, 0], np.tile([1, 2, 3, 4, 0], (4, 1)), atol=1e-6)
    expected = np.zeros((4, 5), bool)
    expected[1:3, :3] = True
    np.testing.assert_array_equal(inside[0], expected)


def test_zero_flow_is_decided_for_each_image():
    flow = jnp.zeros((2, 4, 5, 2)).at[1, ..., 1].set(0.5)
    warped, inside = flow_warp(jnp.concatenate([RAMP, RAMP]), flow)
    assert inside[0].all() and not inside[1].all()
    np.testing.assert_allclose(warped[1, :3], RAMP[0, :3], atol=1e-6)
    np.testing.assert_allclose(warped[1, 3], RAMP[0, 3] / 2, atol=1e-6)  # half of the sample lies outside


def test_confidence():
    np.testing.assert_allclose(flow_confidence(jnp.float32(0)), 0.393469, atol=1e-6)
    np.testing.assert_allclose(flow_confidence(jnp.array([-80.0, 80.0])), [1.0, 0.0], atol=1e-6)
