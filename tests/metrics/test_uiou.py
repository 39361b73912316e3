import json

import numpy as np
import pytest

from nightjax.core.errors import UserError
from nightjax.metrics import confusion, uiou


@pytest.fixture
def scene():
    rng = np.random.default_rng(3)
    shape = (2, 12, 15)
    label = rng.integers(0, 6, shape).astype(np.uint8)
    label[label == 5] = 255
    return {
        "label": label,
        "prediction": rng.integers(0, 5, shape).astype(np.uint8),
        "confidence": rng.uniform(0.3, 0.9, shape).astype(np.float32),
        "invalid": rng.random(shape) < 0.3,
    }


def test_nothing_declined_is_the_ordinary_iou(scene):
    counts = np.asarray(uiou.uiou_counts(**scene, thresholds=[0.2], num_classes=5))
    plain = np.asarray(confusion.confusion_counts(scene["label"], scene["prediction"], 5))
    np.testing.assert_allclose(uiou.uiou_per_class(counts)[0], confusion.iou_per_class(plain), rtol=1e-12)


@pytest.mark.parametrize("invalid, expected", [(True, 1.0), (False, 0.0)])
def test_everything_declined(scene, invalid, expected):
    scene["invalid"] = np.full_like(scene["invalid"], invalid)
    counts = np.asarray(uiou.uiou_counts(**scene, thresholds=[0.95], num_classes=5))
    np.testing.assert_array_equal(uiou.uiou_per_class(counts)[0], np.full(5, expected))
    assert uiou.mean_uiou(counts)[0] == expected


def test_value_255_declines_at_every_threshold(scene):
    thresholds = np.array([0.0, 0.5], np.float32)
    low = dict(scene, confidence=np.full_like(scene["confidence"], -1.0))
    void = dict(scene, prediction=np.full_like(scene["prediction"], 255))
    np.testing.assert_array_equal(
        uiou.uiou_counts(**low, thresholds=thresholds, num_classes=5).sum(3),
        uiou.uiou_counts(**void, thresholds=thresholds, num_classes=5).sum(3),
    )


def test_equality_stays_valid():
    counts = uiou.uiou_counts(
        np.zeros((1, 1, 2), np.uint8),
        np.zeros((1, 1, 2), np.uint8),
        np.array([[[0.5, np.nextafter(np.float32(0.5), np.float32(0))]]], np.float32),
        np.zeros((1, 1, 2), bool),
        [0.5],
        2,
    )
    terms = uiou.uiou_terms(np.asarray(counts))
    assert terms["TP"][0, 0] == 1 and terms["FI"][0, 0] == 1


def test_forms_batches_and_padding_agree(scene):
    thresholds = uiou.default_thresholds(5, 4)
    whole = np.asarray(uiou.uiou_counts(**scene, thresholds=thresholds, num_classes=5, form="scatter"))
    onehot = uiou.uiou_counts(**scene, thresholds=thresholds, num_classes=5, form="onehot")
    np.testing.assert_array_equal(whole, onehot)
    masks = [np.arange(2) == keep for keep in (0, 1)]
    parts = [uiou.uiou_counts(**scene, thresholds=thresholds, num_classes=5, mask=mask) for mask in masks]
    np.testing.assert_array_equal(whole, parts[0] + parts[1])


def test_summary_is_percent_and_json(scene):
    thresholds = uiou.default_thresholds(5, 3)
    assert thresholds[0] == np.float32(0.2) and thresholds[-1] == 1
    counts = np.asarray(uiou.uiou_counts(**scene, thresholds=thresholds, num_classes=5))
    summary = uiou.summarize_uiou(counts, thresholds, "abcde")
    json.dumps(summary, allow_nan=False)
    np.testing.assert_allclose(summary["mean"], 100 * uiou.mean_uiou(counts))
    assert summary["average"] == pytest.approx(np.mean(summary["mean"]))


def test_unsorted_thresholds_are_refused(scene):
    with pytest.raises(UserError, match="ascend"):
        uiou.uiou_counts(**scene, thresholds=[0.5, 0.4], num_classes=5)
