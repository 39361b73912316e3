import numpy as np

from nightjax.metrics.flicker import flicker, flicker_counts


def test_only_points_whose_truth_stays_are_counted():
    """The scene moves two pixels to the left; the point at column 5 of the frame before is at column 3 now."""
    before = np.array([[0, 0, 1, 1, 2, 2, 3, 255]], np.uint8)
    now = np.array([[1, 1, 2, 2, 3, 255, 4, 4]], np.uint8)
    flow = np.zeros((1, 8, 2), np.float32)
    flow[..., 0] = 2
    valid = np.array([[1, 1, 1, 1, 1, 1, 0, 0]], bool)
    counts = lambda *labels: flicker_counts(labels, (before, now), flow, valid).tolist()
    assert counts(before, now) == [0, 5]  # The sixth has no true class.
    wrong = now.copy()
    wrong[0, [1, 4, 5, 7]] = 9
    assert counts(before, wrong) == [2, 5]
    assert counts(wrong, wrong) == [5, 5]
    still = flicker_counts((before, wrong), (before, now), 0 * flow, np.ones((1, 8), bool))
    assert still.tolist() == [0, 0]


def test_counts_add_up_to_a_percentage():
    assert flicker(np.array([2, 5]) + np.array([1, 15])) == 15.0
    assert np.isnan(flicker(np.zeros(2, np.int64)))
