"""Discriminators: sizes of networks and maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.errors import UserError
from nightjax.models.discriminator import VARIANTS, Discriminator


def shape(variant, size):
    model, x = Discriminator(**VARIANTS[variant]), jnp.zeros((1, 32, 32, 19))
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    x = jax.ShapeDtypeStruct((1, *size, 19), jnp.float32)
    return jax.eval_shape(model.apply, variables, x).shape


@pytest.mark.parametrize(
    ("variant", "size", "scores"),
    [
        ("dannet", (512, 512), (125, 125)),
        ("dannet", (960, 960), (237, 237)),
        ("adaptsegnet", (512, 1024), (16, 32)),
    ],
)
def test_map_sizes(variant, size, scores):
    assert shape(variant, size) == (1, *scores, 1)


@pytest.mark.parametrize(("variant", "count"), [("dannet", 1_728_193), ("adaptsegnet", 2_781_121)])
def test_parameter_counts(variant, count):
    model, x = Discriminator(**VARIANTS[variant]), jnp.zeros((1, 32, 32, 19))
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count


def test_initial_weights_are_torchs():
    variables = Discriminator().init(jax.random.key(0), jnp.zeros((1, 32, 32, 19)))
    for layer, fan in (("conv1", 16 * 19), ("classifier", 16 * 256)):
        leaves = variables["params"][layer]
        assert np.abs(leaves["kernel"]).max() <= fan**-0.5
        assert 0 < np.abs(leaves["bias"]).max() <= fan**-0.5


def test_small_input():
    with pytest.raises(UserError, match="16x40 is too small"):
        shape("adaptsegnet", (16, 40))
