"""Class draws, object groups, masks and the mix."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.classes import CITYSCAPES
from nightjax.core.errors import UserError
from nightjax.ops import mixing
from nightjax.ops.pseudo_label import pixel_weight

LABEL = np.array(
    [
        [[0, 5, 6, 7], [13, 13, 255, 10]],
        [[12, 17, 18, 1], [1, 1, 1, 1]],
        [[2, 2, 2, 2], [2, 2, 2, 2]],
    ],
    np.uint8,
)


def class_set(*slots):
    return jnp.asarray(np.isin(np.arange(20), slots))[None]


def members(row):
    return set(np.flatnonzero(row).tolist())


def test_dynamic_small_classes_agree_with_the_label_table():
    assert CITYSCAPES.group("small", "dynamic") == (5, 6, 7, 11, 12, 13, 14, 15, 16, 17, 18)


def test_present_classes():
    present = mixing.present_classes(LABEL)
    assert [members(row) for row in present] == [{0, 5, 6, 7, 10, 13, 19}, {1, 12, 17, 18}, {2}]
    batch = mixing.present_classes(LABEL, scope="batch", include_ignore=False)
    assert [members(row) for row in batch] == 3 * [{0, 1, 2, 5, 6, 7, 10, 12, 13, 17, 18}]


def test_draw_takes_half_rounded_up_of_the_present_ones():
    present = mixing.present_classes(LABEL)
    draw = jax.jit(jax.vmap(mixing.draw_classes, (0, None)))(jax.random.split(jax.random.key(0), 400), present)
    assert not np.any(draw & ~present)
    np.testing.assert_array_equal(draw.sum(-1), np.tile([4, 2, 1], (400, 1)))
    np.testing.assert_allclose(draw[:, 0].mean(0)[np.asarray(present[0])], 4 / 7, atol=0.12)


@pytest.mark.parametrize("chosen", [s for n in (1, 2, 3) for s in itertools.combinations((5, 6, 7), n)])
def test_pole_light_and_sign_are_one_object(chosen):
    present = class_set(0, 5, 6, 7)
    assert members(mixing.add_object_groups(class_set(*chosen), present)[0]) == {5, 6, 7}


def test_object_groups_add_only_present_classes_and_not_in_reverse():
    assert members(mixing.add_object_groups(class_set(6), class_set(6, 7))[0]) == {6}
    assert members(mixing.add_object_groups(class_set(12), class_set(12, 17, 18))[0]) == {12, 17, 18}
    assert members(mixing.add_object_groups(class_set(12), class_set(11, 12, 18))[0]) == {12, 18}
    assert members(mixing.add_object_groups(class_set(17, 18), class_set(12, 17, 18))[0]) == {17, 18}


@pytest.mark.parametrize("mode", mixing.MASK_MODES)
def test_select_classes(mode):
    present = mixing.present_classes(LABEL)
    for seed in range(8):
        selected = mixing.select_classes(jax.random.key(seed), LABEL, mode=mode)
        if mode == "dacs":
            np.testing.assert_array_equal(selected.sum(1), 6)  # half of the 12 values of the batch, for each image
            continue
        assert not np.any(selected & ~present), "an image draws from its own labels only"
        if mode == "classmix":
            np.testing.assert_array_equal(selected.sum(1), [4, 2, 1])
        if mode == "dynsmall":
            assert {5, 6, 7, 13} <= members(selected[0]) and {12, 17, 18} <= members(selected[1])
        if mode == "object_groups":
            assert len(members(selected[0]) & {5, 6, 7}) in (0, 3)
            assert 12 not in members(selected[1]) or {17, 18} <= members(selected[1])


def test_select_classes_without_ignore_and_unknown_mode():
    draws = [mixing.select_classes(jax.random.key(s), LABEL, include_ignore=False) for s in range(10)]
    assert not np.any([draw[:, 19] for draw in draws])
    with pytest.raises(UserError, match="mask mode 'cutmix'"):
        mixing.select_classes(jax.random.key(0), LABEL, mode="cutmix")


def test_class_mask_looks_up_each_image_in_its_own_set():
    selected = jnp.concatenate([class_set(5, 19), class_set(1), class_set(5)])
    mask = mixing.class_mask(LABEL, selected)
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask[0], [[0, 1, 0, 0], [0, 0, 1, 0]])
    np.testing.assert_array_equal(mask[1], LABEL[1] == 1)
    np.testing.assert_array_equal(mask[2], False)


@pytest.mark.parametrize("full", [True, False])
def test_mix_of_full_and_empty_masks(full):
    mask = jnp.full((1, 2, 2), full)
    source, target = jnp.ones((1, 2, 2, 3)), jnp.zeros((1, 2, 2, 3))
    np.testing.assert_array_equal(mixing.mix(mask, source, target), source if full else target)
    np.testing.assert_array_equal(mixing.mix(mask, source[..., 0], target[..., 0]), float(full))


def test_weight_of_ignored_rows_is_zero_except_on_source_pixels():
    mask = jnp.zeros((1, 4, 2), bool).at[0, 0, 0].set(True)
    weight = mixing.mix(mask, jnp.ones(mask.shape), pixel_weight(jnp.array([0.5]), (4, 2), 1, 2))
    np.testing.assert_array_equal(weight[0], [[1, 0], [0.5, 0.5], [0, 0], [0, 0]])


@pytest.mark.parametrize("count", [1, 5, 31, 32, 33, 150, 254])
def test_any_number_of_classes(count):
    """One word of bits, or several: compared with sets."""
    rng = np.random.default_rng(count)
    label = rng.choice([*range(0, count, 1 + count // 9), count - 1, 255], (3, 8, 8)).astype(np.uint8)
    present = mixing.present_classes(jnp.asarray(label), num_classes=count)
    wanted = [{int(min(value, count)) for value in row.ravel()} for row in label]
    assert present.shape == (3, count + 1) and [members(row) for row in present] == wanted
    selected = mixing.draw_classes(jax.random.key(count), present)
    slots = np.minimum(label, count)
    inside = np.stack([np.isin(row, np.flatnonzero(chosen)) for row, chosen in zip(slots, selected, strict=True)])
    np.testing.assert_array_equal(mixing.class_mask(jnp.asarray(label), selected), inside)
