# SPDX-License-Identifier: Apache-2.0
"""Whether a config continues a run: what may differ between a run's start and its continuation, and what may not."""

from collections.abc import Mapping
from typing import Any

import ml_collections

from nightjax.core.config import from_json, to_json
from nightjax.core.errors import UserError

CHANGEABLE = (
    "log.",
    "checkpoint.",
    "eval.",
    "data.dir",
    "data.manual_dir",
    "data.workers",
    "data.threads",
    "train.devices",
    "train.shard",
)
"""Keys that may differ between the start of a run and its continuation."""

EXTENDABLE = (
    "train.steps",
    "optim.lr",
    "optim.schedule",
    "optim.min_lr",
    "optim.warmup",
    "optim.power",
    "optim.cosine_steps",
    "optim.step_every",
    "optim.step_factor",
    "optim.milestones",
    "optim.weight_decay",
)
"""Keys that may differ too where a run is extended on purpose: none of them changes what its state holds."""


def check_same_run(
    saved: ml_collections.ConfigDict, config: ml_collections.ConfigDict, workdir: Any, extend: bool = False
) -> list[str]:
    """Refuses a config that would not continue the run of a workdir.

    Args:
        saved: the config that the run began with.
        config: to continue it with.
        workdir: of the run.
        extend: whether what is in `EXTENDABLE` may differ.

    Returns:
        The changes of what is extended, ``"train.steps: 2, now 6"``.

    Raises:
        UserError: something else differs.
    """
    before, now = _flat(saved.to_dict()), _flat(from_json(to_json(config)).to_dict())
    changes = []
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) == now.get(key) or key.startswith(CHANGEABLE):
            continue
        if extend and key in EXTENDABLE:
            changes.append(f"{key}: {before.get(key)!r}, now {now.get(key)!r}")
            continue
        way = "--extend continues it; " if key in EXTENDABLE else ""
        raise UserError(
            f"{workdir} holds a run with {key}={before.get(key)!r}, not {now.get(key)!r}; {way}to start from its "
            f"weights alone, name another --workdir and --config.train.init={workdir}"
        )
    return changes


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat
