"""The training state: everything that changes the next step, and nothing else."""

from typing import Any

import jax
from flax import struct

PyTree = Any


class TrainState(struct.PyTreeNode):
    """State of one run, donated to every step and saved whole.

    Randomness is a function of (seed, step, stream), so no key is stored here; nor is any counter kept outside.

    Attributes:
        step: scalar int32, number of finished steps.
        params: network name to trained float32 parameters.
        batch_stats: network name to running statistics of its norms.
        opt_state: optimiser name to optax state.
        teacher: ``{"params", "batch_stats"}`` of the weight-averaged network, or empty.
        frozen: network name to variables that no step changes.
        bank: arrays ``[N, B, ...]`` of remembered examples, split over devices on axis 1, and vectors ``[N]``; or
            empty.
        memory: replicated arrays such as prototypes or confidence tables, or empty.
    """

    step: jax.Array
    params: dict[str, PyTree]
    batch_stats: dict[str, PyTree]
    opt_state: dict[str, PyTree]
    teacher: dict[str, PyTree] = struct.field(default_factory=dict)
    frozen: dict[str, PyTree] = struct.field(default_factory=dict)
    bank: PyTree = struct.field(default_factory=dict)
    memory: dict[str, PyTree] = struct.field(default_factory=dict)
