# SPDX-License-Identifier: Apache-2.0
"""Whether a run fits in memory, as far as that can be seen before anything is compiled; `nightjax plan` says more."""

import math
import os

import jax
import ml_collections
from jax.sharding import Mesh

from nightjax.core.errors import UserError
from nightjax.core.method import Trainable
from nightjax.core.state import TrainState
from nightjax.run.start import batch_shapes, stream_specs


def check(config: ml_collections.ConfigDict, method: Trainable, state: TrainState, mesh: Mesh) -> None:
    """Raises UserError where a run's state or one of its batches is larger than all memory, before anything is made."""
    memory = _available(mesh)
    size = lambda tree: sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
    batch = size(batch_shapes(stream_specs(config, method), config.train.batch))
    for what, bytes_, remedy in (
        ("the state of this run", size(state), "choose a smaller model"),
        (f"a batch of {config.train.batch}", batch, "lower train.batch or data.streams.*.crop"),
    ):
        if memory and bytes_ > memory:
            raise UserError(f"{what} takes {bytes_ / 1e9:.3g} GB, and there are {memory / 1e9:.3g} GB: {remedy}")


def _available(mesh: Mesh) -> int:
    """Bytes of all memory: of the host, or of the devices if that is more; 0 where nobody can tell."""
    host = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    stats = [device.memory_stats() or {} for device in mesh.local_devices]
    return max(host, sum(one.get("bytes_limit", 0) for one in stats)) if host else 0
