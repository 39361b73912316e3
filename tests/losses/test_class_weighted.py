"""Cross-entropy with class weights and the weights themselves (DANNet)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.class_weights import class_weights
from nightjax.core.classes import CITYSCAPES
from nightjax.losses.segmentation import class_weighted_cross_entropy

ZEROS = jnp.zeros((1, 2, 2, 4))
LABEL = jnp.array([[[0, 255], [1, 1]]], jnp.uint8)
WEIGHTS = jnp.array([2.0, 0.5, 1.0, 1.0])


@pytest.mark.parametrize(
    ("normalizer", "factor"), [("weights", 1), ("valid", 3 / 3), ("all", 3 / 4), ("paper", 3 / 12)]
)
def test_normalizers(normalizer, factor):
    loss = class_weighted_cross_entropy(ZEROS, LABEL, WEIGHTS, normalizer=normalizer)
    np.testing.assert_allclose(loss, factor * np.log(4), rtol=1e-6)


def test_a_common_factor_of_the_weights_cancels():
    logits = jax.random.normal(jax.random.key(0), (1, 3, 3, 4))
    label = jax.random.randint(jax.random.key(1), (1, 9, 7), 0, 4)
    loss = class_weighted_cross_entropy(logits, label, WEIGHTS)
    np.testing.assert_allclose(class_weighted_cross_entropy(logits, label, 7 * WEIGHTS), loss, rtol=1e-5)


def test_nothing_labeled():
    label = jnp.full_like(LABEL, 255)
    loss, gradient = jax.value_and_grad(class_weighted_cross_entropy)(ZEROS, label, WEIGHTS)
    assert loss == 0
    assert not np.asarray(gradient).any()


@pytest.mark.parametrize("std", [0.05, 0.16])
def test_class_weights_fall_with_the_pixel_share(std):
    share = np.random.default_rng(0).dirichlet(np.full(19, 0.3)) + 1e-4
    weights = class_weights(share, std)
    np.testing.assert_allclose(weights.mean(), 1)
    np.testing.assert_allclose(weights.std(ddof=1), std)
    np.testing.assert_array_equal(np.argsort(weights), np.argsort(share)[::-1])


def test_class_weights_of_cityscapes():
    for std, road, motorcycle in ((0.05, 0.9041376, 1.0688822), (0.16, 0.6932401, 1.2204231)):
        weights = class_weights(np.array(CITYSCAPES.pixel_share), std)
        np.testing.assert_allclose(weights[[0, 17]], [road, motorcycle], atol=1e-6)
