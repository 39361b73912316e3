"""What the compiled steps may not hold: anything that gathers the batch, or a second program."""

import re

import jax
import pytest
import toy

from nightjax import methods, run
from nightjax.core import sharding
from nightjax.train import compile_step

METHODS = ("supervised", "dacs", "dsr_fpa", "dannet", "adaptsegnet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy.write_folder(tmp_path_factory.mktemp("data"), references=True)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_no_step_gathers_the_batch(folder, name, accumulate):
    config = toy.config(folder, name, batch=8, train__devices=4, train__accumulate=accumulate)
    method, mesh = methods.build(config), sharding.make_mesh(jax.devices()[:4])
    state, batch = run.abstract_state(config, method, mesh), run.abstract_batch(config, method, mesh)
    text = compile_step(method, state, batch, mesh).as_text()
    assert "all-reduce" in text  # Gradients and statistics are global.
    found = re.findall(r"\b(all-gather|all-to-all|collective-permute)(?:-start)?\(", text)
    assert not found, f"{name}: {found}"


def test_another_shape_is_an_error_and_not_a_second_program(folder):
    config = toy.config(folder, "supervised")
    method, mesh = methods.build(config), sharding.make_mesh(jax.devices()[:1])
    step = compile_step(method, run.abstract_state(config, method, mesh), run.abstract_batch(config, method, mesh), mesh)
    state = run.first_state(config, method, mesh)
    batch = jax.tree.map(lambda x: jax.numpy.zeros((2, *x.shape[1:]), x.dtype), run.abstract_batch(config, method, mesh))
    with pytest.raises(TypeError, match="compiled with uint8"):
        step(state, batch)
