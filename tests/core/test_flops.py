import jax
import jax.numpy as jnp
import pytest

from nightjax.core import flops
from nightjax.models import BACKBONES

X, W = jax.ShapeDtypeStruct((4, 5), jnp.float32), jax.ShapeDtypeStruct((5, 5), jnp.float32)
PRODUCT = 2 * 4 * 5 * 5


def test_products_and_convolutions():
    image, kernel = jnp.zeros((2, 8, 8, 3)), jnp.zeros((3, 3, 3, 7))

    def convolution(image, kernel):
        return jax.lax.conv_general_dilated(image, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    forward = 2 * (2 * 4 * 4 * 7) * (3 * 3 * 3)
    assert flops.count(jnp.dot, X, W) == PRODUCT
    assert flops.count(convolution, image, kernel) == forward
    gradient = jax.grad(lambda *args: convolution(*args).sum(), argnums=(0, 1))
    assert flops.count(gradient, image, kernel) == 3 * forward  # The function, and one for each argument.


def test_loops_count_every_turn_and_conditionals_the_costlier_branch():
    def loop(x, w):
        return jax.lax.scan(lambda x, _: (jnp.dot(x, w), None), x, length=7)[0]

    def either(x, w):
        return jax.lax.cond(x[0, 0] > 0, lambda: jnp.dot(x, w), lambda: jnp.dot(jnp.dot(x, w), w))

    assert flops.count(loop, X, W) == 7 * PRODUCT
    assert flops.count(either, X, W) == 2 * PRODUCT


def test_recomputed_work_counts():
    plain = lambda x, w: jnp.sin(jnp.dot(jnp.sin(jnp.dot(x, w)), w)).sum()
    gradient = lambda function: flops.count(jax.grad(function, argnums=(0, 1)), X, W)
    assert gradient(plain) == 6 * PRODUCT
    assert gradient(jax.checkpoint(plain)) > gradient(plain)


def test_a_transformer_counted_by_hand():
    """Forward and with gradients, which are twice the work again but for the image: it needs none."""
    model = BACKBONES["vit_tiny"]()
    patch, dim, depth, tokens = model.patch, model.dim, model.depth, 8 * 8 + 1 + model.registers
    x = jax.ShapeDtypeStruct((1, 8 * patch, 8 * patch, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    embedding = 2 * 64 * 3 * patch**2 * dim
    blocks = depth * (2 * tokens * 12 * dim**2 + 4 * tokens**2 * dim)
    forward = lambda variables, x: sum(y.sum() for y in model.apply(variables, x).values())
    assert flops.count(forward, variables, x) == pytest.approx(embedding + blocks, rel=0.1)
    assert flops.count(jax.grad(forward), variables, x) == pytest.approx(2 * embedding + 3 * blocks, rel=0.1)
