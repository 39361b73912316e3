"""Random initial weights: their distributions; fused draws stay independent and compile fast."""

import jax
import numpy as np
import pytest
from flax import linen as nn

from nightjax.core.fused_init import fused_init, stacked_init
from nightjax.models import initializers

SHAPE = (3, 3, 40, 60)  # fan in 360


@pytest.mark.parametrize(
    "init, deviation, limit",
    [
        (initializers.normal(0.5), 0.5, np.inf),
        (initializers.uniform(0.3), 0.3 / 3**0.5, 0.3),
        (initializers.he_normal, (2 / 360) ** 0.5, np.inf),
        (initializers.lecun_uniform, 360**-0.5, (3 / 360) ** 0.5),
        (initializers.torch_uniform, (3 * 360) ** -0.5, 360**-0.5),
    ],
)
@pytest.mark.parametrize("fused", [False, True])
def test_distributions(init, deviation, limit, fused):
    key = jax.random.key(0)
    draw = lambda key: init(key, SHAPE)
    values = np.asarray(fused_init(draw)(key) if fused else draw(key))
    assert values.shape == SHAPE and values.dtype == np.float32
    assert abs(values.mean()) < 4 * deviation / values.size**0.5
    np.testing.assert_allclose(values.std(), deviation, rtol=0.02)
    assert np.abs(values).max() <= limit
    if np.isfinite(limit):
        assert np.abs(values).max() > 0.99 * limit


class Net(nn.Module):
    layers: int

    @nn.compact
    def __call__(self, x):
        for _ in range(self.layers):
            x = nn.Dense(8, kernel_init=initializers.normal(1.0), bias_init=initializers.uniform(1.0))(x)
        return x


def weights(layers: int, seed: int = 0):
    return fused_init(Net(layers).init)(jax.random.key(seed), np.zeros((1, 8), np.float32))["params"]


def test_weights_are_independent():
    found = weights(12)
    kernels = np.stack([found[name]["kernel"].ravel() for name in found])
    correlation = np.corrcoef(kernels) - np.eye(12)
    assert np.abs(correlation).max() < 0.5  # of 64 values: 4 standard deviations
    assert np.abs(np.corrcoef(kernels[0], weights(1, seed=1)["Dense_0"]["kernel"].ravel())[0, 1]) < 0.5


@pytest.mark.parametrize("fused", [False, True])
def test_copies_are_independent(fused):
    init = stacked_init(lambda key: Net(2).init(key, np.zeros((1, 8), np.float32))["params"], 6)
    found = (fused_init(init) if fused else init)(jax.random.key(0))
    assert found["Dense_1"]["bias"].shape == (6, 8)
    kernels = np.concatenate([found[name]["kernel"].reshape(6, -1) for name in found])
    assert np.abs(np.corrcoef(kernels) - np.eye(12)).max() < 0.5
    np.testing.assert_allclose(kernels.std(), 1.0, rtol=0.1)
    assert np.abs(found["Dense_0"]["bias"]).max() <= 1.0


def test_what_comes_later_changes_nothing():
    short, long = weights(2), weights(5)
    for name in short:
        for leaf in short[name]:
            np.testing.assert_array_equal(short[name][leaf], long[name][leaf])


def test_one_generator_a_distribution():
    """Two distributions: each has the loop of its key and that of its numbers, however many weights there are."""
    loops = lambda layers: jax.jit(lambda: weights(layers)).lower().compile().as_text().count(" while(")
    assert loops(12) == loops(2) <= 4


def test_drawing_ends_with_the_call():
    key = jax.random.key(0)
    with pytest.raises(ZeroDivisionError):
        fused_init(lambda _: 1 / 0)(key)
    fused_init(lambda key: initializers.normal(1.0)(key, (3,)))(key)
    np.testing.assert_array_equal(initializers.normal(1.0)(key, (3,)), jax.random.normal(key, (3,)))
