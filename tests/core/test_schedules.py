"""Learning-rate factors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.schedules import mmseg_poly, warmup_poly


@pytest.mark.parametrize(
    ("step", "factor"),
    [(0, 1e-6), (750, 0.5000005), (1500, 1.0), (20750, 0.5), (40000, 0.0), (50000, 0.0)],
)
def test_warmup_poly(step, factor):
    np.testing.assert_allclose(warmup_poly(step, 40000, 1500), factor, rtol=1e-6)


@pytest.mark.parametrize(
    ("step", "factor"), [(0, 1e-6), (1500, 0.9625), (20000, 0.5), (40000, 0.0)]
)
def test_mmseg_poly(step, factor):
    np.testing.assert_allclose(mmseg_poly(step, 40000, 1500), factor, rtol=1e-6)
    half = mmseg_poly(750, 40000, 1500)
    np.testing.assert_allclose(half, (1 - 750 / 40000) * 0.5000005, rtol=1e-6)


def test_power_and_no_warmup():
    np.testing.assert_allclose(warmup_poly(1, 4), 0.75)
    np.testing.assert_allclose(warmup_poly(1, 4, power=0.9), 0.75**0.9, rtol=1e-6)
    np.testing.assert_allclose(mmseg_poly(1, 4, power=0.9), 0.75**0.9, rtol=1e-6)


def test_traced_step():
    factors = jax.jit(jax.vmap(lambda t: warmup_poly(t, 10, 4)))(jnp.arange(11))
    assert factors.dtype == jnp.float32
    assert np.all(np.diff(factors[:5]) > 0) and np.all(np.diff(factors[4:]) < 0)
