"""Sizes of the FID network; its numbers are checked in tests/golden/test_fid.py."""

import jax
import jax.numpy as jnp
import numpy as np

from nightjax.interop.torch_weights import to_torch
from nightjax.models.backbones.inception import FORK, INPUT_SIZE, InceptionV3, Mixed


def test_parameters_and_names():
    shapes = jax.eval_shape(InceptionV3().init, jax.random.key(0), jnp.zeros((1, *INPUT_SIZE, 3)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == 21_785_568
    names = to_torch(jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), shapes))
    assert {
        "Conv2d_1a_3x3.conv.weight",
        "Conv2d_1a_3x3.bn.running_var",
        "Mixed_5b.branch5x5_1.conv.weight",
        "Mixed_6b.branch7x7dbl_5.bn.bias",
        "Mixed_7a.branch7x7x3_4.conv.weight",
        "Mixed_7b.branch3x3_2a.conv.weight",
        "Mixed_7c.branch3x3dbl_3b.bn.running_mean",
        "Mixed_7c.branch_pool.conv.weight",
    } <= set(names)
    assert names["Mixed_6b.branch7x7_2.conv.weight"].shape == (128, 128, 1, 7)


def test_outputs():
    x = jax.ShapeDtypeStruct((2, *INPUT_SIZE, 3), jnp.float32)
    model = InceptionV3()
    shapes = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x)[0], x)
    assert {name: leaf.shape for name, leaf in shapes.items()} == {
        f"pool{channels}": (2, channels) for channels in (64, 192, 768, 2048)
    }


def test_pools_and_forks_of_a_block():
    block = Mixed((("fork", ((2, 1), (3, FORK))),), pool_features=1)
    x = jnp.ones((1, 5, 6, 2))
    y, variables = block.init_with_output(jax.random.key(0), x)
    assert y.shape == (1, 5, 6, 7) and {"fork__1", "fork_2a", "fork_2b", "branch_pool"} == set(variables["params"])
    np.testing.assert_allclose(
        y[..., -1], y[0, 2, 2, -1], rtol=1e-6
    )  # Padding is not counted, so corners are as the middle.
    halved = Mixed((("branch", ((4, 3),)),)).init_with_output(jax.random.key(0), x)[0]
    assert halved.shape == (1, 2, 2, 6)
