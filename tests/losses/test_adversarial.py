"""Adversarial losses: analytic values."""

import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.errors import UserError
from nightjax.losses.adversarial import adversarial_loss, discriminator_loss

ZERO, ONE = jnp.zeros((2, 3, 4, 1)), jnp.ones((2, 3, 4, 1))


def test_least_squares():
    assert adversarial_loss(ZERO) == 0
    assert adversarial_loss(3 * ONE) == 9
    assert discriminator_loss(ZERO, ONE) == 0
    assert discriminator_loss(ONE, ONE) == discriminator_loss(ZERO, ZERO) == 0.5
    assert discriminator_loss(ONE, ZERO) == 1


def test_vanilla():
    np.testing.assert_allclose(adversarial_loss(ZERO, kind="vanilla"), np.log(2), rtol=1e-6)
    fooled = adversarial_loss(2 * ONE, kind="vanilla")
    np.testing.assert_allclose(fooled, np.log1p(np.exp(2)), rtol=1e-6)
    sure = discriminator_loss(-100 * ONE, 100 * ONE, kind="vanilla")
    np.testing.assert_allclose(sure, 0, atol=1e-6)
    wrong = discriminator_loss(100 * ONE, -100 * ONE, kind="vanilla")
    np.testing.assert_allclose(wrong, 100, rtol=1e-6)


def test_unknown_kind():
    with pytest.raises(UserError, match="use one of least_squares, vanilla"):
        adversarial_loss(ZERO, kind="ls")
