import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.ops.class_cells import class_means, class_similarity, draw_cells, sort_by_class, take_cells

K, SIZE = 19, (4, 6)
PRESENT = [0, 3, 18]


@pytest.fixture(scope="module")
def label():
    """Class 18 is in the second image only, class 3 in both; much is ignored."""
    rng = np.random.default_rng(0)
    label = np.stack([rng.choice(classes, SIZE) for classes in ([0, 3, 255], [3, 3, 18])])
    label[0, 0, :2] = (0, 3)
    label[1, 0, :2] = (3, 18)
    return jnp.asarray(label, jnp.uint8)


@pytest.fixture(scope="module")
def features(label):
    """Each cell's feature names its class and its place."""
    place = np.arange(label.size).reshape(label.shape)
    return jnp.stack([label.astype(jnp.float32), jnp.asarray(place, jnp.float32)], axis=-1)


@pytest.fixture(scope="module")
def drawn(label, features):
    """Class and place of 500 cells of each class, and of each class's others."""

    @jax.jit
    def draw(features, label):
        cells = sort_by_class(label, K)
        key = jax.random.key(1)
        return [take_cells(features, draw_cells(key, cells, 500, others=others)) for others in (False, True)]

    return [np.asarray(x) for x in draw(features, label)]


def test_draws_are_of_their_class(drawn):
    for k in range(K):
        expected = k if k in PRESENT else 0  # Zeros stand for nothing drawn.
        assert (drawn[0][k, :, 0] == expected).all()
        assert k in PRESENT or (drawn[0][k] == 0).all()


def test_draws_of_others_are_of_any_other_class_but_never_ignored(drawn):
    for k in range(K):
        assert set(drawn[1][k, :, 0]) == set(PRESENT) - {k}


def test_every_cell_of_the_batch_is_as_likely(drawn, label):
    """Over all images: cells of class 3, and of everything but class 3, within five standard deviations."""
    for values, members in ((drawn[0][3], np.asarray(label) == 3), (drawn[1][3], np.isin(label, [0, 18]))):
        places = np.flatnonzero(members)
        assert set(values[:, 1]) <= set(places)
        count = np.array([(values[:, 1] == place).sum() for place in places])
        mean = 500 / len(places)
        assert np.abs(count - mean).max() < 5 * np.sqrt(mean)
        assert {int(place) // np.prod(SIZE) for place in values[:, 1]} == set(np.flatnonzero(members.any((1, 2))))


def test_one_image_answers_each_draw(label):
    cells = sort_by_class(label, K)
    chosen = draw_cells(jax.random.key(2), cells, 7).chosen.sum(axis=0)
    np.testing.assert_array_equal(chosen, np.repeat(np.isin(np.arange(K), PRESENT)[:, None], 7, axis=1))


def test_gradient_reaches_the_drawn_cells_only(label, features):
    cells = sort_by_class(label, K)
    draw = draw_cells(jax.random.key(3), cells, 5)
    grads = jax.grad(lambda x: take_cells(x, draw)[3].sum())(features)
    assert grads.sum() == 5 * 2  # Five draws, two channels.
    assert (np.asarray(grads)[np.asarray(label) != 3] == 0).all()


def test_means_ignore_255(label, features):
    means, count = class_means(features, label, K)
    np.testing.assert_array_equal(count, [(np.asarray(label) == k).sum() for k in range(K)])
    for k in range(K):
        members = np.asarray(features)[np.asarray(label) == k]
        np.testing.assert_allclose(means[k], members.mean(axis=0) if k in PRESENT else 0, rtol=1e-5)


def test_mean_of_constant_features_is_that_constant(label):
    means, _ = class_means(jnp.full((*label.shape, 3), 2.5), label, K)
    np.testing.assert_allclose(means[np.array(PRESENT)], 2.5, rtol=1e-6)


def test_similarity_to_own_and_other_prototypes():
    label = jnp.asarray([[[0, 0, 1, 255]]], jnp.uint8)
    features = jnp.asarray([[[[2.0, 0], [0, 5.0], [0, 1.0], [9.0, 9.0]]]])
    prototypes = jnp.zeros((K, 2)).at[0].set(jnp.array([3.0, 0])).at[1].set(jnp.array([0, 0.1]))
    own, other, known = class_similarity(features, label, prototypes, jnp.arange(K) < 2)
    np.testing.assert_allclose(own[:2], [0.5, 1.0], rtol=1e-5)
    np.testing.assert_allclose(other[:2], [0.5, 0.0], atol=1e-6)
    np.testing.assert_array_equal(known, np.arange(K) < 2)
