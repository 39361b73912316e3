"""The static loss: analytic values and the relations between its readings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.errors import UserError
from nightjax.losses.static import NEIGHBORHOODS, static_loss

ONES = jnp.ones(11)


def night(seed=0, size=(9, 12)):
    logits = jax.random.normal(jax.random.key(seed), (2, *size, 19)) * 2
    label = jax.random.randint(jax.random.key(seed + 1), (2, *size), 0, 11)
    ignored = jax.random.bernoulli(jax.random.key(seed + 2), 0.3, label.shape)
    return logits, jnp.where(ignored, 255, label).astype(jnp.uint8)


def test_uniform_probabilities():
    label = jnp.array([[[3, 255], [0, 10]]], jnp.uint8)
    loss = static_loss(jnp.zeros((1, 2, 2, 19)), label, ONES)
    np.testing.assert_allclose(loss, (1 - 1 / 11) * np.log(11), rtol=1e-6)
    plain = static_loss(jnp.zeros((1, 2, 2, 19)), label, ONES, gamma=0.0)
    np.testing.assert_allclose(plain, np.log(11), rtol=1e-6)


def test_only_static_channels_count():
    logits, label = night()
    other = logits.at[..., 11:].add(7.0)
    assert static_loss(logits, label, ONES) == static_loss(other, label, ONES)
    assert static_loss(logits, label, ONES) == static_loss(logits[..., :11], label, ONES)


def test_window_allows_more_than_the_center():
    logits, label = night()
    window = static_loss(logits, label, ONES, neighborhood="3x3")
    assert window < static_loss(logits, label, ONES)
    one_class = jnp.where(label == 255, label, 4).astype(jnp.uint8)
    np.testing.assert_allclose(
        static_loss(logits, one_class, ONES, neighborhood="3x3"),
        static_loss(logits, one_class, ONES),
        rtol=1e-6,
    )


def test_window_takes_the_neighbor_that_fits():
    logits = jnp.zeros((1, 3, 3, 11)).at[0, 1, 1, 5].set(20.0)
    label = jnp.full((1, 3, 3), 255, jnp.uint8).at[0, 1, 1].set(2)
    alone = static_loss(logits, label, ONES, neighborhood="3x3")
    np.testing.assert_allclose(alone, -np.log(1e-7), rtol=1e-2)  # p is cut at 1e-7
    beside = label.at[0, 0, 0].set(5)
    uniform = (1 - 1 / 11) * np.log(11)  # of the neighbor itself
    loss = static_loss(logits, beside, ONES, neighborhood="3x3")
    np.testing.assert_allclose(loss, uniform / 2, rtol=1e-5)


def test_code_moves_labels_of_the_border_only():
    logits, label = night()
    inner = jnp.full_like(label, 255).at[:, 3:-3, 3:-3].set(label[:, 3:-3, 3:-3])
    code = static_loss(logits, inner, ONES, neighborhood="code")
    np.testing.assert_allclose(code, static_loss(logits, inner, ONES), rtol=1e-6)
    code = static_loss(logits, label, ONES, neighborhood="code")
    assert code != static_loss(logits, label, ONES)


@pytest.mark.parametrize("neighborhood", NEIGHBORHOODS)
def test_nothing_labeled(neighborhood):
    logits, label = night()

    def loss(logits):
        ignored = jnp.full_like(label, 255)
        return static_loss(logits, ignored, ONES, neighborhood=neighborhood)

    value, gradient = jax.value_and_grad(loss)(logits)
    assert value == 0
    assert not np.asarray(gradient).any()


def test_weighted_probability_is_cut_at_one():
    logits = jnp.zeros((1, 1, 1, 11)).at[..., 0].set(20.0)
    label = jnp.zeros((1, 1, 1), jnp.uint8)
    gradient = jax.grad(static_loss)(logits, label, 1.1 * ONES)
    assert not np.asarray(gradient).any()


def test_unknown_neighborhood():
    logits, label = night()
    with pytest.raises(UserError, match="use one of center, 3x3, code"):
        static_loss(logits, label, ONES, neighborhood="5x5")
