import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nightjax.models.norm import SECOND_PASS_LIMIT, BatchNorm, interleaved_norm_groups

SHAPE = (8, 6, 5, 7)


@pytest.fixture
def x():
    scale = jnp.arange(1.0, SHAPE[-1] + 1)
    return scale * (jax.random.normal(jax.random.key(0), SHAPE) + 0.5)


@pytest.fixture
def variables(x):
    variables = BatchNorm().init(jax.random.key(0), x, train=True)
    keys = jax.random.split(jax.random.key(1), 4)
    leaves, structure = jax.tree.flatten(variables)
    leaves = [0.5 + jax.random.uniform(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, leaves)


def definition(params, x, epsilon=1e-5):
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return (x - mean) / jnp.sqrt(var + epsilon) * params["scale"] + params["bias"]


def apply(variables, x, **options):
    return BatchNorm(**options).apply(variables, x, train=True, mutable=["batch_stats"])


def test_first_values_are_torchs(x):
    variables = BatchNorm().init(jax.random.key(0), x, train=True)
    assert jax.tree.map(lambda a: float(a.mean()), variables) == {
        "params": {"scale": 1.0, "bias": 0.0},
        "batch_stats": {"mean": 0.0, "var": 1.0},
    }


def test_output_and_gradients(x, variables):
    cotangent = jax.random.normal(jax.random.key(2), SHAPE)

    def loss(form, params, x):
        return jnp.sum(jax.nn.relu(form(params, x)) * cotangent)

    def ours(params, x):
        return apply({**variables, "params": params}, x)[0]

    params = variables["params"]
    np.testing.assert_allclose(ours(params, x), definition(params, x), atol=1e-5)
    actual = jax.grad(functools.partial(loss, ours), argnums=(0, 1))(params, x)
    wanted = jax.grad(functools.partial(loss, definition), argnums=(0, 1))(params, x)
    for got, want in zip(*map(jax.tree.leaves, (actual, wanted)), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5 * float(jnp.abs(want).max()))


@pytest.mark.parametrize("unbiased", [True, False])
def test_running_statistics(x, variables, unbiased):
    _, updated = apply(variables, x, bn_decay=0.7, unbiased_var=unbiased)
    old, new = variables["batch_stats"], updated["batch_stats"]
    variance = np.var(x, axis=(0, 1, 2), ddof=int(unbiased))
    np.testing.assert_allclose(new["mean"], 0.7 * old["mean"] + 0.3 * np.mean(x, (0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(new["var"], 0.7 * old["var"] + 0.3 * variance, rtol=1e-5)


def test_variance_survives_a_large_mean(x, variables):
    narrow = 30.0 + 0.01 * jax.random.normal(jax.random.key(3), (4, 64, 64, 7))
    near = {**variables, "batch_stats": {"mean": jnp.full(7, 29.9), "var": jnp.ones(7)}}
    _, updated = apply(near, narrow, bn_decay=0.0)
    exact = np.var(np.asarray(narrow, np.float64), axis=(0, 1, 2))
    np.testing.assert_allclose(updated["batch_stats"]["var"], exact, rtol=2e-3)


@pytest.mark.parametrize("size", [(5, 8, 8), (2, 30, 30), (1, 1, 2)])
def test_small_maps_far_from_their_running_mean(size):
    """As in a head that is trained from published weights: the variance is a millionth of the distance's square."""
    rng = np.random.default_rng(0)
    x = (5 + 0.005 * rng.standard_normal((*size, 3))).astype(np.float32)
    variables = BatchNorm().init(jax.random.key(0), x, train=True)
    y, updated = apply(variables, x, bn_decay=0.0, unbiased_var=False)
    exact = x.astype(np.float64)
    mean, var = exact.mean((0, 1, 2)), exact.var((0, 1, 2))
    np.testing.assert_allclose(updated["batch_stats"]["var"], var, rtol=1e-3)
    np.testing.assert_allclose(y, (exact - mean) / np.sqrt(var + 1e-5), atol=1e-3)


def test_evaluation_and_frozen_use_running_statistics(x, variables):
    stats, params = variables["batch_stats"], variables["params"]
    wanted = (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * params["scale"] + params["bias"]
    np.testing.assert_allclose(BatchNorm().apply(variables, x, train=False), wanted, rtol=1e-4, atol=1e-4)
    frozen, updated = apply(variables, x, frozen=True)
    np.testing.assert_allclose(frozen, wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(updated["batch_stats"]["mean"], stats["mean"])


def test_statistics_without_update(x, variables):
    y = BatchNorm().apply(variables, x, train=True)
    np.testing.assert_allclose(y, definition(variables["params"], x), atol=1e-5)


def test_groups_are_passes_one_after_the_other(x, variables):
    """Two groups in one pass: outputs, gradients and running statistics of two passes."""
    cotangent = jax.random.normal(jax.random.key(2), SHAPE)

    def apart(params, x):
        stats, out = variables["batch_stats"], []
        for g in range(2):
            y, new = apply({"params": params, "batch_stats": stats}, x[g::2])
            stats, out = new["batch_stats"], [*out, y]
        return jnp.stack(out, axis=1).reshape(SHAPE), stats

    def together(params, x):
        norm = BatchNorm()
        y, new = norm.apply({**variables, "params": params}, x, train=True, norm_groups=2, mutable=["batch_stats"])
        return y, new["batch_stats"]

    def by_context(params, x):
        with interleaved_norm_groups(2):
            y, new = apply({**variables, "params": params}, x)
        return y, new["batch_stats"]

    def with_gradients(form):
        def loss(params, x):
            y, stats = form(params, x)
            return jnp.sum(jnp.tanh(y) * cotangent), (y, stats)

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(variables["params"], x)

    got = with_gradients(together)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), got, with_gradients(apart))
    jax.tree.map(np.testing.assert_array_equal, got, with_gradients(by_context))


def test_bfloat16_keeps_float32_statistics(x, variables):
    half = x.astype(jnp.bfloat16)
    y, updated = apply(variables, half, dtype=jnp.bfloat16, bn_decay=0.0)
    assert y.dtype == jnp.bfloat16
    assert updated["batch_stats"]["var"].dtype == jnp.float32
    mean = np.asarray(half, np.float32).mean((0, 1, 2))
    np.testing.assert_allclose(updated["batch_stats"]["mean"], mean, rtol=1e-5)


def test_sharded_batch(x, variables):
    """Global statistics; one all-reduce forward, two with the gradient. Small maps take one more."""
    small, x = x, jnp.tile(x, (1, 4, 4, 1))
    assert small.size <= SECOND_PASS_LIMIT * SHAPE[-1] < x.size
    sharding = NamedSharding(Mesh(np.array(jax.devices()), "data"), PartitionSpec("data"))
    sharded = jax.device_put(x, sharding)
    forward = jax.jit(apply)
    for got, want in zip(*map(jax.tree.leaves, (forward(variables, sharded), forward(variables, x))), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)

    def loss(params, x):
        y, updated = apply({**variables, "params": params}, x)
        return jnp.sum(jnp.sin(y)), updated

    gradient = jax.jit(jax.grad(loss, argnums=1, has_aux=True))
    assert all_reduces(forward, variables, sharded) == 1
    assert all_reduces(gradient, variables["params"], sharded) == 2
    small = jax.device_put(small, sharding)
    assert all_reduces(forward, variables, small) == 2
    assert all_reduces(gradient, variables["params"], small) == 3


def all_reduces(function, *arguments):
    text = function.lower(*arguments).compile().as_text()
    assert "all-gather" not in text and "all-to-all" not in text
    return text.count(" all-reduce(")
