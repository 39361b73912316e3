"""Learning rates that a config gives to the parameters of its student."""

import jax

from nightjax.core import sharding
from nightjax.methods import build
from nightjax.run import settings, start


def learning_rates(path):
    """Factor of the rate by path, of every parameter of the student."""
    config = settings.load(path)
    method, mesh = build(config), sharding.make_mesh(jax.devices()[:1])
    params = {"student": start.abstract_state(config, method, mesh).params["student"]}
    rates, _ = method.optimizer._factors(params, method.stacks)
    return {"/".join(key.key for key in keys[1:]): rate for keys, rate in jax.tree_util.tree_leaves_with_path(rates)}
