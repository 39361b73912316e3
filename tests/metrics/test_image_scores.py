"""The worst, the median and the best image of a set."""

import numpy as np

from nightjax.metrics.image_scores import ImageScores


def test_images_are_chosen_by_their_own_scores():
    label = np.zeros((4, 2, 4), np.uint8)
    label[:, :, 2:] = 1
    label[3] = 255  # Nothing to score.
    prediction = label.copy()
    prediction[0, :, 2:] = 0
    prediction[1, 0, 2:] = 0
    scores = ImageScores(3)
    scores.add((7, 8, 9, 10), label, prediction)
    scores.add((-1,), label[:1], prediction[:1])  # Padding.
    chosen = scores.chosen()
    assert len(scores) == chosen.count == 3
    assert chosen.index == {"worst": 7, "median": 8, "best": 9}
    assert chosen.miou["worst"] == 25.0 and chosen.miou["best"] == 100.0
    np.testing.assert_array_equal(chosen.prediction["median"], prediction[1])
