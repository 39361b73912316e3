# SPDX-License-Identifier: Apache-2.0
"""The part of a network that a run does not train: left out of its checkpoints, named with its hash, and checked.

A run whose optimizer leaves parameters alone (`core.optim.Group.trained`) and that starts from another run
(``train.init``) keeps in its checkpoints what it trains. The rest is in the other run for good; ``base.json`` says
which one that was and what its parameters hash to.
"""

import hashlib
import json

import jax
import ml_collections
import numpy as np
from etils import epath
from flax import traverse_util

from nightjax.core.errors import UserError
from nightjax.core.files import read_json, write_whole
from nightjax.core.partition import BASE
from nightjax.core.sharding import to_host
from nightjax.core.state import TrainState
from nightjax.core.types import PyTree
from nightjax.run import settings

FILE = "base.json"
"""File of a run folder whose checkpoints lack the base."""


def is_apart(config: ml_collections.ConfigDict, state: TrainState) -> bool:
    """Whether checkpoints of this run lack the base; a base from scratch has no other home."""
    return BASE in state.frozen and bool(config.train.init)


def may_be_apart(workdir: epath.Path) -> bool:
    """Whether the config in a run folder lets `is_apart` be true. A checkpoint without a run holds all it has."""
    if not (workdir / settings.CONFIG).exists():
        return False
    config = settings.saved(workdir)
    groups = (config.get("optim") or {}).get("groups")
    groups = groups if isinstance(groups, tuple) else ()
    leaves_out = any(isinstance(group, dict) and not group.get("trained", True) for group in groups)
    return leaves_out and bool((config.get("train") or {}).get("init"))


def without(state: TrainState) -> TrainState:
    """The state without the base."""
    return state.replace(frozen={name: tree for name, tree in state.frozen.items() if name != BASE})


def fingerprint(base: PyTree) -> str:
    """SHA-256 of names, shapes, types and bytes of all parameters, as hexadecimal digits."""
    found = hashlib.sha256()
    for path, value in sorted(traverse_util.flatten_dict(base, sep="/").items()):
        array = np.asarray(to_host(value))
        found.update(f"{path} {array.shape} {array.dtype} ".encode())
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def record(workdir: epath.Path, config: ml_collections.ConfigDict, state: TrainState) -> None:
    """Writes where the base of a run that begins is from, and what it hashes to; every process must call it."""
    notes = {"init": config.train.init, "sha256": fingerprint(state.frozen[BASE])}
    if jax.process_index() == 0:
        write_whole(workdir / FILE, json.dumps(notes, indent=2))


def check(workdir: epath.Path, base: PyTree) -> None:
    """Raises UserError unless this is the base that the run began with."""
    try:
        notes = read_json(workdir / FILE, dict, "restore it")
        init, expected = str(notes["init"]), str(notes["sha256"])
    except (UserError, KeyError) as error:
        raise UserError(f"{workdir / FILE} is missing or damaged; restore it: the checkpoints lack the base") from error
    if (found := fingerprint(base)) != expected:
        raise UserError(
            f"{workdir} was trained on a base of sha256 {expected[:12]}.., and train.init={init} now has "
            f"{found[:12]}..: restore the weights that were there"
        )
