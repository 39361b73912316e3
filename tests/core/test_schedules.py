"""Learning-rate factors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core import schedules
from nightjax.core.schedules import mmseg_poly, warmup_poly


@pytest.mark.parametrize(
    ("step", "factor"),
    [(0, 1e-6), (750, 0.5000005), (1500, 1.0), (20750, 0.5), (40000, 0.0), (50000, 0.0)],
)
def test_warmup_poly(step, factor):
    np.testing.assert_allclose(warmup_poly(step, 40000, 1500), factor, rtol=1e-6)


@pytest.mark.parametrize(("step", "factor"), [(0, 1e-6), (1500, 0.9625), (20000, 0.5), (40000, 0.0)])
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


@pytest.mark.parametrize(("step", "factor"), [(0, 1), (744, 0.5), (1488, 0), (2232, 0.5), (2976, 1), (59 * 2976, 1)])
def test_cosine_zigzag(step, factor):
    np.testing.assert_allclose(schedules.cosine(step, 1488), factor, atol=1e-6)


def test_linear_tail():
    steps = np.array([0, 24_999, 25_000, 37_500, 50_000, 60_000])
    np.testing.assert_allclose(schedules.linear_tail(steps, 50_000, 25_000), [1, 1, 1, 0.5, 0, 0], atol=1e-6)
    epochs = np.array([0, 99, 100, 150, 199]) + 1  # CycleGAN counts from 0.
    expected = [1, 1, 0.990099, 0.4950495, 0.0099010]
    np.testing.assert_allclose(schedules.linear_tail(epochs, 201, 100), expected, atol=1e-6)
    epochs = np.array([1, 101, 102, 200])  # pix2pixHD
    np.testing.assert_allclose(2e-4 * schedules.linear_tail(epochs, 201, 101), [2e-4, 2e-4, 1.98e-4, 2e-6], rtol=1e-5)


@pytest.mark.parametrize(("step", "factor"), [(0, 1), (99_998, 1), (99_999, 0.5), (199_998, 0.5), (199_999, 0.25)])
def test_step_decay_is_one_step_ahead(step, factor):
    np.testing.assert_allclose(schedules.step_decay(step, 100_000), factor, rtol=1e-6)


@pytest.mark.parametrize(("step", "factor"), [(0, 1e-3), (1499, 1.0), (1500, 0.9625), (20000, 0.5), (40000, 0.0)])
def test_warmup_line(step, factor):
    np.testing.assert_allclose(schedules.warmup_line(step, 40000, 1500), factor, rtol=1e-6)
    np.testing.assert_allclose(schedules.warmup_line(10_000, 40000), 0.75)
