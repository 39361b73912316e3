"""Compiled steps with a matcher on four devices gather no batch."""

import re

import jax
import pytest
from ml_collections import ConfigDict

from nightjax import methods, run
from nightjax.core import sharding
from nightjax.train import compile_step
from tests.helpers import toy

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy.write_folder(tmp_path_factory.mktemp("data"), references=True)


def aligning(folder):
    config = toy.config(folder, "dsr_fpa", batch=4, train__devices=4)
    with config.unlocked():
        config.method.aligner, config.method.matcher = "uawarpc", "uawarpc_tiny"
    return config


def matching(folder):
    config = toy.config(folder, "dacs", batch=4, train__devices=4).to_dict()
    config["method"], config["model"] = {"name": "uawarpc"}, {"variant": "uawarpc_tiny"}
    config["data"]["streams"].pop("source")
    return ConfigDict(config)


@pytest.mark.parametrize("build", [aligning, matching])
def test_no_step_gathers_the_batch(folder, build):
    config = build(folder)
    method, mesh = methods.build(config), sharding.make_mesh(jax.devices()[:4])
    state, batch = run.abstract_state(config, method, mesh), run.abstract_batch(config, method, mesh)
    text = compile_step(method, state, batch, mesh).as_text()
    assert "all-reduce" in text
    found = re.findall(r"\b(all-gather|all-to-all|collective-permute)(?:-start)?\(", text)
    assert not found, found
