import jax
import numpy as np
import optax
import pytest

from nightjax.core.config import build
from nightjax.core.errors import UserError
from nightjax.core.optim import Group, Optimizer
from nightjax.core.stacks import Stack

PARAMS = jax.tree.map(
    np.float32,
    {"student": {"backbone": {"kernel": np.ones((2, 3)), "bias": np.ones(3)}, "head": {"kernel": np.ones((3, 1))}}},
)
GRADS = jax.tree.map(lambda x: 0.5 * np.ones_like(x), PARAMS)


def step(optimizer, params=PARAMS, grads=GRADS, steps=10, times=1, stacks=()):
    transform = optimizer.build(params, steps, stacks)
    state = transform.init(params)
    for _ in range(times):
        updates, state = transform.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params["student"]


def test_adamw_by_hand():
    # One step of Adam moves by the rate whatever the gradient; decay is decoupled and spares vectors.
    new = step(Optimizer(lr=0.1, weight_decay=0.2, eps=0.0))
    np.testing.assert_allclose(new["head"]["kernel"], 1 - 0.1 - 0.1 * 0.2, rtol=1e-6)
    np.testing.assert_allclose(new["backbone"]["bias"], 1 - 0.1, rtol=1e-6)


def test_vectors_decay_if_asked():
    new = step(Optimizer(lr=0.1, weight_decay=0.2, eps=0.0, decay_vectors=True))
    np.testing.assert_allclose(new["backbone"]["bias"], 1 - 0.1 - 0.02, rtol=1e-6)


def test_vectors_of_equal_blocks_are_vectors():
    names = ("blocks", "for_each", "even", "odd")
    params = {"student": {name: {"norm": {"scale": np.ones((4, 3), np.float32)}} for name in names}}
    grads = jax.tree.map(np.ones_like, params)
    new = step(Optimizer(lr=0.1, weight_decay=0.2, eps=0.0), params, grads, stacks=(Stack("blocks"),))
    np.testing.assert_allclose(new.pop("blocks")["norm"]["scale"], 1 - 0.1, rtol=1e-6)
    for name in new:  # No stack, whatever the name.
        np.testing.assert_allclose(new[name]["norm"]["scale"], 1 - 0.1 - 0.02, rtol=1e-6)


def test_sgd_with_momentum_follows_torch():
    # torch: d = g + wd * p; buffer = m * buffer + d; p -= lr * buffer.
    new = step(Optimizer("sgd", lr=0.1, schedule="constant", weight_decay=0.2, momentum=0.9), times=2)["head"]["kernel"]
    p, buffer = 1.0, 0.0
    for _ in range(2):
        buffer = 0.9 * buffer + 0.5 + 0.2 * p
        p -= 0.1 * buffer
    np.testing.assert_allclose(new, p, rtol=1e-6)


def test_adam_couples_the_decay():
    # The gradient of the decay is inside Adam, so a first step is still of the rate's size.
    new = step(Optimizer("adam", lr=0.1, weight_decay=0.2, eps=0.0))
    np.testing.assert_allclose(new["head"]["kernel"], 0.9, rtol=1e-6)


def test_groups_first_match_wins():
    groups = (Group("/bias$", lr=0.0), Group("^backbone/", lr=0.1, decay=0.0))
    new = step(Optimizer(lr=0.1, weight_decay=0.2, eps=0.0, groups=groups))
    np.testing.assert_array_equal(new["backbone"]["bias"], 1)
    np.testing.assert_allclose(new["backbone"]["kernel"], 1 - 0.01, rtol=1e-6)
    np.testing.assert_allclose(new["head"]["kernel"], 1 - 0.1 - 0.02, rtol=1e-6)


def test_schedule_reaches_the_update():
    optimizer = Optimizer(lr=0.1, weight_decay=0.0, eps=0.0, warmup=4)
    np.testing.assert_allclose(step(optimizer)["head"]["kernel"], 1 - 0.1 * 1e-6, rtol=1e-6)
    assert float(optimizer.schedule_fn(10)(7)) == pytest.approx(0.05)


def test_clipping():
    norm = float(optax.tree.norm(GRADS))
    new = step(Optimizer("sgd", lr=1.0, schedule="constant", weight_decay=0.0, momentum=0.0, clip_norm=norm / 2))
    np.testing.assert_allclose(new["head"]["kernel"], 1 - 0.25, rtol=1e-6)


@pytest.mark.parametrize(
    "section, words",
    [
        ({"name": "adamm"}, "did you mean 'adam'"),
        ({"schedule": "mmseg_polly"}, "did you mean 'mmseg_poly'"),
        ({"lr": -1.0}, "lr=-1.0 must not be below 0"),
        ({"groups": ({"pattern": "("},)}, "no regular expression"),
        ({"groups": ({"pattern": "^student/backbone/"},)}, "matches no parameter; paths look like 'backbone/"),
    ],
)
def test_mistakes(section, words):
    with pytest.raises(UserError, match=words):
        step(build(Optimizer, section, "optim"))


def test_schedule_ends_at_the_least_rate():
    rate = Optimizer(lr=0.01, schedule="mmseg_poly", power=0.9, min_lr=1e-4).schedule_fn(100)
    assert float(rate(0)) == pytest.approx(0.01)
    assert float(rate(50)) == pytest.approx(1e-4 + (0.01 - 1e-4) * 0.5**0.9)
    assert float(rate(100)) == pytest.approx(1e-4)
