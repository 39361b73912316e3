"""Feature prototype alignment: analytic values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.errors import UserError
from nightjax.losses.contrastive import fpa_loss, prototype_alignment

TWO = jnp.repeat(jnp.repeat(jnp.array([[[3, 13], [3, 13]]], jnp.uint8), 4, 1), 4, 2)  # [1, 8, 8], left and right


def one_hot_features(left=0, right=1):
    return jnp.eye(4)[jnp.array([[[left, right], [left, right]]])]


def test_constant_features_leave_the_two_classes_undecided():
    features = jnp.ones((1, 2, 2, 4))
    np.testing.assert_allclose(prototype_alignment(features, TWO, features, TWO), 0.138629, rtol=1e-5)


@pytest.mark.parametrize(("zero_is_absent", "expected"), [(True, 0.0), (False, 9.087e-6)])
def test_matching_domains(zero_is_absent, expected):
    features = one_hot_features()
    loss = prototype_alignment(features, TWO, features, TWO, zero_is_absent=zero_is_absent)
    np.testing.assert_allclose(loss, expected, atol=5e-8)


@pytest.mark.parametrize(("zero_is_absent", "expected"), [(True, 4.0), (False, 2.0000091)])
def test_swapped_domains(zero_is_absent, expected):
    swapped = one_hot_features(1, 0)
    loss = prototype_alignment(one_hot_features(), TWO, swapped, TWO, zero_is_absent=zero_is_absent)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def sine_case():
    i = np.arange(128, dtype=np.float64).reshape(1, 8, 4, 4)
    cell_y, cell_x = np.meshgrid(np.arange(4), np.arange(4), indexing="ij")
    grow = np.ones((4, 4), int)
    label_a = np.kron(3 * ((4 * cell_y + cell_x) % 5), grow)
    label_a[:2] = 255
    label_b = np.kron(3 * ((cell_y + 2 * cell_x) % 7), grow)
    features = [np.moveaxis(f, 1, -1).astype(np.float32) for f in (np.sin(0.7 * i + 0.1), np.cos(0.3 * i + 0.2))]
    return (
        jnp.asarray(features[0]),
        jnp.asarray(label_a[None]),
        jnp.asarray(features[1]),
        jnp.asarray(label_b[None]),
    )


def test_recorded_value_and_gradient_norms():
    feat_a, label_a, feat_b, label_b = sine_case()
    loss = jax.value_and_grad(lambda a, b: prototype_alignment(a, label_a, b, label_b)[0], argnums=(0, 1))
    value, gradients = loss(feat_a, feat_b)
    np.testing.assert_allclose(value, 1.31893, atol=2e-5)
    norms = [jnp.linalg.norm(gradient.ravel()) for gradient in gradients]
    np.testing.assert_allclose(norms, [0.804967, 7.55567], rtol=1e-4)


def test_scale_invariance_and_independent_images():
    feat_a, label_a, feat_b, label_b = sine_case()
    loss = prototype_alignment(feat_a, label_a, feat_b, label_b)
    np.testing.assert_allclose(prototype_alignment(7 * feat_a, label_a, 0.3 * feat_b, label_b), loss, rtol=1e-5)
    both = prototype_alignment(*(jnp.concatenate([x, x[:, ::-1]]) for x in (feat_a, label_a, feat_b, label_b)))
    assert both.shape == (2,)
    np.testing.assert_allclose(both[0], loss[0], rtol=1e-5)


def test_pixels_of_unshared_classes_do_not_count():
    features_a = jax.random.normal(jax.random.key(0), (1, 2, 2, 4))
    features_b = jax.random.normal(jax.random.key(1), (1, 2, 2, 4))
    label_b = TWO.at[:, :4, :4].set(7)  # only b has class 7
    ignored = TWO.at[:, :4, :4].set(255)
    for label, counts in ((label_b, True), (ignored, False)):
        gradient = jax.grad(lambda y, b=label: prototype_alignment(features_a, TWO, y, b)[0])(features_b)
        # Class 7 stays a negative prototype of b -> a; an ignored cell takes part in nothing.
        assert (np.abs(gradient[0, 0, 0]).max() > 0) == counts
    one_way = [
        prototype_alignment(features_a, TWO, features_b.at[0, 0, 0].set(scale), ignored)[0] for scale in (1.0, -2.0)
    ]
    np.testing.assert_allclose(*one_way)


def test_no_overlap_is_zero_with_zero_gradients():
    features = jax.random.normal(jax.random.key(0), (1, 2, 2, 4))
    for rule in ("overlap", "ds_inv"):
        loss = lambda x, y, r=rule: prototype_alignment(x, TWO, y, TWO + 1, class_weight=r)[0]  # noqa: E731
        value, gradients = jax.value_and_grad(loss, argnums=(0, 1))(features, features + 1)
        assert value == 0
        for gradient in gradients:
            np.testing.assert_array_equal(gradient, 0)


def weighted_mean_of_directions(weight_3, weight_13):
    """The loss at full size in numpy, for weights of two classes; and the second image's label."""
    a, b = features_pair()
    label = TWO.at[:, 2:, 4:].set(3)
    total = 0.0
    for source, label_s, query, label_q in ((a, TWO, b, label), (b, label, a, TWO)):
        source, query = np.asarray(source, np.float64)[0], np.asarray(query, np.float64)[0]
        cells = np.asarray(label_s)[0, ::4, ::4]
        logits = np.full((2, 2, 19), -10.0)
        for c in np.unique(cells):
            prototype = source[cells == c].mean(0)
            norms = np.linalg.norm(query, axis=-1) * np.linalg.norm(prototype)
            logits[..., c] = 10 * (query @ prototype) / norms
        logits = np.kron(logits, np.ones((4, 4, 1)))
        loss = np.log(np.exp(logits).sum(-1))
        loss -= np.take_along_axis(logits, np.asarray(label_q, int)[0, ..., None], -1)[..., 0]
        weight = np.where(np.asarray(label_q)[0] == 3, weight_3, weight_13)
        total += 0.1 * (weight * loss).sum() / weight.sum()
    return total, label


