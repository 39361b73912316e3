import jax
import jax.numpy as jnp

from tests.helpers.places import ROOT


def step(x, kernel, matrix):
    y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    y = jax.lax.fori_loop(0, 3, lambda _, y: jnp.tanh(y @ matrix), y)
    return y.sum((1, 2))


def test_every_operation_of_a_program_has_a_kind_and_loops_have_none(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from profile_step import kinds

    shapes = ((2, 16, 16, 8), (3, 3, 8, 32), (32, 32))
    text = jax.jit(step).lower(*(jnp.ones(shape) for shape in shapes)).compile().as_text()
    by_name, sources = kinds(text)
    of = lambda word: {by_name[name] for name, source in sources.items() if source.endswith(word) and name in by_name}
    assert of("conv_general_dilated") == {"convolutions"}
    assert of("dot_general") == {"products"}
    assert of("reduce_sum") == {"sums"}
    assert of("tanh") == {"elementwise"}
    assert not any(name.startswith("while") for name in by_name)
