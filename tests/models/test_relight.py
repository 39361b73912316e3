"""RelightNet: sizes, range and the dense form of its transposed convolution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from nightjax.models.layers import DoublingConv
from nightjax.models.relight import RelightNet


def test_parameter_count():
    shapes = jax.eval_shape(RelightNet().init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == 4_299_395


def test_residual_has_the_image_shape_and_stays_within_one():
    model = RelightNet(features=2)
    x = 5 * jax.random.normal(jax.random.key(0), (2, 12, 20, 3))
    residual, variables = model.init_with_output(jax.random.key(1), x)
    assert residual.shape == x.shape
    assert residual.dtype == jnp.float32
    assert float(jnp.abs(residual).max()) < 1
    _, updated = model.apply(variables, x, train=True, mutable=["batch_stats"])
    means = jax.tree.leaves(updated["batch_stats"])
    assert len(means) == 2 * 11
    assert all(np.isfinite(leaf).all() for leaf in means)


@pytest.mark.parametrize("size", [(12, 20), (13, 18), (15, 21)])
def test_any_size_keeps_its_shape(size):
    """Multiples of 4 as in the official network, whose output is longer for other sides."""
    shapes = jax.eval_shape(RelightNet(features=2).init_with_output, jax.random.key(0), jnp.zeros((1, *size, 3)))
    assert shapes[0].shape == (1, *size, 3)


def test_doubling_equals_the_dilated_form():
    x = jax.random.normal(jax.random.key(0), (2, 4, 5, 3))
    y, variables = DoublingConv(6).init_with_output(jax.random.key(1), x)
    kernel = variables["params"]["kernel_t"]

    def dilated(kernel, x):
        return lax.conv_general_dilated(
            x,
            kernel[::-1, ::-1],
            (1, 1),
            [(1, 2), (1, 2)],
            lhs_dilation=(2, 2),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    assert y.shape == (2, 8, 10, 6)
    np.testing.assert_allclose(y, dilated(kernel, x), atol=1e-5)
    weight = jax.random.normal(jax.random.key(2), y.shape)

    def ours(kernel, x):
        return DoublingConv(6).apply({"params": {"kernel_t": kernel}}, x)

    pair = [jax.grad(lambda k, x, f=f: (f(k, x) * weight).sum(), argnums=(0, 1))(kernel, x) for f in (ours, dilated)]
    for actual, expected in zip(*pair, strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-4)


def test_initial_kernel_is_uniform_up_to_the_root_of_the_output_fan():
    variables = DoublingConv(32).init(jax.random.key(0), jnp.zeros((1, 4, 4, 8)))
    kernel = np.asarray(variables["params"]["kernel_t"])
    bound = (9 * 32) ** -0.5
    assert 0.98 * bound < np.abs(kernel).max() <= bound
