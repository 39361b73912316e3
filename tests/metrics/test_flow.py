"""Scores of flows: values by hand."""

import json

import numpy as np

from nightjax.metrics.flow import flow_sums, format_flow, summarize


def image(errors, confidence, valid=None):
    """Flow off by ``errors`` pixels to the right of a truth of (3, 4)."""
    errors = np.asarray(errors, float)[None]
    truth = np.broadcast_to(np.array([3.0, 4.0]), (*errors.shape, 2))
    flow = truth + np.stack([errors, np.zeros_like(errors)], -1)
    valid = np.ones(errors.shape, bool) if valid is None else np.asarray(valid)[None]
    return flow, truth, valid, np.asarray(confidence, float)[None]


def add(*sums):
    return {name: sum(part[name] for part in sums) for name in sums[0]}


def test_scores():
    first = flow_sums(*image([0, 1, 2, 9], [0.95, 1.0, 0.05, 0.0], [True, True, True, False]))
    second = flow_sums(*image([4, 6], [0.55, 0.5]))
    result = summarize(add(first, second))
    assert result["images"] == 2 and result["pixels"] == 5
    np.testing.assert_allclose(result["aepe"], (1 + 5) / 2)
    np.testing.assert_allclose(result["aepe_pixels"], 13 / 5)
    np.testing.assert_allclose(result["aepe_unmoved"], 5)
    assert result["pck"] == {"1": 2 / 5, "3": 3 / 5, "5": 4 / 5}


def test_calibration():
    perfect = summarize(flow_sums(*image([0.5, 0.5, 0.5, 3], [0.75] * 4)))
    np.testing.assert_allclose(perfect["calibration_error"], 0, atol=1e-12)
    row = perfect["bins"][7]
    assert row["pixels"] == 4 and row["within"] == row["confidence"] == 0.75
    np.testing.assert_allclose(row["error"], 4.5 / 4)
    sure = summarize(flow_sums(*image([3, 3], [1.0, 1.0])))
    np.testing.assert_allclose(sure["calibration_error"], 1)
    assert sure["bins"][9]["pixels"] == 2


def test_nothing_measured_is_none_and_not_zero():
    nothing = flow_sums(*image([1, 2], [0.5, 0.5], [False, False]))
    result = summarize(nothing)
    assert result["aepe"] is None and result["pck"]["1"] is None and result["calibration_error"] is None
    one = summarize(add(nothing, flow_sums(*image([2], [0.5]))))
    assert one["images"] == 1 and one["aepe"] == 2
    assert json.loads(json.dumps(result)) == result
    assert "-" in format_flow({"seen": result})


def test_table():
    lines = format_flow({"seen": summarize(flow_sums(*image([0, 2], [0.95, 0.1])))}).splitlines()
    assert lines[1].split()[:3] == ["seen", "1.00", "5.00"]
    assert lines[-1].split()[-1] == "0.00"
