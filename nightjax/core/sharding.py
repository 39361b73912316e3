# SPDX-License-Identifier: Apache-2.0
"""One mesh: batches are split over its devices, and the state is replicated or, if a run asks for it, split too.

The same compiled program serves one CPU, eight GPUs and a pod. Norm statistics, loss means and gradients are global
because they are written over the whole batch; no axis name appears in a model.

With ``train.shard=params`` every device holds a part of each large array. A network needs its arrays whole, so
`core.modules.apply` and the loops over equal blocks ask for them by `whole`, and the compiler gathers each where it is
used. Gradients come back split, so the optimizer and the teacher's average work on parts alone.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nightjax.core.errors import UserError
from nightjax.core.state import ExampleBuffer, TrainState
from nightjax.core.types import PyTree

DATA = "data"

Shard = Literal["none", "params"]
"""``train.shard``: what is split over devices beside the batch: nothing, or parameters and whatever is as large."""

SMALLEST = 1 << 14
"""Arrays of fewer entries are replicated: to gather them would take longer than they are worth in memory."""


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


def split_axis(shape: tuple[int, ...], devices: int) -> int | None:
    """The longest axis that divides over the devices, the last one of several; None if none does."""
    axes = [axis for axis, size in enumerate(shape) if size and size % devices == 0]
    return max(axes, key=lambda axis: (shape[axis], axis), default=None)


def parameter_sharding(mesh: Mesh, shape: tuple[int, ...]) -> NamedSharding:
    """Sharding of an array that is split if it is large enough and divides over the devices."""
    axis = split_axis(shape, mesh.devices.size) if np.prod(shape) >= SMALLEST else None
    return replicated(mesh) if axis is None else batch_sharding(mesh, axis)


def state_sharding(mesh: Mesh, state: TrainState, shard: Shard = "none") -> TrainState:
    """Sharding of every leaf of a state.

    Examples of an `ExampleBuffer` are split on axis 1. Parameters, the optimizers' state, the teacher and frozen
    networks are replicated, or split with ``shard="params"``. All else is replicated.
    """

    def place(part: Any) -> Any:
        if not isinstance(part, ExampleBuffer):
            return replicated(mesh)
        return jax.tree.map(lambda x: batch_sharding(mesh, 1) if x.ndim > 1 else replicated(mesh), part)

    placed = jax.tree.map(place, state, is_leaf=lambda part: isinstance(part, ExampleBuffer))
    if shard == "none":
        return placed
    split = {
        name: jax.tree.map(lambda x: parameter_sharding(mesh, x.shape), getattr(state, name))
        for name in ("params", "opt_state", "teacher", "frozen")
    }
    return placed.replace(**split)


_gathering: Any = jax.make_user_context(None)


@dataclasses.dataclass(frozen=True)
class _Gathering:
    mesh: Mesh
    function: Callable[..., Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with _gathering(self.mesh):
            return self.function(*args, **kwargs)


def gathering(mesh: Mesh, function: Callable[..., Any], state: TrainState) -> Callable[..., Any]:
    """The function of a state, traced so that `whole` gathers if that state is split."""
    trees = (state.params, state.opt_state, state.teacher, state.frozen)
    is_split = any(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(trees))
    return _Gathering(mesh, function) if is_split else function


def gathers() -> bool:
    """Whether the program being traced is of a split state."""
    return _gathering.value is not None


def whole(tree: PyTree) -> PyTree:
    """Arrays as every device needs them to compute with; their gradients are split again.

    Outside of `gathering` this is the tree itself.
    """
    mesh = _gathering.value
    return tree if mesh is None else jax.tree.map(lambda x: _whole(mesh, x), tree)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _whole(mesh: Mesh, x: jax.Array) -> jax.Array:
    return jax.lax.with_sharding_constraint(x, replicated(mesh))


def _whole_forward(mesh: Mesh, x: jax.Array) -> tuple[jax.Array, None]:
    return _whole(mesh, x), None


def _whole_backward(mesh: Mesh, _: None, gradient: jax.Array) -> tuple[jax.Array]:
    axis = split_axis(gradient.shape, mesh.devices.size) if gradient.ndim > 1 else None
    return (gradient if axis is None else jax.lax.with_sharding_constraint(gradient, batch_sharding(mesh, axis)),)


_whole.defvjp(_whole_forward, _whole_backward)


def put_batch(batch: PyTree, mesh: Mesh) -> PyTree:
    """Host arrays holding this process's rows become global arrays split over the mesh."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def to_host(tree: PyTree) -> PyTree:
    """Fetches whole arrays as numpy, split or not; every process of a pod must ask."""

    def fetch(x: Any) -> Any:
        if not isinstance(x, jax.Array):
            return x
        if x.is_fully_replicated:
            return np.asarray(x.addressable_data(0))
        return np.asarray(x if x.is_fully_addressable else multihost_utils.process_allgather(x, tiled=True))

    return jax.tree.map(fetch, tree)


def local_rows(array: jax.Array) -> np.ndarray:
    """This process's rows of an array that is split on its batch axis, or the whole of a replicated one."""
    rows = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
    return np.concatenate([np.asarray(rows[start]) for start in sorted(rows)])


def wait_for_all(name: str) -> None:
    """Returns once every process has come here; at once if there is only one."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
