"""Metrics against the official programs' numbers (tolerance: losses, 1e-5 relative)."""

import numpy as np
import pytest

from nightjax.metrics import confusion, uiou
from nightjax.ops import windows


def test_miou(golden):
    data = golden("dsr_fpa", "miou")
    k = len(data["iou_per_class_nan"])
    counts = np.asarray(confusion.confusion_counts(data["gt"], data["pred"], k))
    np.testing.assert_array_equal(counts, data["confusion_rows_gt"])

    for policy, name in (
        ("skip", "miou_nanmean_mmseg"),
        ("zero", "miou_code_absent_zero"),
        ("gt_only", "miou_present_in_gt_only"),
    ):
        assert confusion.mean_iou(counts, policy) == pytest.approx(float(data[name]), rel=1e-5)

    iou = confusion.iou_per_class(counts)
    np.testing.assert_allclose(iou, data["iou_per_class_nan"], rtol=1e-5)
    np.testing.assert_allclose(np.nan_to_num(iou), data["iou_per_class_with_absent_zero"], rtol=1e-5)
    summary = confusion.summarize(counts, [str(i) for i in range(k)])
    accuracy = [np.nan if value is None else value / 100 for value in summary["acc"].values()]
    np.testing.assert_allclose(accuracy, data["acc_per_class_nan"], rtol=1e-5)
    assert summary["pa"] / 100 == pytest.approx(float(data["aacc"]), rel=1e-5)


def test_miou_from_probabilities(golden):
    data = golden("dsr_fpa", "miou")
    probabilities, label = data["probs_small"], data["gt_small"]
    counts = np.asarray(confusion.confusion_counts(label, probabilities.argmax(axis=1), probabilities.shape[1]))
    assert confusion.mean_iou(counts, "zero") == pytest.approx(float(data["miou_small_code"]), rel=1e-5)


@pytest.mark.parametrize("name, threshold", [("zero", 0.0), ("third", 1 / 3), ("half", 0.5)])
def test_uiou_by_hand(golden, name, threshold):
    data = golden("dsr_fpa", "uiou")
    scene = [data[f"hand.{key}"][None] for key in ("gt", "pred", "confidence", "invalid")]
    counts = np.asarray(uiou.uiou_counts(*scene, [threshold], len(data["hand.half.uiou"])))
    np.testing.assert_allclose(uiou.uiou_per_class(counts)[0], data[f"hand.{name}.uiou"], rtol=1e-5)
    if f"hand.{name}.TP" in data:
        for term, value in uiou.uiou_terms(counts).items():
            np.testing.assert_array_equal(value[0], data[f"hand.{name}.{term}"])
        assert uiou.mean_uiou(counts)[0] == pytest.approx(float(data[f"hand.{name}.mean"]), rel=1e-5)


def test_uiou_full(golden):
    data = golden("dsr_fpa", "uiou")
    scene = [data[f"full.{key}"] for key in ("gt", "pred", "confidence", "invalid")]
    per_class = data["full.uiou_per_class_nan"]
    counts = np.asarray(uiou.uiou_counts(*scene, data["full.thresholds"], per_class.shape[1]))
    np.testing.assert_allclose(uiou.uiou_per_class(counts), per_class, rtol=1e-5)
    np.testing.assert_allclose(uiou.mean_uiou(counts), data["full.mean_uiou"], rtol=1e-5)


def test_hrda_detail_windows(golden):
    """HRDA's overlapping detail crops: windows of half the image, stride half a window."""
    data = golden("dsr_fpa", "hrda_tiny_eval")
    boxes = data["whole.hr_boxes"]
    window = int(boxes[0, 1] - boxes[0, 0]), int(boxes[0, 3] - boxes[0, 2])
    size = data["x_whole_uint8"].shape[-2:]
    offsets = windows.window_grid(size, window, (window[0] // 2, window[1] // 2))
    expected = [(y1, x1) for y1, _, x1, _ in boxes.tolist()]
    assert [tuple(offset) for offset in offsets.tolist()] == expected
