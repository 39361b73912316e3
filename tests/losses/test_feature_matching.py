import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.losses.feature_matching import VGG_WEIGHTS, feature_matching_loss, vgg_loss


def maps(value):
    """Two scales of four features and one map of scores."""
    return [[jnp.full((1, 4, 4, 2), float(value))] * 4 + [jnp.full((1, 3, 3, 1), 100.0 * value)] for _ in range(2)]


def test_feature_matching_of_the_specification():
    assert float(feature_matching_loss(maps(1), maps(1))) == 0
    assert 10 * float(feature_matching_loss(maps(1), maps(0))) == 40  # Scores do not count.


def test_real_features_get_no_gradient():
    loss = lambda fake, real: feature_matching_loss([[fake, fake]], [[real, real]])
    x, y = jnp.ones((1, 2, 2, 1)), jnp.zeros((1, 2, 2, 1))
    ours, theirs = jax.grad(loss, argnums=(0, 1))(x, y)
    assert np.abs(ours).sum() > 0
    np.testing.assert_array_equal(theirs, 0)


def test_vgg_weights():
    assert sum(VGG_WEIGHTS.values()) == 1.46875
    ones, zeros = ({name: jnp.full((1, 2, 2, 3), value) for name in VGG_WEIGHTS} for value in (1.0, 0.0))
    assert float(vgg_loss(ones, zeros)) == pytest.approx(1.46875)
    assert float(vgg_loss(ones, ones)) == 0
