"""Cross-entropy and its averages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.class_weights import class_weights
from nightjax.core.errors import UserError
from nightjax.losses.segmentation import cross_entropy, focal_mixture, masked_mean, pixel_weighted_cross_entropy
from nightjax.ops.resize import resize

ZEROS, ONE_IGNORED = jnp.zeros((1, 2, 2, 19)), jnp.array([[[3, 255], [0, 7]]], jnp.uint8)


def test_pixel_weighted_cross_entropy_divides_by_all_pixels():
    np.testing.assert_allclose(pixel_weighted_cross_entropy(ZEROS, ONE_IGNORED), 2.208329, rtol=1e-6)
    label, weight = jnp.array([[[3, 0], [255, 7]]], jnp.uint8), jnp.array([[[1, 1], [0.5, 0]]])
    loss = pixel_weighted_cross_entropy(ZEROS, label, weight)
    np.testing.assert_allclose(loss, 0.5 * np.log(19), rtol=1e-6)
    label = jnp.array([[[3, 255], [0, 7]]], jnp.uint8)
    np.testing.assert_allclose(pixel_weighted_cross_entropy(ZEROS, label, weight), 1.104165, rtol=1e-6)


@pytest.mark.parametrize(("normalizer", "expected"), [("valid", 1.5 / 3), ("weights", 1.0)])
def test_other_normalizers_count_labelled_pixels_only(normalizer, expected):
    weight = jnp.array([[[0.5, 1.0], [0.5, 0.5]]])
    loss = pixel_weighted_cross_entropy(ZEROS, ONE_IGNORED, weight, normalizer=normalizer)
    np.testing.assert_allclose(loss, expected * np.log(19), rtol=1e-6)


def test_cross_entropy_equals_log_softmax():
    logits = jax.random.normal(jax.random.key(0), (2, 3, 4, 19)) * 5
    label = jax.random.randint(jax.random.key(1), (2, 3, 4), 0, 19).at[0, 0, 0].set(255).astype(jnp.uint8)
    expected = -np.take_along_axis(
        np.asarray(jax.nn.log_softmax(logits)),
        np.asarray(label, np.int64)[..., None] % 255,
        axis=-1,
    )[..., 0]
    expected[0, 0, 0] = 0
    np.testing.assert_allclose(cross_entropy(logits, label), expected, atol=1e-5)
    gradient = jax.grad(lambda x: cross_entropy(x, label).sum())(logits)
    np.testing.assert_array_equal(gradient[0, 0, 0], 0)
    assert cross_entropy(logits.astype(jnp.bfloat16), label).dtype == jnp.float32


@pytest.mark.parametrize(("normalizer", "expected"), [("all", 2.0), ("valid", 4.0), ("weights", 16 / 3)])
def test_masked_mean_normalizers(normalizer, expected):
    values, weight = jnp.array([[4.0, 6.0], [np.nan, 9.0]]), jnp.array([[0.5, 1.0], [0.0, 0.0]])
    np.testing.assert_allclose(masked_mean(values, weight, normalizer=normalizer), expected)


@pytest.mark.parametrize("normalizer", ["valid", "weights"])
def test_masked_mean_of_nothing_is_zero_with_zero_gradient(normalizer):
    value, gradient = jax.value_and_grad(lambda x: masked_mean(x, jnp.zeros(3), normalizer=normalizer))(jnp.ones(3))
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)


def test_masked_mean_without_weight_and_unknown_normalizer():
    for normalizer in ("all", "valid", "weights"):
        np.testing.assert_allclose(masked_mean(jnp.arange(4.0), normalizer=normalizer), 1.5)
    with pytest.raises(UserError, match="normalizer 'batch'"):
        masked_mean(jnp.ones(2), normalizer="batch")


def test_class_weights_have_the_asked_moments_and_favour_rare_classes():
    share = np.geomspace(0.4, 0.001, 19)
    weights = class_weights(share, 0.16)
    np.testing.assert_allclose([weights.mean(), weights.std(ddof=1)], [1, 0.16])
    assert np.all(np.diff(weights) > 0)


def uniform(batch=4):
    return jnp.zeros((batch, 2, 2, 19)), jnp.ones((batch, 2, 2), jnp.uint8)


@pytest.mark.parametrize(("beta", "expected"), [(1.0, 2.944439), (0.0, 1.321327), (0.5, 2.132883), (0.6, 2.295194)])
def test_focal_mixture_of_uniform_logits(beta, expected):
    for mode in ("pixel", "batch"):
        np.testing.assert_allclose(focal_mixture(*uniform(), beta=beta, mode=mode), expected, rtol=1e-6)


def test_focal_mixture_divided_by_the_batch():
    value = focal_mixture(*uniform(), mode="batch", divide_by_batch=True)
    np.testing.assert_allclose(value, 0.533221, rtol=1e-5)


def test_focal_loss_of_two_pixels():
    logits = jnp.log(jnp.array([[[[0.9, 0.1], [0.1, 0.9]]]]))
    label = jnp.zeros((1, 1, 2), jnp.uint8)
    np.testing.assert_allclose(focal_mixture(logits, label, beta=1.0), 1.203973, rtol=1e-6)
    np.testing.assert_allclose(focal_mixture(logits, label, beta=0.0, mode="batch"), 0.294973, rtol=1e-5)
    np.testing.assert_allclose(focal_mixture(logits, label, beta=0.0), 0.466537, rtol=1e-6)
    per_class = focal_mixture(logits, label, beta=0.0, alpha=(1.0, 7.0))
    np.testing.assert_allclose(per_class, 2 * 0.466537, rtol=1e-6)


def test_focal_loss_without_focus_is_cross_entropy():
    logits = jax.random.normal(jax.random.key(0), (1, 2, 2, 19))
    options = {"beta": 0.0, "gamma": 0.0, "alpha": 1.0}
    value, gradient = jax.value_and_grad(lambda x: focal_mixture(x, ONE_IGNORED, **options))(logits)
    plain = lambda x: pixel_weighted_cross_entropy(x, ONE_IGNORED, normalizer="valid")
    np.testing.assert_allclose(value, plain(logits), rtol=1e-6)
    np.testing.assert_allclose(gradient, jax.grad(plain)(logits), atol=1e-7)
    np.testing.assert_array_equal(gradient[0, 0, 1], 0)  # The ignored pixel.


@pytest.mark.parametrize("mode", ["pixel", "batch"])
@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_focal_mixture_of_ignored_pixels_only(mode, gamma):
    label = jnp.full((1, 2, 2), 255, jnp.uint8)
    value, gradient = jax.value_and_grad(lambda x: focal_mixture(x, label, mode=mode, gamma=gamma))(ZEROS)
    assert float(value) == 0
    np.testing.assert_array_equal(gradient, 0)


def test_focal_mixture_upsamples_weighs_and_refuses():
    small, label = jax.random.normal(jax.random.key(0), (1, 2, 3, 5)), jnp.ones((1, 4, 6), jnp.uint8)
    large = resize(small, (4, 6), align_corners=True)
    np.testing.assert_allclose(focal_mixture(small, label, align_corners=True), focal_mixture(large, label), rtol=1e-6)
    doubled = focal_mixture(small, label, 2 * jnp.ones(label.shape))
    np.testing.assert_allclose(doubled, 2 * focal_mixture(small, label), rtol=1e-6)
    with pytest.raises(UserError, match="unknown mode 'image'"):
        focal_mixture(small, label, mode="image")
    with pytest.raises(UserError, match="give one alpha"):
        focal_mixture(small, label, mode="batch", alpha=(1.0,) * 5)
