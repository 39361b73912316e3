"""NightCity: three label versions, labels of twice the size, the frame that moved."""

import miniature
import numpy as np
import pytest


@pytest.mark.parametrize("version", ["original", "plus", "fine"])
def test_versions_read_back_exactly(tmp_path, prepare, read, version):
    expected = miniature.make_nightcity(tmp_path / "NightCity")
    builder = prepare("nightcity", version, tmp_path)
    records = read(builder, "train") + read(builder, "validation")
    assert [record["image_id"] for record in records] == [
        "Chicago_0049",
        "Dubai_0016",
        "Tokyo_0003",
    ]
    for record in records:
        assert np.array_equal(record["label"][..., 0], expected[record["image_id"]][version])
    assert "Dubai_0016 is in train: the corrected upload" in builder.info.metadata["notes"][0]


def test_early_upload_is_recognized(tmp_path, prepare):
    miniature.make_nightcity(tmp_path)
    for folder, name in (
        ("NightCity-images/images", "Dubai_0016.png"),
        ("NightCity-label/label", "Dubai_0016_labelIds.png"),
    ):
        (tmp_path / folder / "train" / name).rename(tmp_path / folder / "val" / name)
    report = prepare("nightcity", "original", tmp_path).info.metadata
    assert "early upload" in report["notes"][0] and report["splits"]["validation"]["images"] == 2


def test_self_converted_layout(tmp_path, prepare, read):
    label = miniature.train_ids(3)
    miniature.save(tmp_path / "img/train/Lima_0001.png", miniature.scene(3))
    miniature.save(tmp_path / "gt/train/Lima_0001_labelTrainIds.png", label)
    (record,) = read(prepare("nightcity", "original", tmp_path), "train")
    assert np.array_equal(record["label"][..., 0], label)