def features_pair():
    return jax.random.normal(jax.random.key(0), (1, 2, 2, 4)), jax.random.normal(jax.random.key(1), (1, 2, 2, 4))


def test_class_weights():
    a, b = features_pair()
    # Class 3 has 32 + 56 pixels in the pair, class 13 has 32 + 8, their mean is 64; only 13 is
    # dynamic.
    expected, label = weighted_mean_of_directions(1.0, (64 / 40) ** 0.5)
    loss = prototype_alignment(a, TWO, b, label, class_weight="ds_inv")
    np.testing.assert_allclose(loss, expected, rtol=1e-5)

    share = np.full(19, 0.01)
    share[13], share[3] = 0.001, 0.1
    log_share = np.log(share)
    weights = 1 + 0.05 * (log_share.mean() - log_share) / log_share.std(ddof=1)
    expected, _ = weighted_mean_of_directions(weights[3], weights[13])
    loss = prototype_alignment(a, TWO, b, label, class_weight="dannet", pixel_share=share)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)

    expected, _ = weighted_mean_of_directions(1.0, 1.0)
    np.testing.assert_allclose(prototype_alignment(a, TWO, b, label), expected, rtol=1e-5)


def test_class_weight_errors():
    a, b = features_pair()
    with pytest.raises(UserError, match="'focal' is unknown"):
        prototype_alignment(a, TWO, b, TWO, class_weight="focal")
    with pytest.raises(UserError, match="pixel_share"):
        prototype_alignment(a, TWO, b, TWO, class_weight="dannet")


def test_night_features_get_no_gradient_and_the_source_the_same_as_without_the_stop():
    feat_s, label_s, feat_n, label_n = sine_case()

    def total(source, night):
        return fpa_loss((source, label_s), (night, label_n), (feat_n, label_n), mixed_weight=0.0)

    source, night = jax.grad(total, argnums=(0, 1))(feat_s, feat_n)
    np.testing.assert_array_equal(night, 0)
    free = jax.grad(lambda s: prototype_alignment(s, label_s, feat_n, label_n)[0])(feat_s)
    np.testing.assert_allclose(source, free, rtol=1e-6)


def test_weight_of_the_mixed_term():
    feat_s, label_s, feat_n, label_n = sine_case()
    domains = (feat_s, label_s), (feat_n, label_n), (feat_n[:, ::-1], label_n)
    losses = [fpa_loss(*domains, mixed_weight=zeta) for zeta in (0.0, 0.01, 0.1)]
    np.testing.assert_allclose(losses[2] - losses[0], 10 * (losses[1] - losses[0]), rtol=1e-4)
