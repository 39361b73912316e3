"""Feature distance on thing classes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.losses.feature import downscale_label, feature_distance


@pytest.mark.parametrize(("ratio", "expected"), [(0.75, 13), (0.76, 255)])
def test_exact_share_is_kept(ratio, expected):
    label = jnp.array([[[0, 13], [13, 13]]], jnp.uint8)
    assert downscale_label(label, 2, ratio).item() == expected


def test_ignore_ties_and_remainder():
    label = jnp.array([[[255, 255, 4, 2, 1], [255, 255, 2, 4, 1], [9, 9, 9, 9, 9]]], jnp.uint8)
    np.testing.assert_array_equal(downscale_label(label, 2, 0.5), [[[255, 2]]])
    mostly_ignored = jnp.array([[[255, 255], [255, 13]]], jnp.uint8)
    assert downscale_label(mostly_ignored, 2, 0.1).item() == 255


def test_distance_over_things_only():
    features = jnp.zeros((1, 2, 2, 2)).at[0, 0, 0].set(jnp.array([3.0, 4.0])).at[0, 1, 1].set(100.0)
    label = jnp.repeat(jnp.repeat(jnp.array([[[13, 11], [0, 0]]], jnp.uint8), 4, 1), 4, 2)
    np.testing.assert_allclose(feature_distance(features, jnp.zeros_like(features), label), 2.5, rtol=1e-6)
    only_cars = feature_distance(features, jnp.zeros_like(features), label, classes=(13,))
    np.testing.assert_allclose(only_cars, 5.0, rtol=1e-6)


def test_no_thing_and_equal_features_give_zero_gradients():
    features = jax.random.normal(jax.random.key(0), (1, 2, 2, 3))
    for label, frozen in ((0, features + 1), (255, features + 1), (13, features)):
        label = jnp.full((1, 8, 8), label, jnp.uint8)
        value, gradients = jax.value_and_grad(feature_distance, argnums=(0, 1))(features, frozen, label)
        assert value == 0
        for gradient in gradients:
            np.testing.assert_array_equal(gradient, 0)
