"""The teacher's decay: copies, averages, then caps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.ema import ema_update

TEACHER, STUDENT = (
    {"a": {"kernel": jnp.array([1.0, -2.0])}},
    {"a": {"kernel": jnp.array([3.0, 5.0])}},
)


@pytest.mark.parametrize(
    ("step", "decay"),
    [(0, 0.0), (1, 0.5), (2, 2 / 3), (998, 998 / 999), (999, 0.999), (5000, 0.999)],
)
def test_decay(step, decay):
    out = jax.jit(ema_update)(TEACHER, STUDENT, jnp.int32(step))["a"]["kernel"]
    np.testing.assert_allclose(out, decay * np.array([1.0, -2.0]) + (1 - decay) * np.array([3.0, 5.0]), rtol=1e-6)


def test_first_step_copies_exactly():
    teacher = {"a": {"kernel": jnp.array([1e30, 0.1])}}
    np.testing.assert_array_equal(ema_update(teacher, STUDENT, 0)["a"]["kernel"], STUDENT["a"]["kernel"])


def test_decay_max_is_an_option_and_dtype_is_kept():
    teacher = {"a": {"kernel": jnp.array([1.0, -2.0], jnp.bfloat16)}}
    out = ema_update(teacher, STUDENT, 100, decay_max=0.25)["a"]["kernel"]
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(jnp.float32), [2.5, 3.25], rtol=1e-2)
