"""NEXET: lighting from a csv, broken and missing files counted, odd sizes kept."""

import miniature
import pytest


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
    assert [
        record["image_id"] for record in read(prepare("nexet", "night", tmp_path), "train")
    ] == ["frame_1"]


def test_prepared_is_half_size(tmp_path, prepare, read):
    miniature.make_nexet(tmp_path)
    assert read(prepare("nexet", "prepared", tmp_path), "train")[0]["image"].shape == (24, 32, 3)
