"""Class sets."""

import numpy as np
import pytest

from nightjax.core.classes import CAMVID, CITYSCAPES, ClassSet, LabelCodes, companions_for, palette_for
from nightjax.core.errors import UserError


def test_groups():
    assert CITYSCAPES.outside("dynamic") == tuple(range(11))
    assert list(CITYSCAPES.scored_groups) == ["static", "small", "dynamic"]
    assert CITYSCAPES.group("nothing") == ()
    for classes in (CITYSCAPES, CAMVID):
        assert classes.group("static", "small", "dynamic") == tuple(range(len(classes)))


@pytest.mark.parametrize(
    ("names", "palette", "message"),
    [
        ((), (), "0 classes"),
        (("a", "a"), ((1, 2, 3), (4, 5, 6)), "two classes 'a'"),
        (("a", "b"), ((1, 2, 3),), "2 names and 1 entries in palette"),
    ],
)
def test_a_wrong_set_is_refused(names, palette, message):
    with pytest.raises(UserError, match=message):
        ClassSet(names, palette)


def test_colors_of_unknown_names_are_free_and_stay():
    names = ("road", "pothole", "Traffic_Light", "crack")
    palette = palette_for(names, {"crack": (9, 9, 9)})
    assert palette[0] == CITYSCAPES.palette[0] and palette[2] == CITYSCAPES.palette[6] and palette[3] == (9, 9, 9)
    assert len(set(palette)) == 4 and palette == palette_for(names, {"crack": (9, 9, 9)})


def test_companions_follow_names():
    assert companions_for(CITYSCAPES.names) == CITYSCAPES.companions
    assert companions_for(("bicycle", "rider", "deer")) == (((1,), (0,)),)


def test_label_codes_of_tables():
    codes = LabelCodes.of_table(CITYSCAPES.from_ids, voids=(0, 255))
    assert np.array_equal(codes.table(), CITYSCAPES.from_ids)
    counts = np.zeros(256, int)
    counts[[0, 7, 14, 255]] = 1
    assert codes.unnamed(counts) == (14,)
    assert LabelCodes.of_train_ids(3).table()[:4].tolist() == [0, 1, 2, 255]
    swap = np.arange(256, dtype=np.uint8)
    swap[[0, 1]] = 1, 0
    assert LabelCodes.of_train_ids(2).renumbered(swap).values == {0: 1, 1: 0, 255: 255}
