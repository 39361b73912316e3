import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core import config as configs
from nightjax.core.classes import CITYSCAPES
from nightjax.core.errors import UserError
from nightjax.methods.parts.pulling import Keys, Negatives, Pulling, QueueSize
from nightjax.models.projection import ProjectionHead

K, M, N, D = 19, 6, 8, 3
SOURCE, TARGET = 1.0, 2.0
PULL = Pulling(channels=D, queries=M, negatives=Negatives(N))


def key_map(cells, domain):
    """Keys that name their class, their place and their domain."""
    place = np.arange(cells.size).reshape(cells.shape)
    return jnp.asarray(np.stack([np.asarray(cells), place, np.full(cells.shape, domain)], -1), jnp.float32)


@pytest.fixture(scope="module")
def domains():
    """Key maps and labels of source and target; class 2 is in the target alone, class 5 in the source alone."""
    rng = np.random.default_rng(0)
    source, target = (rng.choice(classes, (2, 4, 5)).astype(np.uint8) for classes in ([0, 1, 5, 255], [0, 1, 2, 255]))
    return Keys(key_map(source, SOURCE), jnp.asarray(source)), Keys(key_map(target, TARGET), jnp.asarray(target))


def contrast(pulling, source, target, memory=None):
    return jax.jit(lambda memory: pulling.contrast(jax.random.key(0), memory, source, target))(
        memory or pulling.tables(len(CITYSCAPES))
    )


