"""Days stand in for the truth of nights where they can."""

import numpy as np
import pytest

from nightjax.inference import day_agreement
from nightjax.nightstreet.pairs import render_pair


@pytest.fixture(scope="module")
def pairs():
    return [render_pair(2_000_000 + seed, size=(64, 128)) for seed in range(8)]


def test_one_shift_and_one_zoom_bring_days_onto_nights(pairs):
    moving = (11, 12, 13, 14, 15, 16, 17, 18)
    before, after = [], []
    for pair in pairs:
        night, day = pair["night"]["label"], pair["day"]["label"]
        truth = day_agreement.day_truth(night, day, moving)
        assert not np.isin(truth, moving).any() and (truth[np.isin(night, (*moving, 255))] == 255).all()
        known = truth != 255
        after.append((truth == night)[known].mean())
        before.append((day == night)[known & ~np.isin(day, (*moving, 255))].mean())
    assert np.mean(after) > np.mean(before) + 0.02
    assert known.mean() > 0.5


def test_a_shifted_map_is_found():
    rng = np.random.default_rng(0)
    day = np.kron(rng.integers(0, 4, (16, 32)), np.ones((8, 8))).astype(np.uint8)
    night = np.roll(day, (0, -6), (0, 1))
    truth = day_agreement.day_truth(night, day)
    inner = (slice(8, -8), slice(8, -16))
    assert (truth == night)[inner].mean() > 0.97


def test_maps_that_say_nothing_stay_void():
    void = np.full((32, 64), 255, np.uint8)
    assert (day_agreement.day_truth(void, void) == 255).all()
    road = np.zeros((32, 64), np.uint8)
    assert (day_agreement.day_truth(road, np.full((16, 32), 13, np.uint8), (13,)) == 255).all()
