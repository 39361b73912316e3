"""Blocks of translators: known values of the specification, and properties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.errors import UserError
from nightjax.models import translation_blocks as blocks
from nightjax.ops.instance_norm import instance_norm


def ramp(side):
    return jnp.arange(side * side, dtype=jnp.float32).reshape(1, side, side, 1)


@pytest.mark.parametrize(
    ("side", "expected"),
    [(4, [[2.5, 4], [8.5, 10]]), (5, [[3, 4.5, 6], [10.5, 12, 13.5], [18, 19.5, 21]])],
)
def test_average_pool_counts_real_cells_only(side, expected):
    np.testing.assert_allclose(blocks.average_pool(ramp(side))[0, ..., 0], expected, rtol=1e-6)


@pytest.mark.parametrize("size", [(6, 10), (7, 5)])
def test_binomial_pool_keeps_constants_and_takes_every_second_pixel(size):
    x = jnp.full((1, *size, 2), 3.0)
    half = blocks.binomial_pool(x)
    assert half.shape == (1, -(-size[0] // 2), -(-size[1] // 2), 2)
    np.testing.assert_allclose(half, 3.0, rtol=1e-6)
    spike = jnp.zeros((1, 9, 9, 1)).at[0, 4, 4].set(16.0)
    np.testing.assert_allclose(blocks.binomial_pool(spike)[0, 2, 2, 0], 4.0)


def test_double_is_nearest_neighbour():
    x = jnp.array([[1.0, 2.0]]).reshape(1, 1, 2, 1)
    np.testing.assert_array_equal(blocks.double(x)[0, ..., 0], [[1, 1, 2, 2], [1, 1, 2, 2]])


def test_pad_to_multiple_repeats_the_last_pixels():
    x = blocks.pad_to_multiple(ramp(5), 4)
    assert x.shape == (1, 8, 8, 1)
    np.testing.assert_array_equal(x[0, :5, :5, 0], ramp(5)[0, ..., 0])
    np.testing.assert_array_equal(x[0, 7, 7], x[0, 4, 4])
    assert blocks.pad_to_multiple(ramp(4), 4).shape == (1, 4, 4, 1)


def test_sample_norm_divides_by_the_unbiased_deviation_plus_epsilon():
    x = jnp.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 2, 2, 1)
    params = {"gamma": jnp.ones(1), "beta": jnp.zeros(1)}
    y = blocks.SampleNorm().apply({"params": params}, x)
    np.testing.assert_allclose(y.ravel(), [-1.16188, -0.38729, 0.38729, 1.16188], atol=1e-5)


def test_sample_norm_of_a_batch_is_that_of_each_example_and_starts_with_a_random_scale():
    x = jax.random.normal(jax.random.key(0), (3, 4, 5, 6))
    y, variables = blocks.SampleNorm().init_with_output(jax.random.key(1), x)
    one = blocks.SampleNorm().apply(variables, x[1:2])
    np.testing.assert_allclose(one[0], y[1], atol=1e-6)
    gamma = variables["params"]["gamma"]
    assert gamma.min() >= 0 and gamma.max() < 1 and len(set(gamma.tolist())) == 6


def test_sample_norm_of_a_constant_has_a_finite_gradient():
    x, params = jnp.ones((1, 4, 4, 2)), {"gamma": jnp.ones(2), "beta": jnp.zeros(2)}
    grads = jax.grad(lambda x: blocks.SampleNorm().apply({"params": params}, x).sum())(x)
    assert np.isfinite(grads).all()


def test_instance_norm_has_no_memory_of_brightness_and_contrast():
    x = jax.random.normal(jax.random.key(0), (2, 6, 7, 3))
    y = instance_norm(x)
    np.testing.assert_allclose(y.mean((1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(y.var((1, 2)), 1, atol=1e-4)
    np.testing.assert_allclose(instance_norm(5 * x + 7), y, atol=1e-4)


def test_reflection_needs_more_pixels_than_the_border():
    with pytest.raises(UserError, match="1x4 cannot be reflected by 1"):
        blocks.pad(jnp.zeros((1, 1, 4, 1)), 1)
    with pytest.raises(UserError, match="norm='instans'"):
        jax.eval_shape(blocks.ConvBlock(2, norm="instans").init, jax.random.key(0), jnp.zeros((1, 4, 4, 1)))


def test_dropout_of_residual_blocks_only_in_training():
    x = jax.random.normal(jax.random.key(0), (1, 6, 6, 4))
    block = blocks.ResidualBlock(dropout=0.5)
    variables = block.init(jax.random.key(1), x)
    still, moved = (
        block.apply(variables, x, train=train, rngs={"dropout": jax.random.key(2)}) for train in (False, True)
    )
    kept = np.isclose(moved - x, 2 * (still - x), atol=1e-5)
    dropped = np.isclose(moved, x, atol=1e-6)
    assert (kept | dropped).all() and 0.2 < dropped.mean() < 0.8


def test_patch_discriminator_gives_every_layer():
    x = jnp.zeros((1, 32, 48, 3))
    model = blocks.PatchDiscriminator(4, (2, 2, 1), last_kernel=4, norm="instance", pad_mode="zero")
    maps, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), x)
    assert [m.shape[1:] for m in maps] == [(16, 24, 4), (8, 12, 8), (7, 11, 16), (6, 10, 1)]
