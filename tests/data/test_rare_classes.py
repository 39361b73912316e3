"""Rare class probabilities."""

import numpy as np
import pytest

from nightjax.core.errors import UserError
from nightjax.data.sampling import rare_class_probabilities


def test_softmax_of_rarity():
    probs = rare_class_probabilities(np.array([[50, 20, 0], [25, 0, 5]]), temperature=0.5)
    expected = np.exp((1 - np.array([0.75, 0.2, 0.05])) / 0.5)
    np.testing.assert_allclose(probs, expected / expected.sum())
    np.testing.assert_allclose(rare_class_probabilities(np.array([75, 20, 5]), 0.5), probs)


def test_errors():
    with pytest.raises(UserError, match="no labeled pixel"):
        rare_class_probabilities(np.zeros((2, 3)), 0.01)
    with pytest.raises(UserError, match="temperature is 0"):
        rare_class_probabilities(np.ones((2, 3)), 0.0)
