"""Record order is a pure function of seed and position."""

import numpy as np
import pytest

from nightjax.core.errors import UserError
from nightjax.data.sampling import (
    RareClass,
    RareClassSampler,
    SampledRecord,
    fingerprint,
    rare_class_probabilities,
    rare_class_records,
    shuffled_records,
)


@pytest.fixture
def class_pixels():
    """Five records of three classes; class 2 is rare and only in records 1 and 4, class 1 never reaches 100 pixels."""
    return np.array([[900, 10, 0], [800, 5, 150], [950, 99, 90], [1000, 0, 0], [700, 0, 200]])


def test_uniform_shuffle_is_a_permutation_each_epoch():
    order = shuffled_records(7, seed=3)
    epochs = [[order[7 * e + i].index for i in range(7)] for e in range(4)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert (
        order[3] == shuffled_records(7, seed=3)[3] and isinstance(order[3], SampledRecord) and order[3].rare_class == -1
    )
    assert [order[i] for i in range(20)] != [shuffled_records(7, seed=4)[i] for i in range(20)]


def test_rare_draws_hold_enough_of_their_class(class_pixels):
    rule = RareClass(temperature=0.5, min_pixels=100)
    order = rare_class_records(class_pixels, rule, seed=0)
    draws = [order[i] for i in range(500)]
    assert {draw.rare_class for draw in draws} == {0, 2}
    assert all(class_pixels[draw.index, draw.rare_class] > 100 for draw in draws)
    assert {draw.index for draw in draws if draw.rare_class == 2} == {1, 4}


def test_draws_follow_the_probabilities(class_pixels):
    sampler = RareClassSampler(class_pixels, RareClass(temperature=1.0, min_pixels=0), seed=1)
    frequency = class_pixels.sum(0) / class_pixels.sum()
    expected = np.exp(1 - frequency) / np.exp(1 - frequency).sum()
    np.testing.assert_allclose(sampler.probabilities, expected)
    drawn = np.bincount([sampler(i).rare_class for i in range(3000)], minlength=3) / 3000
    np.testing.assert_allclose(drawn, expected, atol=0.03)


def test_draw_depends_on_seed_and_position_only(class_pixels):
    rule = RareClass(temperature=1.0, min_pixels=0)
    first, again, other = (RareClassSampler(class_pixels, rule, seed) for seed in (5, 5, 6))
    backwards = [again(i) for i in reversed(range(50))][::-1]
    assert [first(i) for i in range(50)] == backwards
    assert [first(i) for i in range(50)] != [other(i) for i in range(50)]
    assert first(2**40) == again(2**40)


def test_too_high_minimum_is_a_user_error(class_pixels):
    with pytest.raises(UserError, match="min_pixels=5000 .*the most is 1000"):
        RareClassSampler(class_pixels, RareClass(min_pixels=5000), seed=0)


def test_fingerprints_tell_orders_apart(class_pixels):
    rule = RareClass(temperature=0.5, min_pixels=100)
    orders = [shuffled_records(7, 0), shuffled_records(7, 1), rare_class_records(class_pixels, rule, 0)]
    orders.append(rare_class_records(class_pixels[:, ::-1], rule, 0))
    assert len({fingerprint(order, 7)["sha256"] for order in orders}) == 4
    assert fingerprint(shuffled_records(7, 0), 7) == fingerprint(orders[0], 7)


def test_the_order_of_released_runs_is_kept():
    """The fingerprint under the versions that the first runs were made with: whoever breaks it cannot continue them."""
    expected = "79d5cd358dbb6a0b6aecafdb26cdc4905db775885aaa58fd4c2851170730c593"
    assert fingerprint(shuffled_records(400, 3), 400)["sha256"] == expected


def test_rare_class_probabilities():
    probs = rare_class_probabilities(np.array([[50, 20, 0], [25, 0, 5]]), temperature=0.5)
    expected = np.exp((1 - np.array([0.75, 0.2, 0.05])) / 0.5)
    np.testing.assert_allclose(probs, expected / expected.sum())
    np.testing.assert_allclose(rare_class_probabilities(np.array([75, 20, 5]), 0.5), probs)


def test_rare_class_errors():
    with pytest.raises(UserError, match="no labeled pixel"):
        rare_class_probabilities(np.zeros((2, 3)), 0.01)
    with pytest.raises(UserError, match="temperature is 0"):
        rare_class_probabilities(np.ones((2, 3)), 0.0)


def test_grain_and_numpy_give_the_order_they_gave():
    """Where this fails, the installed versions refuse to continue runs made before."""
    expected = "79d5cd358dbb6a0b6aecafdb26cdc4905db775885aaa58fd4c2851170730c593"
    assert fingerprint(shuffled_records(400, 3), 400)["sha256"] == expected
