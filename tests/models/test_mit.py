"""MiT: sizes, equal forms, drop path, precision."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.models.backbones.mit import VARIANTS, MiT

TWO_STAGES = {
    "dims": (4, 8),
    "depths": (1, 2),
    "heads": (1, 2),
    "mlp_ratios": (2, 2),
    "sr_ratios": (2, 1),
}


@pytest.fixture(scope="module")
def two_stages():
    """Random variables of a small network, and an image whose sides no stride divides."""
    x = jax.random.normal(jax.random.key(1), (2, 20, 28, 3))
    shapes = jax.eval_shape(MiT(**TWO_STAGES).init, jax.random.key(0), x)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape), s.dtype), shapes), x


def assert_trees_close(actual, expected, rtol=1e-5):
    def compare(a, b):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * float(jnp.abs(b).max()) + 1e-7)

    jax.tree.map(compare, actual, expected)


def test_feature_sizes_are_rounded_up():
    model, x = MiT(**VARIANTS["mit_tiny"]), jnp.zeros((2, 44, 52, 3))
    features, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), x)
    sizes = [features[f"stage{i}"].shape for i in range(1, 5)]
    assert sizes == [(2, 11, 13, 8), (2, 6, 7, 8), (2, 3, 4, 16), (2, 2, 2, 24)]


@pytest.mark.parametrize("name, millions", [("mit_b0", 3.3), ("mit_b1", 13.1), ("mit_b5", 81.4)])
def test_parameter_count(name, millions):
    model, x = MiT(**VARIANTS[name]), jnp.zeros((1, 64, 64, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    count = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(variables))
    assert count / 1e6 == pytest.approx(millions, abs=0.06)


def test_more_blocks_are_no_more_arrays():
    """What optimizer and teacher compile grows with arrays, not with their size."""
    x = jnp.zeros((1, 64, 64, 3))
    arrays = [
        len(jax.tree.leaves(jax.eval_shape(MiT(**VARIANTS[name]).init, jax.random.key(0), x)))
        for name in ("mit_b1", "mit_b5")
    ]
    assert arrays[0] == arrays[1]


@pytest.mark.parametrize(
    "form",
    [
        {"remat": True},
        pytest.param({"scan": False, "remat": True}, marks=pytest.mark.slow),
        pytest.param({"remat": True, "stored": "products"}, marks=pytest.mark.slow),
    ],
)
def test_forms_agree_in_value_gradient_and_drop_path(two_stages, form):
    variables, x = two_stages

    @functools.partial(jax.jit, static_argnums=0)
    @functools.partial(jax.value_and_grad, argnums=1)
    def loss(model, variables):
        rngs = {"dropout": jax.random.key(2)}
        features = model.apply(variables, x, train=True, rngs=rngs)
        return sum(jnp.sum(jnp.sin(feature)) for feature in features.values())

    default, other = (MiT(**TWO_STAGES, drop_path=0.5, **kwargs) for kwargs in ({}, form))
    assert_trees_close(loss(other, variables), loss(default, variables), 1e-4)


def test_parameters_do_not_depend_on_the_form(two_stages):
    _, x = two_stages
    plain, scanned = (MiT(**TWO_STAGES, scan=scan) for scan in (False, True))
    key = jax.random.key(0)
    assert jax.eval_shape(plain.init, key, x) == jax.eval_shape(scanned.init, key, x)


def test_drop_path_scales():
    model = MiT(**TWO_STAGES, drop_path=0.5)
    scales = model.apply({}, 2000, method="drop_path_scales", rngs={"dropout": jax.random.key(0)})
    rates = np.linspace(0, 0.5, sum(TWO_STAGES["depths"]))
    assert scales.shape == (len(rates), 2, 2000)
    np.testing.assert_allclose(np.mean(scales == 0, axis=(1, 2)), rates, atol=0.03)
    np.testing.assert_allclose(scales.max(axis=(1, 2)), 1 / (1 - rates), rtol=1e-6)
    np.testing.assert_allclose(scales.mean(axis=(1, 2)), 1, atol=0.05)


def test_dropped_branches_leave_the_input(two_stages):
    """With both branches of every block scaled by 0 a stage is its patch embedding and norm."""
    variables, x = two_stages
    no_blocks = MiT(**(TWO_STAGES | {"depths": (0, 0)}))
    expected = jax.jit(no_blocks.apply)(variables, x)

    class Dropped(MiT):
        def drop_path_scales(self, batch):
            return jnp.zeros((sum(self.depths), 2, batch))

    actual = jax.jit(functools.partial(Dropped(**TWO_STAGES).apply, train=True))(variables, x)
    assert_trees_close(actual, expected)


def test_deterministic_needs_no_random_stream(two_stages):
    variables, x = two_stages
    model = MiT(**TWO_STAGES)
    still = jax.jit(functools.partial(model.apply, train=True, deterministic=True))(variables, x)
    assert_trees_close(still, jax.jit(model.apply)(variables, x))


def test_bfloat16_keeps_parameters_and_stays_near(two_stages):
    variables, x = two_stages
    half = jax.jit(MiT(**TWO_STAGES, dtype=jnp.bfloat16).apply)(variables, x)
    full = jax.jit(MiT(**TWO_STAGES).apply)(variables, x)
    for name in full:
        assert half[name].dtype == jnp.bfloat16
        np.testing.assert_allclose(half[name].astype(jnp.float32), full[name], atol=0.15)
