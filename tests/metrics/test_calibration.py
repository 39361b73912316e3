"""Calibration error, thresholds and risk, from the histogram of confidences."""

import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.metrics import calibration
from nightjax.metrics.calibration import BINS, FINE
from nightjax.ops.temperature import confidence_at


def drawn(count=4000):
    """Labels, predictions and confidences of which about the confidence's square is right."""
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.05, 1, (2, count // 40, 20)).astype(np.float32)
    label = rng.integers(0, 3, confidence.shape)
    prediction = np.where(rng.random(confidence.shape) < confidence**2, label, (label + 1) % 3)
    label[0, :5] = 255
    return label, prediction, confidence


@pytest.mark.parametrize("form", ["scatter", "onehot"])
def test_histogram_is_that_of_a_loop(form):
    label, prediction, confidence = drawn()
    mask = jnp.array([1.0, 0.0])
    counts = calibration.reliability_counts(*map(jnp.asarray, (label, prediction, confidence)), 3, mask=mask, form=form)
    expected = np.zeros((FINE, 2), int)
    for truth, found, value in zip(label[0].ravel(), prediction[0].ravel(), confidence[0].ravel(), strict=True):
        if truth != 255:
            expected[min(int(value * np.float32(FINE)), FINE - 1), int(truth == found)] += 1
    np.testing.assert_array_equal(counts, expected)


def test_error_is_the_textbook_one():
    label, prediction, confidence = (x.ravel() for x in drawn())
    valid, right = label != 255, label == prediction
    counts = np.asarray(calibration.reliability_counts(*map(jnp.asarray, drawn()), 3))
    error = 0.0
    for low in np.arange(BINS) / BINS:
        chosen = valid & (confidence >= low) & (confidence < low + 1 / BINS)
        error += chosen.sum() / valid.sum() * abs(confidence[chosen].mean() - right[chosen].mean())
    assert calibration.calibration_error(counts) == pytest.approx(error, abs=0.002) and error > 0.1
    assert calibration.calibration_error(np.zeros((FINE, 2))) == 0


def test_threshold_keeps_pixels_that_are_right_so_often():
    label, prediction, confidence = (x.ravel() for x in drawn())
    counts = np.asarray(calibration.reliability_counts(*map(jnp.asarray, drawn()), 3))
    least = calibration.threshold(counts, 0.7)
    chosen = (confidence >= least) & (label != 255)
    right = (label == prediction)[chosen].mean()
    assert calibration.kept(counts, least) == pytest.approx((right, chosen.sum() / (label != 255).sum()))
    assert right >= 0.7 > calibration.kept(counts, least - 1 / FINE)[0]
    assert calibration.threshold(counts, 0.0) == 0 and calibration.threshold(counts * [1, 0], 0.5) is None
    assert np.isnan(calibration.kept(np.zeros((FINE, 2)), 0.5)[0])


def test_summary_of_two_bins():
    counts = np.zeros((FINE, 2), np.int64)
    counts[[FINE // 4, FINE - 1]] = [[3, 1], [1, 5]]
    found = calibration.summarize_calibration(counts)
    assert found["reliability"]["pixels"] == [0] * 4 + [4] + [0] * 10 + [6]
    assert found["reliability"]["accuracy"][4] == 25 and found["reliability"]["accuracy"][0] is None
    assert found["reliability"]["confidence"][-1] == pytest.approx(100 * (FINE - 0.5) / FINE, abs=1e-3)
    risks = dict(zip(found["risk_coverage"]["coverage"], found["risk_coverage"]["risk"], strict=True))
    assert risks[60] == pytest.approx(100 / 6, abs=1e-3) and risks[100] == 40  # First the six, of which one is wrong.
    assert found["aurc"] == pytest.approx(np.mean(list(risks.values())))


def test_temperature_changes_confidences_alone():
    logits = jnp.array([[2.0, 0.0, -1.0]])
    for temperature in (0.5, 1.0, 2.0):
        scaled = np.exp(np.array([2, 0, -1]) / temperature)
        found = confidence_at(logits, logits.max(-1), temperature)
        np.testing.assert_allclose(found, scaled[0] / scaled.sum(), rtol=1e-6)
