# SPDX-License-Identifier: Apache-2.0
"""The training state: everything that changes the next step, and nothing else."""

import jax
from flax import struct

from nightjax.core.partition import BASE, joined
from nightjax.core.types import PyTree, Variables


class ExampleBuffer(struct.PyTreeNode):
    """Base of records of past examples, such as the rare-class bank.

    Arrays with two axes or more are ``[N, B, ...]``: N remembered batches of B examples. They are split over devices on
    axis 1, as the batch is on axis 0, so that no example ever changes its device. Vectors ``[N]`` are replicated.
    """


class TrainState(struct.PyTreeNode):
    """State of one run, donated to every step and saved whole.

    Randomness is a function of (seed, step, stream), so no key is stored here; nor is any counter kept outside.

    Attributes:
        step: scalar int32, number of finished steps.
        params: network name to trained float32 parameters.
        batch_stats: network name to running statistics of its norms.
        opt_state: optimizer name to optax state.
        teacher: ``{"params", "batch_stats"}`` of the weight-averaged network, or empty.
        frozen: network name to variables that no step changes; under ``base``, network name to the parameters that the
            optimizer leaves alone (`core.optim.Group.trained`), which student and teacher share and ``params`` lacks.
        memory: what parts of a method remember from step to step, by name: an `ExampleBuffer`, which is split over
            devices, or small arrays such as prototypes, which are replicated.
    """

    step: jax.Array
    params: dict[str, PyTree]
    batch_stats: dict[str, PyTree]
    opt_state: dict[str, PyTree]
    teacher: dict[str, PyTree] = struct.field(default_factory=dict)
    frozen: dict[str, PyTree] = struct.field(default_factory=dict)
    memory: dict[str, PyTree] = struct.field(default_factory=dict)

    def whole(self, variables: Variables, network: str = "student") -> Variables:
        """Variables of a network with the parameters that no step changes, where these are kept apart."""
        base = self.frozen.get(BASE, {}).get(network)
        return variables if base is None else variables | {"params": joined(variables["params"], base)}
