import itertools
import json
import math

import pytest

from nightjax.core.classes import CITYSCAPES
from nightjax.core.errors import UserError
from nightjax.metrics.hard_classes import PUBLISHED, from_evaluation, select_hard_classes

FIXTURE = (
    0.93,
    0.55,
    0.86,
    0.58,
    0.61,
    0.36,
    0.33,
    0.62,
    0.65,
    0.26,
    0.90,
    0.63,
    0.38,
    0.87,
    0.70,
    0.81,
    0.66,
    0.35,
    0.47,
)
DEEPLAB = (
    91.73,
    54.02,
    84.47,
    56.79,
    54.73,
    34.36,
    23.09,
    53.65,
    60.75,
    21.31,
    89.14,
    58.84,
    30.59,
    85.53,
    61.45,
    78.20,
    61.03,
    28.19,
    43.07,
)
SEGFORMER = (
    91.32,
    50.33,
    84.77,
    59.06,
    54.68,
    37.01,
    26.86,
    59.41,
    62.95,
    23.64,
    88.90,
    60.19,
    34.71,
    85.46,
    65.37,
    78.84,
    62.03,
    29.19,
    45.58,
)


def test_fixture_gives_the_published_sets():
    assert sum(FIXTURE) / 19 == pytest.approx(0.6063, abs=5e-5)
    for threshold, expected in PUBLISHED.items():
        assert select_hard_classes(FIXTURE, threshold) == expected


@pytest.mark.parametrize(("scores", "more"), [(DEEPLAB, {11}), (SEGFORMER, set())])
def test_sets_of_other_models(scores, more):
    iou = [score / 100 for score in scores]
    assert set(select_hard_classes(iou, 0.3)) == {6, 9, 17}
    assert select_hard_classes(iou, 0.4) == PUBLISHED[0.4]
    assert select_hard_classes(iou, 0.5) == PUBLISHED[0.5]
    assert set(select_hard_classes(iou, 0.6)) == {1, 3, 4, 5, 6, 7, 9, 12, 17, 18} | more


def test_a_higher_threshold_adds_classes():
    sets = [set(select_hard_classes(FIXTURE, step / 50)) for step in range(51)]
    assert all(low <= high for low, high in itertools.pairwise(sets)) and sets[-1] == set(range(19))


def test_equal_absent_and_unknown():
    assert select_hard_classes([0.5, 0.4], 0.5) == (1,)
    assert select_hard_classes([0.5, 0.4], 0.5, strict=False) == (0, 1)
    assert select_hard_classes([math.nan, None, 0.1], 0.5) == (2,)


def test_from_a_run(tmp_path):
    folder = tmp_path / "eval" / "val_night"
    folder.mkdir(parents=True)
    for step, scale in ((100, 1.0), (200, 100.0)):
        iou = dict(zip(CITYSCAPES.names, [scale * value for value in FIXTURE], strict=True))
        (folder / f"{step:07d}.json").write_text(json.dumps({"iou": iou | {"train": None}}))
    assert from_evaluation(tmp_path, "val_night", 0.5) == PUBLISHED[0.5]
    with pytest.raises(UserError, match="raise tau"):
        from_evaluation(tmp_path, "val_night", 0.1)
    with pytest.raises(UserError, match="no evaluation"):
        from_evaluation(tmp_path, "val_day", 0.5)
