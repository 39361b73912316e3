"""Generator and discriminator of CycleGAN: sizes, counts and what they may look at."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.errors import UserError
from nightjax.models.cyclegan import ResnetGenerator, build_resnet_generator, patchgan
from nightjax.models.layers import DoublingConv
from nightjax.ops.instance_norm import instance_norm


def count(model, *shape, **options):
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, **options), jnp.zeros(shape))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))


@pytest.mark.parametrize(("blocks", "expected"), [(9, 11_378_179), (6, 7_837_699)])
def test_generator_parameters(blocks, expected):
    assert count(ResnetGenerator(blocks=blocks), 1, 32, 32, 3) == expected


def test_discriminator_parameters():
    assert count(patchgan(), 1, 64, 64, 3) == 2_764_737


def test_output_is_an_image_of_the_same_size():
    x = jax.random.normal(jax.random.key(0), (2, 24, 32, 3))
    y, _ = jax.jit(lambda x: ResnetGenerator(2, blocks=1).init_with_output(jax.random.key(1), x))(x)
    assert y.shape == x.shape and y.dtype == jnp.float32 and float(jnp.abs(y).max()) < 1
    with pytest.raises(UserError, match="multiples of 4"):
        jax.eval_shape(ResnetGenerator(2).init, jax.random.key(0), jnp.zeros((1, 30, 32, 3)))


@pytest.mark.parametrize(("padding", "sizes"), [(1, {256: 30, 512: 62, 1024: 126}), (2, {256: 35, 512: 67, 1024: 131})])
def test_map_sizes(padding, sizes):
    model = patchgan(2, padding=padding)
    for side, expected in sizes.items():
        x = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
        maps, _ = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x), x)
        assert maps[-1].shape == (1, expected, expected, 1)


def test_a_score_sees_70_pixels():
    model, x = patchgan(1, norm="none"), jax.random.normal(jax.random.key(0), (1, 128, 128, 3))
    variables = model.init(jax.random.key(1), x)
    variables = jax.tree.map(lambda leaf: jnp.abs(leaf) + 0.1, variables)
    gradient = jax.jit(jax.grad(lambda x: model.apply(variables, x)[-1][0, 7, 7, 0]))(x)
    rows, columns = np.nonzero(np.abs(gradient[0]).sum(-1))
    assert np.ptp(rows) + 1 == np.ptp(columns) + 1 == 70


def test_instance_norm():
    x = 3 * jax.random.normal(jax.random.key(0), (2, 9, 7, 5)) + 4
    y = instance_norm(x)
    np.testing.assert_allclose(y.mean((1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.var((1, 2)), 1, atol=1e-4)
    np.testing.assert_allclose(y[0], instance_norm(x.at[1].set(0.0))[0], atol=1e-6)
    np.testing.assert_array_equal(instance_norm(jnp.full((1, 4, 4, 2), 7.0)), 0)


def test_transposed_convolution_of_the_specification():
    """Torch's kernel [1, 2, 3], stride 2, padding 1, output padding 1, along one dimension."""
    kernel = jnp.zeros((3, 3, 1, 1)).at[1, :, 0, 0].set(jnp.array([1.0, 2.0, 3.0]))
    for given, expected in (([1, 0], [2, 3, 0, 0]), ([0, 1], [0, 1, 2, 3])):
        x = jnp.asarray(given, jnp.float32)[None, None, :, None]
        y = DoublingConv(1).apply({"params": {"kernel_t": kernel}}, x)
        np.testing.assert_array_equal(y[0, 0, :, 0], expected)


def test_attributes_are_checked():
    with pytest.raises(UserError, match="blocks"):
        build_resnet_generator(bloks=9)
