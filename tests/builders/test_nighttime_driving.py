"""Nighttime Driving: two label versions that must not be confused."""

import numpy as np
import pytest

from tests.helpers import miniature


@pytest.mark.parametrize("version", ["original", "corrected"])
def test_versions_read_their_own_files(tmp_path, prepare, read, version):
    expected = miniature.make_nighttime_driving(tmp_path / "NighttimeDrivingTest")
    builder = prepare("nighttime_driving", version, tmp_path)
    records = read(builder, "test")
    assert [(record["sequence"], record["frame"]) for record in records] == [
        ("01", 1088),
        ("0", 304),
    ]
    for record in records:
        assert np.array_equal(record["label"][..., 0], expected[record["image_id"]][version])
    assert version in builder.info.metadata["label_version"]
    assert "disagree in 1 files" in builder.info.metadata["notes"][0]


def test_uncorrected_package_is_noticed(tmp_path, prepare):
    miniature.make_nighttime_driving(tmp_path)
    folder = tmp_path / "gtCoarse_daytime_trainvaltest/test/night"
    old = miniature.train_ids(1)
    miniature.save(folder / "01_frame_1088_gtCoarse_labelIds.png", miniature.label_ids(old))
    notes = prepare("nighttime_driving", "corrected", tmp_path).info.metadata["notes"]
    assert "not the corrected labels" in notes[0]
