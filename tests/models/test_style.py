import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.errors import UserError
from nightjax.models.style import EMBEDDING, LEAST_SIDE, StyleRandomizer, StyleTransformer


@pytest.fixture(scope="module")
def shapes():
    image, noise = jnp.zeros((1, 48, 48, 3)), jnp.zeros((1, EMBEDDING))
    return jax.eval_shape(StyleRandomizer().init, jax.random.key(0), image, noise)


def test_transformer_has_the_published_number_of_parameters(shapes):
    """Layer by layer, from the official class: convolutions with bias, and linear maps of 100 numbers to scales and
    shifts."""

    def convolution(side, before, after):
        return side * side * before * after + after

    def styled(width):
        return 2 * (100 * width + width)

    expected = convolution(9, 3, 32) + convolution(3, 32, 64) + convolution(3, 64, 128)
    expected += 5 * 2 * (convolution(3, 128, 128) + styled(128))
    expected += convolution(3, 128, 64) + styled(64) + convolution(3, 64, 32) + styled(32)
    expected += convolution(9, 32, 3) + styled(3)
    assert sum(x.size for x in jax.tree.leaves(shapes["params"]["ghiasi"])) == expected == 1_954_593


def test_predictor_ends_after_mixed_6e(shapes):
    parts = shapes["params"]["stylePredictor"]
    assert "Mixed_6e" in parts and "Mixed_7a" not in parts and parts["fc"]["kernel"].shape == (768, 100)


@pytest.mark.parametrize("size", [(16, 20), (12, 12)])
def test_transformer_keeps_sides_that_are_multiples_of_4(size):
    model, image = StyleTransformer(), jax.random.uniform(jax.random.key(0), (2, *size, 3))
    style = jax.random.normal(jax.random.key(1), (2, EMBEDDING))

    def run(key):
        variables = model.init(key, image, style)
        return model.apply(variables, image, style), model.apply(variables, image, style[::-1])

    if size != (16, 20):
        assert jax.eval_shape(run, jax.random.key(2))[0].shape == image.shape
        return
    first, second = jax.jit(run)(jax.random.key(2))
    assert first.shape == image.shape and float(first.min()) > 0 and float(first.max()) < 1
    assert float(jnp.abs(first - second).max()) > 1e-3


def test_small_images_are_refused():
    with pytest.raises(UserError, match=f"{LEAST_SIDE} pixels.*42x64"):
        jax.eval_shape(StyleRandomizer().init, jax.random.key(0), jnp.zeros((1, 42, 64, 3)), jnp.zeros((1, EMBEDDING)))
    image, noise = jnp.zeros((1, LEAST_SIDE, LEAST_SIDE, 3)), jnp.zeros((1, EMBEDDING))
    jax.eval_shape(StyleRandomizer().init, jax.random.key(0), image, noise)


@pytest.mark.slow
def test_strength_0_is_the_images_own_style():
    model, image = StyleRandomizer(), jax.random.uniform(jax.random.key(0), (1, 45, 50, 3))
    noise = jax.random.normal(jax.random.key(1), (2, 1, EMBEDDING))
    variables = jax.jit(model.init)(jax.random.key(2), image, noise[0])
    run = jax.jit(lambda x, noise, strength: model.apply(variables, x, noise, strength))
    np.testing.assert_array_equal(run(image, noise[0], 0.0), run(image, noise[1], 0.0))
    one, two = run(image, noise[0], 0.5), run(image, noise[1], 0.5)
    assert (
        float(jnp.abs(one - two).max()) > 1e-3 and one.shape == image.shape
    )  # Sides that are no multiples of 4 are kept too.
    assert float(one.min()) > 0 and float(one.max()) < 1
    assert float(jnp.abs(jax.grad(lambda x: run(x, noise[0], 0.5).sum())(image)).max()) == 0
