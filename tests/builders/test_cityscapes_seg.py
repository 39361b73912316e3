"""Cityscapes: ids become train ids, half size, zips, test without truth."""

import shutil

import numpy as np
import pytest
from PIL import Image

from nightjax.core.classes import CITYSCAPES
from nightjax.core.errors import UserError
from nightjax.data.sources import open_source
from tests.helpers import miniature


def test_reads_back_exactly(tmp_path, prepare, read):
    expected = miniature.make_cityscapes(tmp_path / "cityscapes")
    builder = prepare("cityscapes_seg", "full", tmp_path)
    train = read(builder, "train")
    assert [record["image_id"] for record in train] == [
        "aachen_000000_000019",
        "hamburg_000000_042505",
    ]
    assert [(record["sequence"], record["frame"]) for record in train] == [
        ("aachen_000000", 19),
        ("hamburg_000000", 42505),
    ]
    for record in train + read(builder, "validation"):
        label = expected[record["image_id"]]
        assert np.array_equal(record["label"][..., 0], label)
        assert np.array_equal(record["class_pixels"], np.bincount(label.ravel(), minlength=256)[:19])
        city, name = record["image_id"].split("_")[0], f"{record['image_id']}_leftImg8bit.png"
        path = next((tmp_path / "cityscapes/leftImg8bit").glob(f"*/{city}/{name}"))
        assert np.array_equal(record["image"], np.asarray(Image.open(path)))
        assert np.isnan(record["gps"]).all() and record["condition"] == 0


def test_metadata_holds_the_integrity_report(tmp_path, prepare, capsys):
    miniature.make_cityscapes(tmp_path)
    (tmp_path / "gtFine/val/frankfurt/frankfurt_000001_005898_gtFine_labelIds.png").rename(
        tmp_path / "gtFine/val/frankfurt/frankfurt_000009_000000_gtFine_labelIds.png"
    )
    report = prepare("cityscapes_seg", "full", tmp_path).info.metadata
    assert report["missing_splits"] == ["validation"] and len(report["unmatched"]) == 2
    assert report["splits"]["train"]["images"] == 2 and report["splits"]["train"]["expected"] == 2975
    assert report["splits"]["train"]["sizes"] == {"64x32": 2}
    assert "7" in report["splits"]["train"]["file_values"]  # as on disk: label ids
    printed = capsys.readouterr().out
    assert "official number of train is 2975" in printed and "not in this copy: validation" in printed


@pytest.mark.parametrize("config", ["half", "prepared"])
def test_half_size(tmp_path, prepare, read, config):
    expected = miniature.make_cityscapes(tmp_path)
    for record in read(prepare("cityscapes_seg", config, tmp_path), "train"):
        assert record["image"].shape == (16, 32, 3)
        assert np.array_equal(record["label"][..., 0], expected[record["image_id"]][::2, ::2])


def test_a_threshold_of_pixels_means_the_same_in_all_variants(tmp_path):
    miniature.make_cityscapes(tmp_path / "city")
    open_variant = lambda config: open_source(
        f"cityscapes_seg/{config}", "train", data_dir=str(tmp_path / "tfds"), manual_dir=str(tmp_path / "city")
    )
    full, half, prepared = (open_variant(config).class_pixels() for config in ("full", "half", "prepared"))
    assert half.sum() == full.sum()  # All pixels are labeled.
    np.testing.assert_array_equal(half, prepared)
    np.testing.assert_allclose(half, full, atol=0.1 * full.max())
    np.testing.assert_array_equal(open_variant("half").class_pixels(), half)  # From the cache.


def test_raw_ids_are_a_feature_of_their_own(tmp_path, prepare, read):
    miniature.make_cityscapes(tmp_path)
    for record in read(prepare("cityscapes_seg", "full_with_ids", tmp_path), "train"):
        ids = record["file_label"][..., 0]
        assert np.array_equal(CITYSCAPES.from_ids[ids], record["label"][..., 0])
        assert ids.max() == 33


def test_test_split_has_no_labels(tmp_path, prepare, read):
    miniature.make_cityscapes(tmp_path)
    builder = prepare("cityscapes_seg", "test", tmp_path)
    assert [record["image_id"] for record in read(builder, "test")] == ["berlin_000000_000019"]
    assert "label" not in builder.info.features and "class_pixels" not in builder.info.features


def test_reads_the_two_zips(tmp_path, prepare, read):
    expected = miniature.make_cityscapes(tmp_path / "tree")
    manual = tmp_path / "manual"
    for name, folder in (
        ("leftImg8bit_trainvaltest", "leftImg8bit"),
        ("gtFine_trainvaltest", "gtFine"),
    ):
        shutil.make_archive(manual / name, "zip", tmp_path / "tree", folder)
    records = read(prepare("cityscapes_seg", "full", manual), "train")
    assert np.array_equal(records[0]["label"][..., 0], expected[records[0]["image_id"]])
    assert sorted(path.name for path in manual.iterdir()) == [
        "gtFine_trainvaltest.zip",
        "leftImg8bit_trainvaltest.zip",
    ]


def test_missing_data_is_one_clear_error(tmp_path, prepare):
    (tmp_path / "holiday").mkdir()
    with pytest.raises(UserError, match=r"holiday.*leftImg8bit_trainvaltest.zip.*cityscapes-dataset.com"):
        prepare("cityscapes_seg", "full", tmp_path)
