"""One mesh, two shardings: batches are split over devices, state is replicated.

The same compiled program serves one CPU, eight GPUs and a pod. Norm statistics, loss means and gradients are global
because they are written over the whole batch; no axis name appears in a model.
"""

from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nightjax.core.errors import UserError
from nightjax.core.state import ExampleBuffer, TrainState
from nightjax.core.types import PyTree

DATA = "data"


def make_mesh(
    devices: list[jax.Device] | None = None,  # pyright: ignore[reportInvalidTypeForm]
) -> Mesh:
    """Mesh with one axis, ``data``, over all devices of all processes (or over those given)."""
    return Mesh(np.asarray(devices if devices is not None else jax.devices()), (DATA,))


def check_batch_size(batch: int, accumulate: int, mesh: Mesh) -> None:
    """Raises UserError unless the global batch splits evenly over parts and devices."""
    n = mesh.devices.size
    if batch < 1 or accumulate < 1 or batch % (n * accumulate):
        raise UserError(
            f"train.batch={batch} does not divide into train.accumulate={accumulate} parts on {n} device(s); use a "
            f"multiple of {n * max(accumulate, 1)}, or fewer devices with train.devices"
        )


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of an array that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Sharding of an array whose ``axis`` is the batch."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, DATA))


def state_sharding(mesh: Mesh, state: TrainState) -> TrainState:
    """Sharding of every leaf of a state: examples of an `ExampleBuffer` are split on axis 1, all else is replicated."""

    def place(part: Any) -> Any:
        if not isinstance(part, ExampleBuffer):
            return replicated(mesh)
        return jax.tree.map(lambda x: batch_sharding(mesh, 1) if x.ndim > 1 else replicated(mesh), part)

    return jax.tree.map(place, state, is_leaf=lambda part: isinstance(part, ExampleBuffer))


def put_batch(batch: PyTree, mesh: Mesh) -> PyTree:
    """Host arrays holding this process's rows become global arrays split over the mesh."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def to_host(tree: PyTree) -> PyTree:
    """Fetches replicated arrays as numpy; works on every process of a pod."""
    return jax.tree.map(lambda x: np.asarray(x.addressable_data(0)) if isinstance(x, jax.Array) else x, tree)


def local_rows(array: jax.Array) -> np.ndarray:
    """This process's rows of an array that is split on its batch axis, or the whole of a replicated one."""
    rows = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
    return np.concatenate([np.asarray(rows[start]) for start in sorted(rows)])


def wait_for_all(name: str) -> None:
    """Returns once every process has come here; at once if there is only one."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
