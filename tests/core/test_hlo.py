"""The text of compiled programs, of this machine's compiler and of one that is not here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from nightjax.core import hlo, sharding

MEGABYTE = 4 * 512 * 512


def compiled(function, *shapes):
    args = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return jax.jit(function).lower(*args).compile()


def test_without_loops_it_is_the_compilers_count():
    def network(x, w):
        return jax.nn.softmax(jnp.tanh(x @ w) @ w).sum(0)

    program = compiled(network, (64, 512), (512, 512))
    counted = hlo.Program(program.as_text()).moved()
    assert counted == pytest.approx(program.cost_analysis()["bytes accessed"], rel=0.05)


def test_a_loop_counts_every_turn_and_a_stack_its_slices():
    def layers(x, stack):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, stack)[0]

    eight = hlo.Program(compiled(layers, (4, 512), (8, 512, 512)).as_text()).moved()
    # Every matrix is read once as a slice and once by its product, and the slice is written.
    assert 8 * MEGABYTE <= eight <= 4 * 8 * MEGABYTE


@pytest.mark.parametrize("turns", [1, 3])
def test_collectives(turns):
    mesh = sharding.make_mesh(jax.devices()[:4])
    rows, whole = NamedSharding(mesh, PartitionSpec(sharding.DATA)), NamedSharding(mesh, PartitionSpec())

    def means(x):
        return jax.lax.fori_loop(0, turns, lambda _, mean: mean + (x * mean.sum()).mean(0), jnp.ones(16))

    program = jax.jit(means, in_shardings=rows, out_shardings=whole)
    text = program.lower(jax.ShapeDtypeStruct((8, 16), np.float32)).compile().as_text()
    assert hlo.Program(text).collectives() == {"all-reduce": (turns, turns * 16 * 4)}


def test_a_text_of_another_compiler():
    """Types with tiles, tuples with comments, operations that start and end."""
    text = """HloModule step

ENTRY %main (a: f32[8,128], b: bf16[4]) -> (f32[8,128], bf16[4]) {
  %a = f32[8,128]{1,0:T(8,128)S(1)} parameter(0)
  %b = bf16[4]{0:T(256)(128)(2,1)} parameter(1)
  %start = (f32[8,128]{1,0:T(8,128)}, /*index=1*/bf16[4]{0:T(256)(128)(2,1)}) all-reduce-start(%a, %b), to_apply=%add
  %done = (f32[8,128]{1,0:T(8,128)}, /*index=1*/bf16[4]{0:T(256)(128)(2,1)}) all-reduce-done(%start)
  ROOT %out = pred[8,128]{1,0:T(8,128)(4,1)} compare(%a, %a), direction=EQ
}
"""
    program = hlo.Program(text)
    assert program.collectives() == {"all-reduce": (1, 4 * 1024 + 8)}
    assert program.moved() == 2 * (4 * 1024 + 8) + (1024 + 2 * 4 * 1024)
