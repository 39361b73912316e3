"""The paste bank: order, length, what is pasted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.classes import CITYSCAPES
from nightjax.core.errors import UserError
from nightjax.ops import bank as banks


def batch(value, label):
    return jnp.full((1, 1, 4, 3), value, jnp.uint8), jnp.asarray(label, jnp.uint8).reshape(1, 1, 4)


def filled():
    """Pushes of value 1, 2, 3: riders further and further right, overlapping."""
    bank = banks.empty_bank(jnp.zeros((1, 1, 4, 3), jnp.uint8))
    for value, label in ((1, [12, 12, 0, 0]), (2, [0, 14, 14, 0]), (3, [16, 0, 18, 13])):
        bank = banks.push(bank, *batch(value, label))
    return bank


def test_length_and_order():
    bank = banks.empty_bank(jnp.zeros((1, 1, 4, 3), jnp.uint8))
    lengths = []
    for value in range(5):
        bank = jax.jit(banks.push)(bank, *batch(value, [0, 0, 0, 0]))
        lengths.append(int(bank.valid.sum()))
    assert lengths == [1, 2, 3, 3, 3]
    assert bank.image[:, 0, 0, 0, 0].tolist() == [2, 3, 4]


def test_tail_mask():
    label = jnp.array([[12, 13, 14, 0], [16, 17, 255, 18]])
    np.testing.assert_array_equal(banks.tail_mask(label, CITYSCAPES.group("rare")), [[1, 0, 1, 0], [0, 1, 0, 1]])


def test_newest_wins_and_weight_is_kept():
    image, label = jnp.zeros((1, 1, 4, 3)), jnp.full((1, 1, 4), 9, jnp.uint8)
    weight = jnp.full((1, 1, 4), 0.25)
    image, label, kept = banks.paste(filled(), image, label, weight)
    np.testing.assert_array_equal(image[0, 0, :, 0], [1, 2, 3, 0])
    np.testing.assert_array_equal(label[0, 0], [12, 14, 18, 9])
    np.testing.assert_array_equal(kept, weight)


def test_options():
    image, label = jnp.zeros((1, 1, 4, 3)), jnp.full((1, 1, 4), 9, jnp.uint8)
    weight = jnp.full((1, 1, 4), 0.25)
    _, _, one = banks.paste(filled(), image, label, weight, pasted_weight="one")
    np.testing.assert_array_equal(one[0, 0], [1, 1, 1, 0.25])
    out = banks.paste(filled(), image, label, weight, classes=(*CITYSCAPES.group("rare"), 16))
    np.testing.assert_array_equal(out[1][0, 0], [16, 14, 18, 9])
    with pytest.raises(UserError, match="weight rule 'two'"):
        banks.paste(filled(), image, label, weight, pasted_weight="two")


@pytest.mark.parametrize("rule", ["keep", "one"])
def test_pasted_pixels_have_the_weight_of_their_class(rule):
    bank, image = filled(), jnp.zeros((1, 1, 4, 3))
    label, weight = jnp.full((1, 1, 4), 9, jnp.uint8), jnp.full((1, 1, 4), 0.25)
    by_class = bank.label.astype(jnp.float32) / 2
    pasted = banks.paste(bank, image, label, weight, pasted_weight=rule, class_weight=by_class)
    np.testing.assert_array_equal(pasted[1][0, 0], [12, 14, 18, 9])
    np.testing.assert_array_equal(pasted[2][0, 0], [6, 7, 9, 0.25])


def test_disabled_or_empty_bank_changes_nothing():
    image, label = jnp.zeros((1, 1, 4, 3)), jnp.full((1, 1, 4), 12, jnp.uint8)
    weight = jnp.full((1, 1, 4), 0.25)
    paste = jax.jit(lambda bank, on: banks.paste(bank, image, label, weight, enabled=on))
    for bank, enabled in ((filled(), False), (banks.empty_bank(image), True)):
        for before, after in zip((image, label, weight), paste(bank, enabled), strict=True):
            np.testing.assert_array_equal(before, after)
