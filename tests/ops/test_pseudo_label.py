"""Refinement and confidence: analytic values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nightjax.core.classes import CITYSCAPES
from nightjax.core.errors import UserError
from nightjax.ops.pseudo_label import (
    confident_fraction,
    normalized_entropy,
    pseudo_label,
    refine,
)


def logits(**values):
    """[1, 1, 2, 19] zeros with ``c<id>=value``."""
    out = np.zeros((1, 1, 2, 19), np.float32)
    for name, value in values.items():
        out[..., int(name[1:])] = value
    return jnp.asarray(out)


def test_static_classes_agree_with_the_label_table():
    assert CITYSCAPES.group("static") == (0, 1, 2, 3, 4, 8, 9, 10)


def test_entropy_of_uniform_and_one_hot():
    np.testing.assert_allclose(normalized_entropy(jnp.full((2, 19), 1 / 19)), 1.0, rtol=1e-6)
    np.testing.assert_array_equal(normalized_entropy(jnp.eye(19)), 0.0)


def test_uniform_night_takes_the_day_with_the_confidence_of_the_alignment():
    confidence, valid = jnp.full((1, 1, 2), 0.3), jnp.array([[[True, False]]])
    out = refine(logits(), logits(c13=3), confidence, valid)
    np.testing.assert_allclose(out[0, 0, 0, 13], 0.195056, atol=1e-6)
    np.testing.assert_allclose(out[0, 0, 0, 0], 0.044719, atol=1e-6)
    np.testing.assert_allclose(out[0, 0, 1], 1 / 19, atol=1e-6)


def test_agreed_static_class_is_averaged_fully():
    out = refine(logits(c0=2), logits(c0=4), jnp.full((1, 1, 2), 0.3))[0, 0, 0]
    np.testing.assert_allclose(out[jnp.array([0, 5, 13])], [0.740170, 0.031901, 0.031901], atol=1e-6)
    np.testing.assert_allclose(out.sum(), 1.192, atol=1e-3)
    np.testing.assert_allclose(refine(logits(c0=2), logits(c0=4))[0, 0, 0, 5], 0.026911, atol=1e-6)


def test_day_prediction_of_a_dynamic_class_disables_the_static_mask():
    night, day, confidence = logits(c0=2), logits(c13=4), jnp.full((1, 1, 2), 0.3)
    masked = refine(night, day, confidence)
    np.testing.assert_allclose(masked, refine(night, day, confidence, use_static_mask=False), rtol=1e-6)


def test_confident_night_and_equal_predictions_change_nothing():
    np.testing.assert_allclose(refine(logits(c3=200), logits(c13=5))[..., 3], 1.0, rtol=1e-6)
    same = logits(c3=1.5)
    np.testing.assert_allclose(refine(same, same), jax.nn.softmax(same), rtol=1e-6)


def test_share_counts_the_threshold_itself():
    confidence = jnp.array([[[0.968, 0.2]], [[0.99, np.nextafter(np.float32(0.968), np.float32(0))]]])
    np.testing.assert_allclose(confident_fraction(confidence), [0.5, 0.5])
    confidence = confidence.at[1].set(0.0)
    np.testing.assert_allclose(confident_fraction(confidence), [0.25, 0.25])
    np.testing.assert_allclose(confident_fraction(confidence, scope="image"), [0.5, 0.0])
    with pytest.raises(UserError, match="scope"):
        confident_fraction(confidence, scope="pixel")


def test_pseudo_label_breaks_ties_to_the_smaller_id():
    label, confidence = pseudo_label(jnp.array([[[[0.2, 0.4, 0.4]]]]))
    assert label.dtype == jnp.uint8 and label.item() == 1
    np.testing.assert_allclose(confidence, 0.4)
