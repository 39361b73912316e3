import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core import sharding
from nightjax.core.errors import UserError
from nightjax.core.rng import stream_key
from nightjax.core.state import ExampleBuffer, TrainState


def test_batches_split_and_come_back():
    mesh = sharding.make_mesh(jax.devices()[:4])
    rows = np.arange(8 * 3).reshape(8, 3)
    array = sharding.put_batch({"x": rows}, mesh)["x"]
    assert len(array.sharding.device_set) == 4
    np.testing.assert_array_equal(sharding.local_rows(array), rows)
    one = jax.device_put(jnp.arange(5), sharding.replicated(mesh))
    np.testing.assert_array_equal(sharding.local_rows(one), np.arange(5))


def test_batch_size():
    mesh = sharding.make_mesh(jax.devices()[:4])
    sharding.check_batch_size(8, 2, mesh)
    for batch, parts in ((6, 1), (4, 2), (0, 1)):
        with pytest.raises(UserError, match="multiple of"):
            sharding.check_batch_size(batch, parts, mesh)


class Buffer(ExampleBuffer):
    image: jax.Array
    valid: jax.Array


def test_only_examples_are_split():
    """By what a part of the state is, whatever its name."""
    mesh = sharding.make_mesh(jax.devices()[:4])
    memory = {"past": Buffer(jnp.zeros((3, 8, 2)), jnp.zeros(3)), "bank": jnp.zeros((4, 8))}
    state = TrainState(jnp.zeros(()), {"w": jnp.zeros((4, 4))}, {}, {}, memory=memory)
    placed = sharding.state_sharding(mesh, state)
    assert placed.memory["past"].image.spec == jax.sharding.PartitionSpec(None, "data")
    whole = (placed.memory["past"].valid, placed.memory["bank"], placed.params["w"], placed.step)
    assert {sharding.spec for sharding in whole} == {jax.sharding.PartitionSpec()}


def test_streams_are_functions_of_seed_step_and_name():
    bits = lambda *args: jax.random.key_data(stream_key(*args)).tolist()
    assert bits(0, 1, "mix") == bits(0, jnp.int32(1), "mix")
    assert len({tuple(bits(*a)) for a in ((0, 1, "mix"), (1, 1, "mix"), (0, 2, "mix"), (0, 1, "jitter"))}) == 4
