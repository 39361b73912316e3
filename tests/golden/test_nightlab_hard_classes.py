"""Hard classes against the reference of the spec's rule, in float32."""

import numpy as np

from nightjax.metrics.hard_classes import PUBLISHED, select_hard_classes


def test_hard_classes(golden):
    data = golden("nightlab", "hard_classes")
    for row, iou in enumerate(data["iou"]):
        for column, threshold in enumerate(data["tau"]):
            for strict, name in ((True, "hard_strict"), (False, "hard_non_strict")):
                expected = np.flatnonzero(data[name][row, column])
                np.testing.assert_array_equal(select_hard_classes(iou, threshold, strict), expected)
    published = data["published_nightcity"]
    assert len(published) == len(PUBLISHED)
    for expected, classes in zip(published, PUBLISHED.values(), strict=True):
        np.testing.assert_array_equal(classes, np.flatnonzero(expected))
