"""Rankings of a pool by its distance to a reference set."""

import numpy as np
import pytest

from nightjax.core.errors import UserError
from nightjax.metrics import fid
from nightjax.selection import coverage as selection


@pytest.fixture(scope="module")
def planted():
    """Names, features, reference: the first half of the pool is of the reference's kind."""
    rng = np.random.default_rng(0)
    near, far = rng.normal(size=(100, 10)), rng.normal(size=(100, 10)) * 1.5 + 2
    return [f"picture_{i:03d}" for i in range(200)], np.concatenate([near, far]), rng.normal(size=(150, 10))


@pytest.mark.parametrize("rule", selection.RULES)
def test_planted_half_is_found(rule, planted):
    names, features, reference = planted
    chosen = [name for name, _ in selection.select(rule, names, features, reference, 80)]
    assert len(set(chosen)) == len(chosen) >= 80
    assert np.mean([name < "picture_100" for name in chosen]) > 0.9


@pytest.mark.parametrize("rule", selection.RULES)
def test_selection_beats_chance(rule, planted):
    names, features, reference = planted
    whole = fid.Statistics.of(reference)
    distance = lambda index: fid.frechet_distance(fid.Statistics.of(features[index]), whole)
    chosen = [names.index(name) for name, _ in selection.select(rule, names, features, reference, 80)]
    chance = [np.random.default_rng(seed).choice(200, len(chosen), replace=False) for seed in range(10)]
    assert distance(chosen) < np.mean([distance(index) for index in chance])


@pytest.mark.parametrize("rule", selection.RULES)
def test_order_of_input_changes_nothing(rule, planted):
    names, features, reference = planted
    order = np.random.default_rng(1).permutation(len(names))
    shuffled = selection.select(rule, [names[i] for i in order], features[order], reference, 60)
    expected = selection.select(rule, names, features, reference, 60)
    assert [name for name, _ in shuffled] == [name for name, _ in expected]


def test_point_order_is_that_of_the_whole_formula(planted):
    names, features, reference = planted
    whole = fid.Statistics.of(reference)
    nothing = np.zeros((10, 10))
    full = [fid.frechet(row, nothing, whole.mean, whole.covariance) for row in features]
    scores = selection.point_scores(features, reference)
    np.testing.assert_allclose(full, scores + np.trace(whole.covariance), rtol=1e-9)
    chosen = selection.select("fid_point", names, features, reference, 200)
    assert [name for name, _ in chosen] == [names[i] for i in np.argsort(full)]


def test_whole_groups_until_there_are_enough():
    names, groups = list("abcdef"), np.array([0, 1, 0, 2, 1, 2])
    chosen = selection.take_groups(names, groups, {0: 3.0, 1: 1.0, 2: 2.0}, 3)
    assert chosen == [("b", 1.0), ("e", 1.0), ("d", 2.0), ("f", 2.0)]


def test_drives_of_nexet_names():
    names = ["train/frame_0a1b-22_c3_00001-1280_720", "frame_0a1b-22_ff_00002-1280_720", "frame_77_c3_1-1280_720"]
    assert selection.drives(names).tolist() == [0, 0, 1]
    assert selection.drives([*names, "street"]) is None


def test_drives_stay_together():
    rng = np.random.default_rng(0)
    names = [f"frame_{drive}_c_{i}-1280_720" for drive in range(4) for i in range(10)]
    features = np.concatenate([rng.normal(size=(10, 6)) + 3 * drive for drive in (2, 0, 1, 3)])
    chosen = selection.select("fid_group", names, features, rng.normal(size=(50, 6)), 15)
    assert [name.split("_")[1] for name, _ in chosen] == ["1"] * 10 + ["2"] * 10


def test_wrong_arguments(planted):
    names, features, reference = planted
    with pytest.raises(UserError, match="did you mean 'fid_point'"):
        selection.select("fid_pont", names, features, reference, 3)
    with pytest.raises(UserError, match="cannot select 201 of 200"):
        selection.select("fid_point", names, features, reference, 201)