@pytest.mark.parametrize("per_query", [False, True])
def test_half_of_the_negatives_are_of_either_domain(domains, per_query):
    found = contrast(Pulling(channels=D, queries=M, negatives=Negatives(N, per_query=per_query)), *domains)
    assert found.negatives.shape == ((K, M, N, D) if per_query else (K, N, D))
    values = np.asarray(found.negatives).reshape(K, -1, N, D)
    for k in range(K):
        assert (values[k, :, : N // 2, 2] == SOURCE).all() and (values[k, :, N // 2 :, 2] == TARGET).all()
        assert not np.isin(values[k, ..., 0], [k, 255]).any()
    if per_query:
        assert len({tuple(row) for row in values[1, :, :, 1]}) > 1


def test_negatives_from_the_source_alone(domains):
    found = contrast(Pulling(channels=D, queries=M, negatives=Negatives(N, "source")), domains[0], None)
    assert found.negatives.shape == (K, N, D) and (found.negatives[..., 2] == SOURCE).all()


def test_prototypes_are_means_of_the_source(domains):
    found = contrast(PULL, *domains)
    keys, cells = (np.asarray(x) for x in domains[0][:2])
    for k in (0, 1, 5):
        np.testing.assert_allclose(found.prototype[k], keys[cells == k].mean(axis=0), rtol=1e-5)
    np.testing.assert_array_equal(found.usable, np.isin(np.arange(K), [0, 1, 5]))


def test_running_prototypes(domains):
    pulling = Pulling(channels=D, queries=M, negatives=Negatives(N), prototype_decay=0.9)
    (keys, cells, _), (_, label, _) = domains
    confidence = jnp.full(label.shape, 0.5)
    step = jax.jit(lambda memory, keys: pulling.remember(memory, Keys(keys, cells), label, confidence))
    memory = step(pulling.tables(len(CITYSCAPES)), keys)
    memory = step(memory, keys + 1)
    found = contrast(pulling, *domains, memory)
    mean = np.asarray(keys)[np.asarray(cells) == 1].mean(axis=0)
    np.testing.assert_allclose(found.prototype[1], mean + 0.5, rtol=1e-5)
    np.testing.assert_array_equal(memory["prototypes_seen"][:6], [2, 2, 0, 0, 0, 2])
    known = np.isin(np.arange(K), [0, 1, 2])
    np.testing.assert_allclose(memory["confidence"], np.where(known, 0.5 * (1 - 0.99**2), 0), rtol=1e-4)


def test_a_class_without_negatives_is_dropped():
    """All of the image is road: no source negative, loss 0 and a finite gradient."""
    cells = jnp.zeros((1, 3, 3), jnp.uint8)

    @jax.jit
    def run(keys):
        found = PULL.contrast(jax.random.key(0), PULL.tables(len(CITYSCAPES)), Keys(keys, cells), Keys(keys, cells + 1))
        return jax.value_and_grad(lambda x: PULL.loss(jax.random.key(1), Keys(x, cells), found))(keys)

    loss, grads = run(jnp.ones((1, 3, 3, D)))
    assert loss == 0 and (grads == 0).all()


def test_loss_of_separated_classes_is_the_floor():
    """Queries equal to their prototype, negatives opposite: ln(1 + N e^(-2/t)), the same for every class."""
    cells = jnp.asarray([[[0, 0, 1, 1, 255]]], jnp.uint8)
    keys = jnp.where((cells == 0)[..., None], 1.0, -1.0) * jnp.array([1.0, 0, 0])
    pulling = Pulling(channels=D, queries=M, negatives=Negatives(50))
    found = contrast(pulling, Keys(keys, cells), Keys(keys, cells))
    loss = pulling.loss(jax.random.key(1), Keys(keys, cells), found)
    np.testing.assert_allclose(loss, 0.002267, rtol=2e-4)


def test_queue_drops_its_oldest_batch():
    pulling = Pulling(channels=D, queries=M, queue=QueueSize(batches=2, cells=4))
    memory = pulling.tables(len(CITYSCAPES)) | pulling.empty_queue(1)
    push = jax.jit(lambda memory, key, keys, cells: pulling.push(memory, key, Keys(keys, cells)))
    assert (memory["key_queue"].label == 255).all()
    for k in (3, 4, 5):
        cells = jnp.full((1, 2, 5), k, jnp.uint8)
        memory = push(memory, jax.random.key(k), key_map(cells, TARGET), cells)
    queue = memory["key_queue"]
    np.testing.assert_array_equal(queue.label[:, 0], [[4] * 4, [5] * 4])
    np.testing.assert_array_equal(queue.key[:, 0, :, 0], [[4] * 4, [5] * 4])
    np.testing.assert_array_equal(memory["confidence"], pulling.tables(len(CITYSCAPES))["confidence"])


def test_nothing_is_queued_without_a_queue(domains):
    assert PULL.empty_queue(2) == {}
    memory = PULL.tables(len(CITYSCAPES))
    assert PULL.push(memory, jax.random.key(0), domains[1]) is memory


def test_queue_keeps_keys_that_have_been_through_the_last_layer():
    """The layer moves on with the teacher, so what was remembered must not be read through a later one."""
    pulling = Pulling(channels=D, queries=M, queue=QueueSize(batches=1, cells=30))
    cells = jnp.arange(10, dtype=jnp.uint8).reshape(1, 2, 5)
    keys = key_map(cells, TARGET)
    memory = pulling.push(pulling.empty_queue(1), jax.random.key(0), Keys(keys, cells, lambda x: 2 * x[..., ::-1] + 1))
    queue = memory["key_queue"]
    classes = np.asarray(queue.label).astype(np.float32)
    assert len(np.unique(classes)) > 5
    expected = np.stack([np.full(classes.shape, 2 * TARGET + 1), 2 * classes + 1, 2 * classes + 1], axis=-1)
    np.testing.assert_allclose(queue.key, expected)


def test_the_last_layer_after_the_draw_is_the_last_layer_before_it(domains):
    """Prototypes, negatives and loss: a linear layer commutes with a choice and with a mean."""
    head = ProjectionHead(D)
    variables = jax.jit(head.init)(jax.random.key(0), domains[0].hidden)
    variables = jax.tree.map(lambda x: x + 0.3, variables)  # Biases that are not 0.

    @jax.jit
    def both(variables):
        pairs = []
        last = lambda x: head.apply(variables, x, method="last")
        for change in (lambda keys: keys._replace(last=last), lambda keys: keys._replace(hidden=last(keys.hidden))):
            source, target = map(change, domains)
            found = PULL.contrast(jax.random.key(0), PULL.tables(len(CITYSCAPES)), source, target)
            pairs.append((found, PULL.loss(jax.random.key(1), source, found)))
        return pairs

    (found, loss), (expected, expected_loss) = both(variables)
    usable = np.asarray(expected.usable)
    np.testing.assert_array_equal(found.usable, usable)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-4)
    for ours, theirs in ((found.prototype, expected.prototype), (found.negatives, expected.negatives)):
        np.testing.assert_allclose(ours[usable], theirs[usable], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "setting, message",
    [
        ({"temperature": 0.0}, "method.pull.temperature=0.0 must be above 0"),
        ({"negatives": {"count": 51}}, "method.pull.negatives.count=51 must be even"),
        ({"queue": {"cells": 0}}, "method.pull.queue.cells=0 must be 1 or more"),
        ({"queries": 0}, "method.pull.queries=0 must be 1 or more"),
        ({"negatives": {"domains": "boths"}}, "did you mean 'both'"),
    ],
)
def test_wrong_settings(setting, message):
    with pytest.raises(UserError, match=message) as error:
        configs.build(Pulling, setting, "method.pull")
    assert "\n" not in str(error.value)
