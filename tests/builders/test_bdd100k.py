"""BDD100K: both layouts, palette indices, MGCDA's night list, and the real frames where present."""

import numpy as np
import pytest
from PIL import Image

from nightjax.core.errors import UserError
from tests.helpers import miniature
from tests.helpers.places import REAL_DATA


@pytest.mark.parametrize("form", [{}, {"old": True}, {"colormaps": True}])
def test_every_layout_reads_back_exactly(tmp_path, prepare, read, form):
    expected = miniature.make_bdd100k(tmp_path / "bdd100k", **form)
    builder = prepare("bdd100k_seg", "full", tmp_path)
    records = read(builder, "train") + read(builder, "validation")
    assert len(records) == 4
    for record in records:
        assert np.array_equal(record["label"][..., 0], expected[record["image_id"]])


def test_night_list(tmp_path, prepare, read):
    expected = miniature.make_bdd100k(tmp_path)
    builder = prepare("bdd100k_night", "mgcda_list", tmp_path)
    records = read(builder, "test")
    assert [record["image_id"] for record in records] == ["00aad4a0-ee8135fe"]
    assert np.array_equal(records[0]["label"][..., 0], expected["00aad4a0-ee8135fe"])
    report = builder.info.metadata
    assert report["splits"]["test"]["expected"] == 87 and len(report["notes"]) == 86
    assert "MGCDA" in report["label_version"]


def test_days_and_nights_are_told_apart_by_their_attributes(tmp_path, prepare, read):
    miniature.make_bdd100k(tmp_path)
    night, day = (prepare("bdd100k_seg", name, tmp_path) for name in ("night", "day"))
    assert [record["image_id"] for record in read(night, "train")] == ["00aad4a0-ee8135fe"]
    assert [record["image_id"] for record in read(day, "validation")] == ["7d83ed8d-00000001"]
    assert "train: 0 images are no day and no night" in night.info.metadata["notes"]


def test_without_attributes_nothing_is_a_night(tmp_path, prepare):
    miniature.make_bdd100k(tmp_path)
    for path in tmp_path.glob("labels/*.json"):
        path.unlink()
    with pytest.raises(UserError, match="bdd100k_labels_release.zip"):
        prepare("bdd100k_seg", "night", tmp_path)


def test_image_without_mask_is_counted(tmp_path, prepare):
    miniature.make_bdd100k(tmp_path)
    (tmp_path / "labels/sem_seg/masks/train/00a395fe-d60c0b47.png").unlink()
    report = prepare("bdd100k_seg", "full", tmp_path).info.metadata
    assert report["unmatched"] == ["00a395fe-d60c0b47 has no label"]


@pytest.mark.skipif(not (REAL_DATA / "bdd100k").is_dir(), reason="NIGHTJAX_SHARED_DATA has no bdd100k folder")
def test_real_frames(prepare, read):
    builder = prepare("bdd100k_seg", "full", REAL_DATA)
    records = read(builder, "train")
    assert len(records) == 8
    for record in records[:3]:
        mask = REAL_DATA / f"bdd100k/labels/sem_seg/masks/train/{record['image_id']}.png"
        assert np.array_equal(record["label"][..., 0], np.asarray(Image.open(mask)))
        assert record["image"].shape == (720, 1280, 3)
