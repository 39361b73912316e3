"""ACDC: four conditions, references, invalid masks, flattened trees."""

import shutil

import numpy as np
import pytest

from nightjax.core.errors import UserError
from tests.helpers import miniature


@pytest.mark.parametrize("gt", ["gt", "gt_trainval/gt"])
def test_night_reads_back_exactly(tmp_path, prepare, read, gt):
    expected = miniature.make_acdc(tmp_path / "ACDC", gt)
    builder = prepare("acdc", "night", tmp_path)
    train, validation = read(builder, "train"), read(builder, "validation")
    assert [record["sequence"] for record in train] == ["GOPR0351", "GP010376"] and len(validation) == 2
    for record in train + validation:
        assert np.array_equal(record["label"][..., 0], expected[record["image_id"]])
        assert np.array_equal(record["reference"], miniature.scene(record["frame"]))
        assert record["invalid"].mean() == 0.25
    assert builder.info.metadata["splits"]["validation"]["expected"] == 106


def test_test_has_references_and_no_labels(tmp_path, prepare, read):
    miniature.make_acdc(tmp_path)
    builder = prepare("acdc", "night_test", tmp_path)
    assert len(read(builder, "test")) == 2 and "label" not in builder.info.features


def test_all_conditions(tmp_path, prepare, read):
    miniature.make_acdc(tmp_path)
    builder = prepare("acdc", "all", tmp_path)
    names = builder.info.features["condition"].names
    assert sorted({names[record["condition"]] for record in read(builder, "train")}) == [
        "fog",
        "night",
    ]


def test_flattened_tree(tmp_path, prepare, read):
    expected = miniature.make_acdc(tmp_path / "deep")
    for kind in ("rgb_anon", "gt"):
        for split in ("train", "val"):
            (tmp_path / f"flat/{kind}/{split}").mkdir(parents=True)
            for path in (tmp_path / "deep" / kind).glob(f"*/{split}/*/*.png"):
                shutil.copy(path, tmp_path / f"flat/{kind}/{split}/{path.name}")
    records = read(prepare("acdc", "all", tmp_path / "flat"), "train")
    assert len(records) == 3 and all(record["condition"] == -1 for record in records)
    assert np.array_equal(records[0]["label"][..., 0], expected[records[0]["image_id"]])
    with pytest.raises(UserError, match="use config all"):
        prepare("acdc", "night", tmp_path / "flat")


def test_missing_reference_is_named(tmp_path, prepare):
    miniature.make_acdc(tmp_path)
    next((tmp_path / "rgb_anon/night/train_ref").rglob("*.png")).unlink()
    metadata = prepare("acdc", "night", tmp_path).info.metadata
    assert metadata["splits"]["train"]["images"] == 1 and "has no reference" in metadata["unmatched"][0]
