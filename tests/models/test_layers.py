import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from nightjax.models.layers import Conv, Dropout2d, max_pool


def library(x, kernel, stride=1, dilation=1, padding=(0, 0), groups=1):
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(p, p) for p in padding],
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def with_gradients(function, *arguments):
    """Output and gradients for a fixed random cotangent."""

    @jax.jit
    def both(*arguments):
        output, pull = jax.vjp(function, *arguments)
        return output, pull(jax.random.normal(jax.random.key(2), output.shape))

    return both(*arguments)


CASES = {
    "1x1": dict(kernel=1),
    "1x1 stride 2": dict(kernel=1, stride=2),
    "1x1 padded": dict(kernel=1, padding=1),
    "3x3 stride 2": dict(stride=2),
    "3x3 dilation 4": dict(dilation=4),
    "7x7 stem": dict(kernel=7, stride=2, use_bias=True),
    "patches": dict(kernel=4, stride=4, padding=0, use_bias=True),
    "1x7": dict(kernel=(1, 7)),
    "depthwise": dict(groups="depthwise", features=6, use_bias=True),
    "depthwise dilation 3": dict(groups="depthwise", features=6, dilation=3),
    "depthwise stride 2": dict(groups="depthwise", features=6, stride=2),
    "many tiny maps": dict(shape=(500, 9, 7, 6), padding=0, use_bias=True),
    "many tiny maps stride 2": dict(shape=(500, 7, 8, 6), stride=2, kernel=(3, 2), padding=1),
    "depthwise 5x3": dict(groups="depthwise", features=6, kernel=(5, 3), padding=0),
}


@pytest.mark.parametrize("name", CASES)
def test_conv_equals_the_library(name):
    options = {"features": 5, **CASES[name]}
    shape = options.pop("shape", (2, 13, 18, 6))
    conv = Conv(**options, bias_init=jax.nn.initializers.normal(1.0))
    x = jax.random.normal(jax.random.key(0), shape)
    params = conv.init(jax.random.key(1), x)["params"]
    stride, dilation = options.get("stride", 1), options.get("dilation", 1)
    size = np.broadcast_to(options.get("kernel", 3), 2)
    padding = np.broadcast_to(options.get("padding", dilation * (size - 1) // 2), 2).tolist()
    groups = 6 if "groups" in options else 1
    assert params["kernel"].shape == (*size, 6 // groups, options["features"])

    def expected(params, x):
        return library(x, params["kernel"], stride, dilation, padding, groups) + params.get("bias", 0.0)

    actual = with_gradients(lambda params, x: conv.apply({"params": params}, x), params, x)
    wanted = with_gradients(expected, params, x)
    for got, want in zip(*map(jax.tree.leaves, (actual, wanted)), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5 * float(jnp.abs(want).max()))


def test_conv_dtype_and_init():
    x = jnp.ones((1, 8, 8, 32))
    conv = Conv(64, dtype=jnp.bfloat16)
    y, variables = conv.init_with_output(jax.random.key(0), x)
    assert y.dtype == jnp.bfloat16
    assert variables["params"]["kernel"].dtype == jnp.float32
    np.testing.assert_allclose(variables["params"]["kernel"].std(), np.sqrt(2 / (9 * 64)), rtol=0.05)
    depthwise = Conv(32, groups="depthwise").init(jax.random.key(0), x)
    np.testing.assert_allclose(depthwise["params"]["kernel"].std(), np.sqrt(2 / 9), rtol=0.2)


def test_conv_refuses_groups():
    x = jnp.ones((1, 8, 8, 4))
    with pytest.raises(ValueError, match="groups"):
        Conv(4, groups=2).init(jax.random.key(0), x)
    with pytest.raises(ValueError, match="depthwise"):
        Conv(8, groups="depthwise").init(jax.random.key(0), x)


@pytest.mark.parametrize("size,floor,ceil", [(12, 6, 7), (13, 7, 7), (256, 128, 129), (5, 3, 3), (6, 3, 4)])
def test_max_pool_sizes(size, floor, ceil):
    x = jnp.zeros((1, size, 7, 1))
    assert max_pool(x, 3, 2, 1).shape == (1, floor, 4, 1)
    assert max_pool(x, 3, 2, 1, ceil_mode=True).shape == (1, ceil, 4, 1)


def test_ceil_mode_drops_a_window_in_the_padding():
    assert max_pool(jnp.zeros((1, 3, 3, 1)), 1, 2, 0, ceil_mode=True).shape == (1, 2, 2, 1)
    assert max_pool(jnp.zeros((1, 4, 4, 1)), 2, 3, 1, ceil_mode=True).shape == (1, 2, 2, 1)
    assert max_pool(jnp.zeros((1, 4, 4, 1)), 1, 2, 0, ceil_mode=True).shape == (1, 2, 2, 1)


@pytest.mark.parametrize("size", [12, 13])
def test_max_pool_equals_the_library(size):
    # All below zero, so that a border of zeros would win.
    x = -jnp.abs(jax.random.normal(jax.random.key(0), (2, size, 9, 3)))

    def reduce_window(x):
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0)))

    actual, gradient = with_gradients(lambda x: max_pool(x, 3, 2, 1), x)
    wanted, wanted_gradient = with_gradients(reduce_window, x)
    np.testing.assert_array_equal(actual, wanted)
    np.testing.assert_allclose(gradient[0], wanted_gradient[0], atol=1e-6)
    ceil = max_pool(x, 3, 2, 1, ceil_mode=True)
    np.testing.assert_array_equal(ceil[:, : wanted.shape[1]], wanted)


def test_dropout_drops_channels():
    x = jnp.ones((64, 3, 4, 32))
    rngs = {"dropout": jax.random.key(0)}
    channels = Dropout2d(0.25).apply({}, x, deterministic=False, rngs=rngs)
    flat = np.asarray(channels).reshape(64, 12, 32)
    np.testing.assert_array_equal(flat.min(1), flat.max(1))
    np.testing.assert_allclose(np.unique(flat), [0, 4 / 3], rtol=1e-6)
    np.testing.assert_allclose(flat.mean(), 1, atol=0.05)
    np.testing.assert_array_equal(Dropout2d(0.25).apply({}, x, deterministic=True), x)
