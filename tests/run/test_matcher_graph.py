"""Compiled steps with a matcher on four devices gather no batch."""

import re

import jax
import pytest

from nightjax import methods
from nightjax.core import sharding
from nightjax.run import start
from nightjax.train import compile_step
from tests.helpers import toy

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy.write_folder(tmp_path_factory.mktemp("data"), references=True)


def aligning(folder):
    refinement = {"method__refinement__aligner": "uawarpc", "method__refinement__matcher": "uawarpc_tiny"}
    return toy.config(folder, "dsr_fpa", batch=4, train__devices=4, **refinement)


def matching(folder):
    return toy.config(folder, "uawarpc", batch=4, train__devices=4)


@pytest.mark.parametrize("build", [aligning, matching])
def test_no_step_gathers_the_batch(folder, build):
    config = build(folder)
    method, mesh = methods.build(config), sharding.make_mesh(jax.devices()[:4])
    state, batch = start.abstract_state(config, method, mesh), start.abstract_batch(config, method, mesh)
    text = compile_step(method, state, batch, mesh).as_text()
    assert "all-reduce" in text
    found = re.findall(r"\b(all-gather|all-to-all|collective-permute)(?:-start)?\(", text)
    assert not found, found
