import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.ops.image_pool import empty_pool, query


def ask(pool, values, swap, index):
    return query(pool, jnp.asarray(values, jnp.float32), jnp.asarray(swap), jnp.asarray(index, jnp.int32))


def test_size_0_is_the_identity():
    pool = empty_pool(jnp.zeros(1), 0)
    pool, shown = ask(pool, [1, 2, 3], [True] * 3, [0] * 3)
    np.testing.assert_array_equal(shown, [1, 2, 3])


def test_first_images_come_back_and_then_half_of_the_shown_are_old():
    size, count = 50, 10_000
    keys = jax.random.split(jax.random.key(0))
    swap = jax.random.bernoulli(keys[0], shape=(count,)) | (
        jnp.arange(count) < size
    )  # No swap before the pool is full.
    index = jax.random.randint(keys[1], (count,), 0, size)
    pool, shown = jax.jit(query)(empty_pool(jnp.zeros(1), size), jnp.arange(count, dtype=jnp.float32), swap, index)
    np.testing.assert_array_equal(shown[:size], np.arange(size))
    assert int(pool.count) == size and pool.image.shape == (size, 1)
    assert np.mean(np.asarray(shown[size:]) != np.arange(size, count)) == pytest.approx(0.5, abs=0.02)
    assert len(np.unique(pool.image)) == size


def test_slots_are_pools_of_their_own():
    pool = empty_pool(jnp.zeros(2), 1)
    pool, _ = ask(pool, [1, 10], [False, False], [0, 0])
    pool, shown = ask(pool, [2, 20, 3, 30], [True, False, False, True], [0, 0, 0, 0])
    np.testing.assert_array_equal(shown, [1, 20, 3, 10])
    np.testing.assert_array_equal(pool.image, [[2, 30]])


def test_images_keep_their_shape_and_type():
    pool = empty_pool(jnp.zeros((2, 3, 4, 3)), 2)
    image = jnp.ones((2, 3, 4, 3))
    pool, shown = query(pool, image, jnp.ones(2, bool), jnp.zeros(2, jnp.int32))
    assert shown.shape == image.shape and shown.dtype == jnp.float32
    np.testing.assert_array_equal(pool.image[0], image)
