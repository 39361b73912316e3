"""Learning rates that a config gives to the parameters of its student."""

import jax

from nightjax import run
from nightjax.core import config as configs
from nightjax.core import sharding
from nightjax.methods import build


def learning_rates(path):
    """Factor of the rate by path, of every parameter of the student."""
    config = configs.load(path)
    method, mesh = build(config), sharding.make_mesh(jax.devices()[:1])
    params = {"student": run.abstract_state(config, method, mesh).params["student"]}
    rates, _ = method.optimizer._factors(params)
    return {"/".join(key.key for key in keys[1:]): rate for keys, rate in jax.tree_util.tree_leaves_with_path(rates)}
