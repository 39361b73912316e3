"""Values of the T2S-DA specification, section 13."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.losses.pull import confidence_weights, info_nce, pull_loss, running_means, update_confidence

AXES = np.eye(3, dtype=np.float32)


@pytest.mark.parametrize("temperature, count, floor", [(0.5, 256, 1.738500), (0.5, 50, 0.650126), (0.2, 50, 0.002267)])
def test_floor_of_perfect_separation(temperature, count, floor):
    query, negatives = jnp.array([[0.0, 3.0]]), jnp.tile(jnp.array([0.0, -0.5]), (count, 1))
    np.testing.assert_allclose(info_nce(query, query[0], negatives, temperature), floor, rtol=2e-4)


def test_equal_similarities():
    query = jnp.ones((1, 3))
    np.testing.assert_allclose(info_nce(query, query[0], jnp.ones((50, 3)), 0.2), 3.931826, rtol=1e-6)


@pytest.mark.parametrize(
    "temperature, near, far", [(0.5, 0.253856, 1.059087), (0.2, 0.0134307, 1.327220), (0.1, 9.07978e-5, 2.127224)]
)
def test_two_queries(temperature, near, far):
    negatives = np.stack([AXES[1], AXES[2], -AXES[0]])
    queries = jnp.array([[1.0, 0, 0], [0.6, 0.8, 0]])
    loss = info_nce(queries, AXES[0], negatives, temperature)
    np.testing.assert_allclose(loss, [near, far], rtol=2e-5)
    if temperature == 0.2:
        np.testing.assert_allclose(loss.mean(), 0.670325, rtol=1e-5)


@pytest.fixture
def drawn():
    rng = np.random.default_rng(0)
    shapes = {"query": (3, 4, 5), "prototype": (3, 5), "negatives": (3, 6, 5)}
    return {name: jnp.asarray(rng.standard_normal(shape), jnp.float32) for name, shape in shapes.items()}


ALL, EQUAL = np.ones(3, bool), np.ones(3, np.float32)


def test_length_and_order_do_not_matter(drawn):
    expected = pull_loss(**drawn, present=ALL, weight=EQUAL)
    scaled = {name: x * factor for (name, x), factor in zip(drawn.items(), (3.0, 0.2, 7.0), strict=True)}
    np.testing.assert_allclose(pull_loss(**scaled, present=ALL, weight=EQUAL), expected, rtol=1e-5)
    turned = drawn | {"negatives": drawn["negatives"][:, ::-1]}
    np.testing.assert_allclose(pull_loss(**turned, present=ALL, weight=EQUAL), expected, rtol=1e-5)


def test_negatives_of_each_query(drawn):
    """Equal sets give the shared form's loss; another set of one query changes that query alone."""
    own = jnp.broadcast_to(drawn["negatives"][:, None], (3, 4, 6, 5))
    shared = info_nce(drawn["query"], drawn["prototype"], drawn["negatives"], 0.2)
    np.testing.assert_allclose(info_nce(drawn["query"], drawn["prototype"], own, 0.2), shared, rtol=1e-5)
    difference = jnp.abs(info_nce(drawn["query"], drawn["prototype"], own.at[1, 2].multiply(-1), 0.2) - shared)
    assert difference[1, 2] > 0.1 and (difference > 1e-4).sum() == 1


def test_classes_are_averaged_by_weight():
    """Losses 0.4 and 1.2 with weights 1 and 0.5 give 0.5; an absent class gives nothing."""
    cosines = [1 - temperature_free(x) for x in (0.4, 1.2)]
    queries = jnp.stack([jnp.array([[c, np.sqrt(1 - c * c), 0.0]]) for c in (*cosines, 0.0)])
    negatives = jnp.broadcast_to(AXES[2], (3, 1, 3))
    means = info_nce(queries, jnp.broadcast_to(AXES[0], (3, 3)), negatives, 1.0)[:, 0]
    np.testing.assert_allclose(means[:2], [0.4, 1.2], rtol=1e-5)
    present, weight = jnp.array([True, True, False]), jnp.array([1.0, 0.5, 9.0])
    loss = pull_loss(queries, jnp.broadcast_to(AXES[0], (3, 3)), negatives, present, weight, temperature=1.0)
    np.testing.assert_allclose(loss, 0.5, rtol=1e-5)


def temperature_free(loss):
    """1 - q.p for a query orthogonal to its one negative with this loss at temperature 1: ln(1 + e^-c) = loss."""
    return 1 + np.log(np.expm1(loss))


def test_gradient_goes_through_queries_alone(drawn):
    grads = jax.grad(lambda d: pull_loss(**d, present=ALL, weight=EQUAL))(drawn)
    assert float(jnp.abs(grads["query"]).min(axis=-1).max()) > 0
    assert float(jnp.abs(grads["prototype"]).max()) == 0 == float(jnp.abs(grads["negatives"]).max())


def test_a_step_on_the_queries_brings_them_nearer(drawn):
    def cosine(query):
        unit = lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True)
        return jnp.einsum("kmc,kc->km", unit(query), unit(drawn["prototype"]))

    grads = jax.grad(lambda d: pull_loss(**d, present=ALL, weight=EQUAL))(drawn)
    assert (cosine(drawn["query"] - 0.05 * grads["query"]) > cosine(drawn["query"])).all()


def test_no_class_at_all_is_0_with_a_finite_gradient(drawn):
    empty = {name: jnp.zeros_like(x) for name, x in drawn.items()}
    loss, grads = jax.value_and_grad(lambda d: pull_loss(**d, present=~ALL, weight=EQUAL))(empty)
    assert loss == 0 and all((x == 0).all() for x in jax.tree.leaves(grads))


@pytest.mark.parametrize("exponent, expected", [(0.5, (0.2, 0.4472136, 1)), (1.0, (0.04, 0.2, 1)), (0.0, (1, 1, 1))])
def test_confidence_weights(exponent, expected):
    np.testing.assert_allclose(confidence_weights(jnp.array([0.98, 0.90, 0.50]), exponent), expected, rtol=1e-4)


def test_confidence_weights_without_differences():
    for value in (0.0, 1.0):
        np.testing.assert_array_equal(confidence_weights(jnp.full(5, value)), np.ones(5))
    falling = confidence_weights(jnp.linspace(0, 1, 11))
    assert (jnp.diff(falling) < 0).all() and falling[0] == 1 and falling[-1] == 0


def test_classes_never_predicted():
    confidence = jnp.array([0.0, 0.9, 0.5])
    np.testing.assert_allclose(confidence_weights(confidence, 1.0), [1, 0.1, 0.5], rtol=1e-5)
    np.testing.assert_allclose(confidence_weights(confidence, 1.0, present_only=True), [1, 0.2, 1], rtol=1e-5)


def test_update_confidence():
    after = update_confidence(jnp.array([0.0, 0.3]), jnp.array([0.5, 0.9]), jnp.array([True, False]))
    np.testing.assert_allclose(after, [0.005, 0.3], rtol=1e-6)


def test_running_means_copy_at_first_sight_and_then_slow_down():
    means, seen = jnp.zeros((2, 1)), jnp.zeros((2,), jnp.int32)
    for value in (4.0, 2.0, 0.0):
        means, seen = running_means(means, seen, jnp.full((2, 1), value), jnp.array([True, value == 4]), 0.6)
    np.testing.assert_allclose(means[:, 0], [0.6 * 3.0, 4.0], rtol=1e-6)
    np.testing.assert_array_equal(seen, [3, 1])
