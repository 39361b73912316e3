"""NightStreet looks like a street set: class shares, brightness, invalid share and pair agreement over many scenes."""

import cv2
import numpy as np
import pytest

from nightjax.core.classes import CITYSCAPES
from nightjax.nightstreet import pairs
from nightjax.nightstreet.examples import example
from nightjax.prepare.builder import parallel_map

pytestmark = pytest.mark.slow
SIZE = (128, 256)

CLASSES = range(len(CITYSCAPES))


def summary(item):
    """Brightness, invalid share, class pixels and connected components of one example."""
    split, index = item
    drawn = example(split, index, size=SIZE)
    image = drawn["image"].astype(np.float32)
    bright = image @ np.float32([0.2126, 0.7152, 0.0722])
    label = drawn["label"]
    return {
        "mean": bright.mean(),
        "median": np.median(bright),
        "dark": (bright < 16).mean(),
        "white": (bright > 250).mean(),
        "red_blue": image[..., 0].mean() / max(image[..., 2].mean(), 1e-3),
        "invalid": drawn["invalid"].sum() / drawn["class_pixels"].sum(),
        "pixels": drawn["class_pixels"],
        "parts": np.array(
            [cv2.connectedComponents((label == k).astype(np.uint8))[0] - 1 for k in range(len(CITYSCAPES))]
        ),
    }


def pair_summary(seed):
    pair = pairs.render_pair(seed, size=SIZE)
    night, day = pair["night"]["label"], pair["day"]["label"]
    warped = pairs.agreement(night, pairs.warp_labels(day, pair["flow"]), pair["flow_valid"])
    return pairs.agreement(night, day), warped


def table(split, count):
    rows = list(parallel_map(summary, [(split, i) for i in range(count)], desc=split))
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


@pytest.fixture(scope="module")
def day():
    return table("source_day", 200)


@pytest.fixture(scope="module")
def night():
    return table("test_night", 100)


def test_class_shares_follow_cityscapes(day):
    share = day["pixels"].sum(0) / day["pixels"].sum()
    ratio = share / np.array(CITYSCAPES.pixel_share)
    bound = np.where(np.array(CITYSCAPES.pixel_share) < 0.003, 3, 2)
    assert ((ratio < bound) & (ratio > 1 / bound)).all(), ratio
    ours, theirs = (np.argsort(np.argsort(v)) for v in (share, np.array(CITYSCAPES.pixel_share)))
    assert np.corrcoef(ours, theirs)[0, 1] >= 0.95
    assert ((day["pixels"] > 0).mean(0) >= 0.05).all()
    assert share.min() <= share.max() / 100


def test_every_class_is_there_to_be_scored_at_night(night):
    assert (night["parts"].sum(0) >= 40).all(), night["parts"].sum(0)


def test_brightness_of_the_day(day):
    assert 65 <= day["mean"].mean() <= 140 and day["dark"].mean() <= 0.04
    assert 0.8 <= day["red_blue"].mean() <= 1.05 and day["invalid"].mean() < 0.01


def test_brightness_of_the_night(night):
    assert 28 <= night["mean"].mean() <= 65 and 15 <= night["median"].mean() <= 50
    assert 0.15 <= night["dark"].mean() <= 0.5 and 0.001 <= night["white"].mean() <= 0.03
    low, high = np.percentile(night["red_blue"], (5, 95))
    assert low < 1.05 and high > 1.4 and night["red_blue"].max() < 3
    assert 0.15 <= night["invalid"].mean() <= 0.30


def test_pairs_agree_coarsely_and_warped_pairs_closely():
    rows = np.array(list(parallel_map(pair_summary, range(2_000_000, 2_000_100), desc="pairs")))
    assert 0.80 <= rows[:, 0].mean() <= 0.90
    assert np.nanmean(rows[:, 1]) > 0.97
