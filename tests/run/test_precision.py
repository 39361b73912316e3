"""bfloat16 computes; parameters, statistics, losses and averages stay float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax import methods
from nightjax.core import sharding
from nightjax.run import start
from tests.helpers import toy


def losses(folder, dtype, steps=20):
    config = toy.config(folder, "dsr_fpa", model__dtype=dtype)
    method, mesh = methods.build(config), sharding.make_mesh(jax.devices()[:1])
    state = start.first_state(config, method, mesh)
    rng = np.random.default_rng(0)

    def fill(x):
        high = 13 if len(x.shape) == 3 else 255
        return (
            jnp.asarray(rng.integers(0, high, x.shape), x.dtype) if x.dtype == jnp.uint8 else jnp.ones(x.shape, x.dtype)
        )

    batch = jax.tree.map(fill, start.abstract_batch(config, method, mesh))
    step = jax.jit(method.train_step)
    values = []
    for _ in range(steps):
        state, scalars = step(state, batch)
        values.append(float(scalars["loss_source"]))
    return state, scalars, np.array(values)


@pytest.mark.slow
def test_bfloat16_stays_near_float32(tmp_path):
    folder = toy.write_folder(tmp_path, references=True)
    _, _, exact = losses(folder, "float32")
    state, scalars, rounded = losses(folder, "bfloat16")
    floats = [x for x in jax.tree.leaves((state.params, state.batch_stats, state.teacher, state.opt_state, scalars))]
    assert {x.dtype for x in floats if jnp.issubdtype(x.dtype, jnp.floating)} == {jnp.dtype("float32")}
    np.testing.assert_allclose(rounded, exact, rtol=0.02)
    assert exact[-1] < exact[0]
