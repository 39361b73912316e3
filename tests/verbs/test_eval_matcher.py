"""Scores of a matcher on NightStreet."""

import numpy as np

from nightjax.inference.matching import agreement_by_warp
from nightjax.nightstreet.pairs import render_pair


def test_a_perfect_matcher_agrees_as_the_truth_does_and_none_as_the_unmoved():
    pairs = [render_pair(seed, size=(64, 128)) for seed in range(40_000, 40_004)]
    pairs = [pair for pair in pairs if pair["flow_valid"].any()]
    still, perfect, true = np.mean([agreement_by_warp(pair, pair["flow"]) for pair in pairs], axis=0)
    assert perfect == true > 0.97 > still
    none = np.mean([agreement_by_warp(pair, np.zeros_like(pair["flow"])) for pair in pairs], axis=0)
    assert none.tolist() == [still, still, true]
