"""Stacks: what modules declare is what they make, and which paths belong to one."""

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from nightjax.core.stacks import Stack, find_stack, stacks_of
from nightjax.models import build_segmenter
from nightjax.models.backbones.transformer import linear_init, scan_blocks, stacked_params

SHIFTED = Stack("stages_0/blocks_shifted", block="stages_0/blocks", first=1, step=2)


def test_paths():
    assert find_stack((Stack("block1"), SHIFTED), ("stages_0", "blocks_shifted", "fc", "kernel")) is SHIFTED
    for path in (("block10", "kernel"), ("block1_each", "kernel"), ("head", "block1", "kernel"), ("stages_0", "x")):
        assert find_stack((Stack("block1"), SHIFTED), path) is None
    assert Stack("block1").block_paths(("block1", "kernel"), 2) == [("block1_0", "kernel"), ("block1_1", "kernel")]
    inside = SHIFTED.inside("backbone")
    assert inside.holds(("backbone", "stages_0", "blocks_shifted", "kernel"))
    assert inside.block_paths(("backbone", "stages_0", "blocks_shifted", "kernel"), 2) == [
        ("backbone", "stages_0", "blocks_1", "kernel"),
        ("backbone", "stages_0", "blocks_3", "kernel"),
    ]


class Block(nn.Module):
    """A residual linear map."""

    @nn.compact
    def __call__(self, x, keep=None):
        return x + nn.Dense(x.shape[-1], kernel_init=linear_init)(x)


class Undeclared(nn.Module):
    """Three blocks."""

    @nn.compact
    def __call__(self, x):
        block = Block(parent=None)
        return scan_blocks([block], [stacked_params(self, "blocks", block, 3, x)], x, None)


class Uniform(Undeclared):
    """The same, as it should be."""

    stacks = (Stack("blocks"),)


def test_a_plain_stack_is_one_line():
    shapes = jax.eval_shape(Uniform().init, jax.random.key(0), jnp.zeros((2, 4)))["params"]
    assert shapes["blocks"]["Dense_0"]["kernel"].shape == (3, 4, 4)
    assert stacks_of(Uniform(), "backbone") == (Stack("backbone/blocks"),)


def test_an_undeclared_stack_is_refused():
    assert stacks_of(Undeclared()) == ()
    with pytest.raises(ValueError, match="Undeclared makes a stack 'blocks'"):
        jax.eval_shape(Undeclared().init, jax.random.key(0), jnp.zeros((2, 4)))


MIT = {f"backbone/block{i}": depth for i, depth in enumerate((1, 2, 1, 1), start=1)}
SWIN = {f"backbone/stages_{i}/blocks_{kind}": n for i, n in enumerate((1, 1, 2, 1)) for kind in ("regular", "shifted")}


@pytest.mark.parametrize(
    "model, counts",
    [
        ({"backbone": "mit_tiny", "head": "segformer"}, MIT),
        ({"backbone": "mit_tiny", "head": "segformer", "hrda": True}, MIT),
        ({"backbone": "swin_tiny", "head": "upernet"}, SWIN),
        ({"backbone": "resnet_tiny", "head": "fpn"}, {}),
    ],
)
def test_networks_declare_what_they_make(model, counts):
    model = build_segmenter(**model)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))["params"]
    found = {stack.path: 0 for stack in model.stacks}
    for keys, leaf in jax.tree_util.tree_leaves_with_path(shapes):
        stack = find_stack(model.stacks, [key.key for key in keys])
        if stack:
            assert found[stack.path] in (0, leaf.shape[0])
            found[stack.path] = leaf.shape[0]
    assert found == counts
