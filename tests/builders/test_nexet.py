"""NEXET: lighting from a csv, broken and missing files counted, odd sizes kept."""

import numpy as np
import pytest

from nightjax.core.errors import UserError
from tests.helpers import miniature


@pytest.mark.parametrize("folder", ["", "nexet", "nexet/nexet"])
def test_all_photos(tmp_path, prepare, read, folder):
    miniature.make_nexet(tmp_path / folder)
    builder = prepare("nexet", "all", tmp_path)
    records = read(builder, "train")
    names = builder.info.features["condition"].names
    assert [(r["image_id"], names[r["condition"]], r["sequence"]) for r in records] == [
        ("frame_0", "day", "NYC"),
        ("frame_1", "night", "SF"),
        ("frame_3", "twilight", "NYC"),
    ]
    report = builder.info.metadata
    assert list(report["splits"]["train"]["broken"]) == ["frame_2"]
    assert report["unmatched"] == ["frame_9.jpg is in train.csv but not here"]
    assert report["splits"]["train"]["sizes"] == {"64x48": 1, "64x32": 2}


def test_one_lighting(tmp_path, prepare, read):
    miniature.make_nexet(tmp_path)
    assert [record["image_id"] for record in read(prepare("nexet", "night", tmp_path), "train")] == ["frame_1"]


LEVELS = [
    ("Day", 120),
    ("Day", 40),
    ("Night", 30),
    ("Night", 100),
    ("Twilight", 30),
    ("Night", 0),
    ("Day", 120),
    ("Night", 30),
]
"""Tag and gray level of each photo. The names of the last two are in the test part."""


def make_levels(root):
    rows = ["image_filename,lighting,city"]
    for i, (tag, level) in enumerate(LEVELS):
        miniature.save(root / f"nexet_2017_1/frame_{i}.jpg", np.full((16, 24, 3), level, np.uint8))
        rows.append(f"frame_{i}.jpg,{tag},NYC")
    (root / "nexet_2017_1/frame_5.jpg").write_bytes(b"broken")
    (root / "train.csv").write_text("\n".join(rows))


@pytest.mark.parametrize(
    ("config", "train", "test"),
    [
        ("day_agree", [0], [6]),
        ("night_agree", [2], [7]),
        ("day_brightness", [0, 3], [6]),
        ("night_brightness", [1, 2, 4], [7]),
        ("day_otsu", [0, 3], [6]),
        ("night_otsu", [1, 2, 4], [7]),
    ],
)
def test_day_and_night_by_brightness(tmp_path, prepare, read, config, train, test):
    make_levels(tmp_path)
    builder = prepare("nexet", config, tmp_path)
    for split, numbers in (("train", train), ("test", test)):
        assert [record["image_id"] for record in read(builder, split)] == [f"frame_{i}" for i in numbers]
    broken = [] if config == "day_agree" else ["frame_5"]
    assert list(builder.info.metadata["splits"]["train"]["broken"]) == broken


def test_agreement_needs_tags(tmp_path, prepare):
    make_levels(tmp_path)
    (tmp_path / "train.csv").unlink()
    with pytest.raises(UserError, match="brightness or otsu"):
        prepare("nexet", "night_agree", tmp_path)


def test_prepared_is_half_size(tmp_path, prepare, read):
    miniature.make_nexet(tmp_path)
    assert read(prepare("nexet", "prepared", tmp_path), "train")[0]["image"].shape == (24, 32, 3)
