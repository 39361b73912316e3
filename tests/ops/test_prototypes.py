"""Prototypes, cosines and label counts per cell."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.classes import CITYSCAPES
from nightjax.ops import prototypes
from nightjax.ops.resize import nearest_index


@pytest.mark.parametrize("size", [(12, 16, 3, 4), (10, 13, 4, 5), (49, 30, 7, 29), (9, 9, 9, 9)])
def test_counts_equal_a_count_over_the_repeated_map(size):
    height, width, h, w = size
    label = np.random.default_rng(0).choice([0, 3, 18, 255], (2, height, width)).astype(np.uint8)
    rows, columns = nearest_index(h, height), nearest_index(w, width)
    expected = np.zeros((2, h, w, 19), np.int32)
    for (b, y, x), value in np.ndenumerate(label):
        if value != 255:
            expected[b, rows[y], columns[x], value] += 1
    np.testing.assert_array_equal(prototypes.cell_label_counts(jnp.asarray(label), (h, w), len(CITYSCAPES)), expected)


def test_class_prototypes_are_means_of_each_image():
    features = jnp.arange(16.0).reshape(2, 2, 2, 2)
    label = jnp.array([[[3, 3], [255, 5]], [[3, 5], [5, 5]]])
    mean, count = prototypes.class_prototypes(features, label, len(CITYSCAPES))
    assert count[:, 3].tolist() == [2, 1] and count[:, 5].tolist() == [1, 3] and count.sum() == 7
    np.testing.assert_allclose(mean[0, 3], (features[0, 0, 0] + features[0, 0, 1]) / 2)
    np.testing.assert_allclose(mean[1, 5], features[1].reshape(4, 2)[1:].mean(0), rtol=1e-6)
    np.testing.assert_array_equal(mean[:, 0], 0)


def test_cosine_stays_within_the_image_and_zero_vectors_are_safe():
    features = jax.random.normal(jax.random.key(0), (2, 2, 2, 4)).at[0, 0, 0].set(0.0)
    prototype = jax.random.normal(jax.random.key(1), (2, 19, 4)).at[1, 4].set(0.0)
    cosine = prototypes.cosine_to_prototypes(features, prototype)
    norms = np.linalg.norm(features[1, 1, 0]) * np.linalg.norm(prototype[1, 7])
    np.testing.assert_allclose(cosine[1, 1, 0, 7], features[1, 1, 0] @ prototype[1, 7] / norms, rtol=1e-5)
    np.testing.assert_array_equal(cosine[0, 0, 0], 0)
    np.testing.assert_array_equal(cosine[1, ..., 4], 0)
    gradient = jax.grad(lambda x: prototypes.cosine_to_prototypes(x, prototype).sum())(features)
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[0, 0, 0], 0)
